"""People that one camera sees in one image: the input of the fusion."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, StructOfArrays
from metrabs_ros.camera import Camera
from metrabs_ros.people import MAX_MAGNITUDE, UNKNOWN_ID, People
from metrabs_ros.skeletons.conventions import Skeleton


@dataclasses.dataclass(frozen=True)
class CameraPeople(StructOfArrays):
    """
    N people, with J joints each, in one image of one camera.

    The results of any 2D network can be given: 3D poses are optional.  Joints with values that are
    not finite, or with a confidence of 0 or less, are taken as not seen.

    Parameters
    ----------
    camera_name
        Name of the camera; all its frames have the same.
    camera
        Intrinsics, lens, and pose in the world frame (z up, millimetres) at the time of the image.
    stamp_s
        Time of exposure, in seconds.
    skeleton
        The convention of the joints.
    points2d_px
        [N, J, 2], the network's own image points, in image pixels, not projections of 3D poses.
    joint_confidence
        [N, J], from 0 to 1; 0: the joint was not found.
    poses3d_mm
        [N, J, 3], world frame; NaN, or an empty array for all, where there are none.
    axis_std_mm
        [N, J, 3], standard deviations of the 3D poses along the axes of the world frame; an empty
        array if there are no 3D poses.
    track_ids
        [N], ids of the tracks of this camera, or UNKNOWN_ID, which is the default.
    image_shape
        Height and width of the image; None if they are not known.  They tell whether a person
        that the camera does not report is outside of its image.

    Raises
    ------
    ValueError
        If the shapes of the arrays do not match each other and the skeleton, or it has no joints.
    """

    camera_name: str
    camera: Camera
    stamp_s: float
    skeleton: Skeleton
    points2d_px: FloatArray
    joint_confidence: FloatArray
    poses3d_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    axis_std_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    track_ids: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Fill in the default values, check the shapes, and mark joints that are not seen."""
        if not len(self.skeleton):
            raise ValueError(
                f'the skeleton {self.skeleton.name} of camera {self.camera_name} has no joints; '
                'people are compared by their joints'
            )
        points_px = np.asarray(self.points2d_px, np.float64)
        confidence = np.asarray(self.joint_confidence, np.float64)
        shape = len(points_px), len(self.skeleton)
        object.__setattr__(self, 'points2d_px', points_px)
        object.__setattr__(self, 'joint_confidence', confidence)
        for name in ('poses3d_mm', 'axis_std_mm'):
            values = np.asarray(getattr(self, name), np.float64)
            # Without people, an empty array may have any shape.
            if not values.size:
                values = np.full((*shape, 3), np.nan)
            object.__setattr__(self, name, values)
        ids = np.asarray(self.track_ids, np.int64)
        object.__setattr__(self, 'track_ids', ids if ids.size else np.full(shape[0], UNKNOWN_ID))
        expected = {
            'points2d_px': (*shape, 2),
            'joint_confidence': shape,
            'poses3d_mm': (*shape, 3),
            'axis_std_mm': (*shape, 3),
            'track_ids': shape[:1],
        }
        for name, wanted in expected.items():
            given = getattr(self, name).shape
            if given != wanted:
                raise ValueError(
                    f'{name} of camera {self.camera_name} has the shape {given}; for '
                    f'{shape[0]} people in the skeleton {self.skeleton.name} it must be {wanted}'
                )
        seen = _are_finite(points_px) & (confidence > 0)
        object.__setattr__(self, 'points2d_px', np.where(seen[..., None], points_px, 0.0))
        object.__setattr__(self, 'joint_confidence', np.where(seen, np.minimum(confidence, 1), 0))

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.points2d_px)

    @classmethod
    def from_people(
        cls,
        camera_name: str,
        camera: Camera,
        stamp_s: float,
        people: People,
        image_shape: tuple[int, ...] | None = None,
    ) -> CameraPeople:
        """
        Return the people of a detector or tracker, without those that are only extrapolated.

        Parameters
        ----------
        camera_name, camera, stamp_s, image_shape
            As in the class.
        people
            People in the optical frame of the camera.
        """
        people = people.select(people.seen & people.finite())
        to_world = np.linalg.inv(camera.extrinsic_matrix)
        in_world = people.transformed(to_world[:3, :3], to_world[:3, 3])
        return cls(
            camera_name,
            camera,
            stamp_s,
            people.skeleton,
            people.network_poses2d_px,
            people.joint_confidence,
            in_world.poses3d_mm,
            in_world.axis_std_mm,
            people.ids,
            image_shape,
        )

    def in_skeleton(self, skeleton: Skeleton) -> CameraPeople:
        """Return the same people with other joints; those with a name of theirs are not seen."""
        if skeleton.joint_names == self.skeleton.joint_names:
            return self
        index = {name: i for i, name in enumerate(self.skeleton.joint_names)}
        joints = np.array([index.get(name, -1) for name in skeleton.joint_names], np.intp)
        has_joint = joints >= 0
        return dataclasses.replace(
            self,
            skeleton=skeleton,
            points2d_px=self.points2d_px[:, joints],
            joint_confidence=np.where(has_joint, self.joint_confidence[:, joints], 0),
            poses3d_mm=np.where(has_joint[:, None], self.poses3d_mm[:, joints], np.nan),
            axis_std_mm=np.where(has_joint[:, None], self.axis_std_mm[:, joints], np.nan),
        )


def _are_finite(points_px: FloatArray) -> NDArray[np.bool_]:
    """Return which points [..., 2] have finite coordinates that are not huge."""
    with np.errstate(invalid='ignore'):
        return np.asarray((np.abs(points_px) < MAX_MAGNITUDE).all(axis=-1))
