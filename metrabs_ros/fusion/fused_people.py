"""People in the world frame, as the fusion of several cameras estimates them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Skeleton


@dataclasses.dataclass(frozen=True)
class FusedPeople(StructOfArrays):
    """
    N people, with J joints each, in the world frame; all values are finite.

    Parameters
    ----------
    skeleton
        The convention of the joints.
    stamp_s
        The time that the positions are for.
    camera_names
        Names of C cameras, in the order of the columns of `seen_by` and `reprojection_px`.
    ids
        [N], ids of the tracks in the world.
    poses3d_mm
        [N, J, 3], world frame.
    velocities_mm_s
        [N, J, 3].
    covariances_mm2
        [N, J, 3, 3], covariance matrices of the joint positions.
    confidence
        [N], from 0 to 1, that this is a person.
    joint_confidence
        [N, J], from 0 to 1; 0: no camera has seen the joint recently, and its position is a guess.
    ages_s
        [N], time since each person was first detected.
    seen
        [N], whether a camera saw the person in the last frame set; otherwise extrapolated.
    seen_by
        [N, C], which cameras have seen the person in the last quarter of a second.
    reprojection_px
        [N, C], median distance of the camera's image points from the projected joints; 0 where
        the camera does not see the person.
    """

    skeleton: Skeleton
    stamp_s: float
    camera_names: tuple[str, ...]
    ids: NDArray[np.int64]
    poses3d_mm: FloatArray
    velocities_mm_s: FloatArray
    covariances_mm2: FloatArray
    confidence: FloatArray
    joint_confidence: FloatArray
    ages_s: FloatArray
    seen: BoolArray
    seen_by: BoolArray
    reprojection_px: FloatArray

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.ids)

    @classmethod
    def empty(
        cls, skeleton: Skeleton, stamp_s: float, camera_names: tuple[str, ...] = ()
    ) -> FusedPeople:
        """Return a struct without people."""
        joints, cameras = len(skeleton), len(camera_names)
        return cls(
            skeleton,
            stamp_s,
            camera_names,
            np.zeros(0, np.int64),
            np.zeros((0, joints, 3)),
            np.zeros((0, joints, 3)),
            np.zeros((0, joints, 3, 3)),
            np.zeros(0),
            np.zeros((0, joints)),
            np.zeros(0),
            np.zeros(0, bool),
            np.zeros((0, cameras), bool),
            np.zeros((0, cameras)),
        )

    @property
    def axis_std_mm(self) -> FloatArray:
        """Standard deviations of the joint positions along the axes of the world, [N, J, 3]."""
        return np.sqrt(np.diagonal(self.covariances_mm2, axis1=-2, axis2=-1))

    @property
    def joint_std_mm(self) -> FloatArray:
        """Root mean square of the standard deviations along the axes, [N, J]."""
        return np.sqrt((self.axis_std_mm**2).mean(axis=-1))

    def to_people(self) -> People:
        """Return them as `People` in the world frame, without boxes and image points."""
        count, joints = self.joint_confidence.shape
        return People(
            skeleton=self.skeleton,
            boxes_px=np.zeros((count, 4)),
            confidence=self.confidence,
            poses3d_mm=self.poses3d_mm,
            poses2d_px=np.zeros((count, joints, 2)),
            joint_confidence=self.joint_confidence,
            in_view=np.zeros((count, joints), bool),
            ids=self.ids,
            joint_std_mm=self.joint_std_mm,
            velocities_mm_s=self.velocities_mm_s,
            ages_s=self.ages_s,
            seen=self.seen,
            axis_std_mm=self.axis_std_mm,
        )
