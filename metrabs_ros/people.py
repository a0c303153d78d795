"""People of one image, as a struct of arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays
from metrabs_ros.skeletons.conventions import Convention, Skeleton

MM_PER_M = 1000.0
ORIGIN_MM = np.zeros(3)
UNKNOWN_ID = -1
MAX_MAGNITUDE = 1e9
"""Limit of coordinates in mm, mm/s or pixels; sums of a thousand such values fit a float32."""

MIN_JOINT_STD_MM = 30.0
LOW_CONFIDENCE_STD_MM = 270.0
"""Joint standard deviation at confidence 1, and its increase at confidence 0; rules of thumb."""

ANKLE_TO_NOSE_RATIO = 0.88
"""Length from ankle to nose along the body, as a share of stature (Drillis and Contini, 1966)."""


@dataclasses.dataclass(frozen=True)
class People(StructOfArrays):
    """
    N people of one image, with J joints each.

    Parameters
    ----------
    skeleton
        The convention of the joints.
    boxes_px
        [N, 4], left, top, width, height of the visible part of each person.
    confidence
        [N], from 0 to 1, that this is a person.
    poses3d_mm
        [N, J, 3], camera optical frame.
    poses2d_px
        [N, J, 2], image pixels.
    joint_confidence
        [N, J], from 0 to 1, that the joint is visible.
    in_view
        [N, J], whether the joint lies inside the image.
    ids
        [N], track ids, or UNKNOWN_ID.
    joint_std_mm
        [N, J], standard deviation of each joint position; by default derived from
        `joint_confidence`.
    velocities_mm_s
        [N, J, 3], joint velocities relative to the world, along the axes of the camera frame; 0
        if unknown.
    ages_s
        [N], time since each person was first detected; 0 if unknown.
    seen
        [N], whether the person was observed in this image; False for extrapolated people.
    axis_std_mm
        [N, J, 3], standard deviation of each joint position along the axes of the frame of the
        poses; by default `joint_std_mm` on all axes.
    network_poses2d_px
        [N, J, 2], image points of the network, in image pixels, while `poses2d_px` is the
        projection of the poses; by default, and for extrapolated people, equal to it.
    estimated_statures_mm
        [N], statures that the poses are scaled to; NaN if unknown.
    scale_cues
        [N], cues that the scale is based on, as sums of `placement.person_scale.Cue`; 0: none.
    """

    skeleton: Skeleton
    boxes_px: FloatArray
    confidence: FloatArray
    poses3d_mm: FloatArray
    poses2d_px: FloatArray
    joint_confidence: FloatArray
    in_view: BoolArray
    ids: NDArray[np.int64]
    joint_std_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    velocities_mm_s: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    ages_s: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    seen: BoolArray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    axis_std_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    network_poses2d_px: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    estimated_statures_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    scale_cues: NDArray[np.uint8] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.uint8)
    )

    def __post_init__(self) -> None:
        """Fill in the default values of optional arrays."""
        if self.joint_std_mm.shape != self.joint_confidence.shape:
            doubt = 1 - self.joint_confidence
            object.__setattr__(
                self, 'joint_std_mm', MIN_JOINT_STD_MM + doubt * LOW_CONFIDENCE_STD_MM
            )
        if self.velocities_mm_s.shape != self.poses3d_mm.shape:
            object.__setattr__(self, 'velocities_mm_s', np.zeros_like(self.poses3d_mm))
        if len(self.ages_s) != len(self):
            object.__setattr__(self, 'ages_s', np.zeros(len(self)))
        if len(self.seen) != len(self):
            object.__setattr__(self, 'seen', np.ones(len(self), bool))
        if self.axis_std_mm.shape != self.poses3d_mm.shape:
            axis_std_mm = np.repeat(self.joint_std_mm[..., None], 3, axis=-1)
            object.__setattr__(self, 'axis_std_mm', axis_std_mm)
        if self.network_poses2d_px.shape != self.poses2d_px.shape:
            object.__setattr__(self, 'network_poses2d_px', self.poses2d_px)
        if len(self.estimated_statures_mm) != len(self):
            object.__setattr__(self, 'estimated_statures_mm', np.full(len(self), np.nan))
        if len(self.scale_cues) != len(self):
            object.__setattr__(self, 'scale_cues', np.zeros(len(self), np.uint8))

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.boxes_px)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> People:
        """Return a struct without people."""
        joints = len(skeleton)
        return cls(
            skeleton,
            np.zeros((0, 4)),
            np.zeros(0),
            np.zeros((0, joints, 3)),
            np.zeros((0, joints, 2)),
            np.zeros((0, joints)),
            np.zeros((0, joints), bool),
            np.zeros(0, np.int64),
        )

    @classmethod
    def of_prediction(
        cls, prediction: Mapping[str, FloatArray], skeleton: Skeleton, image_shape: tuple[int, ...]
    ) -> People:
        """
        Create people in the camera frame from a prediction.

        Parameters
        ----------
        prediction
            Result of `PoseEstimator.detect_poses` without an extrinsic matrix.  The arrays
            ``boxes``, ``poses3d`` and ``poses2d`` are required; without the others, each joint has
            the confidence of the person.
        skeleton
            Skeleton with J joints: ``model.convention(name).skeleton``.
        image_shape
            Height and width in pixels, further entries are ignored.

        Raises
        ------
        ValueError
            If the prediction has other joints, or has not been averaged over the augmentations.
        """
        shape = prediction['poses3d'].shape
        if shape[1:] != (len(skeleton), 3):
            raise ValueError(
                f'poses3d has shape {shape}, expected [N, {len(skeleton)}, 3]; give the skeleton '
                'of the prediction, and predict with average_aug=True'
            )
        people = cls.from_detections(
            skeleton,
            prediction['boxes'][:, :4],
            prediction['boxes'][:, 4],
            prediction['poses3d'],
            prediction['poses2d'],
            image_shape,
        )
        if 'network_poses2d' not in prediction:
            return people
        # The empty arrays make `__post_init__` derive the deviations from the new confidences.
        return dataclasses.replace(
            people,
            joint_confidence=prediction['joint_confidences'],
            network_poses2d_px=prediction['network_poses2d'],
            joint_std_mm=MM_PER_M * prediction.get('uncertainties', np.zeros(0)),
            axis_std_mm=np.zeros(0),
        )

    @classmethod
    def from_detections(
        cls,
        skeleton: Skeleton,
        boxes_px: FloatArray,
        confidence: FloatArray,
        poses3d_mm: FloatArray,
        poses2d_px: FloatArray,
        image_shape: tuple[int, ...],
    ) -> People:
        """
        Create people from detections without joint confidences.

        Each joint gets the confidence of its person; the ids are UNKNOWN_ID.
        """
        return cls(
            skeleton=skeleton,
            boxes_px=boxes_px,
            confidence=confidence,
            poses3d_mm=poses3d_mm,
            poses2d_px=poses2d_px,
            joint_confidence=np.repeat(confidence[:, None], len(skeleton), axis=1),
            in_view=in_view(poses3d_mm, poses2d_px, image_shape),
            ids=np.full(len(confidence), UNKNOWN_ID),
        )

    def in_convention(self, convention: Convention, depths_mm: FloatArray | None = None) -> People:
        """
        Return the same people with the joints of a convention.

        Parameters
        ----------
        convention
            Convention of the skeleton of these people.
        depths_mm
            [N, J], depths of the joints in the camera frame, on which the image points of
            combinations depend; by default, the people are in the camera frame.
        """
        if depths_mm is None:
            depths_mm = self.poses3d_mm[..., 2]
        # One call for several arrays takes less time than one for each.
        points_px = np.concatenate([self.poses2d_px, self.network_poses2d_px], axis=-1)
        points_px = convention.image_points(points_px, depths_mm)
        deviations_mm = np.concatenate([self.axis_std_mm, self.joint_std_mm[..., None]], axis=-1)
        deviations_mm = convention.axis_deviations(deviations_mm)
        return dataclasses.replace(
            self,
            skeleton=convention.skeleton,
            poses3d_mm=convention.positions(self.poses3d_mm),
            poses2d_px=points_px[..., :2],
            joint_confidence=convention.confidences(self.joint_confidence),
            in_view=convention.in_view(self.in_view),
            joint_std_mm=deviations_mm[..., 3],
            velocities_mm_s=convention.positions(self.velocities_mm_s),
            axis_std_mm=deviations_mm[..., :3],
            network_poses2d_px=points_px[..., 2:],
        )

    def transformed(
        self,
        rotation: FloatArray,
        translation_mm: FloatArray,
        viewpoint_mm: FloatArray = ORIGIN_MM,
    ) -> People:
        """
        Return the same people in another frame, by default people of the camera frame.

        Parameters
        ----------
        rotation, translation_mm
            [3, 3] and [3]; the people are rotated, then translated.
        viewpoint_mm
            [3], centre of the camera in the present frame; it determines the lines of sight, along
            which errors differ from those across.
        """
        poses3d_mm = self.poses3d_mm @ rotation.T + translation_mm
        velocities_mm_s = self.velocities_mm_s @ rotation.T
        # The variance is v + w (sight . axis)^2 along any axis, as the errors across the line of
        # sight are equal.  The least-squares fit for three axes yields v and w.
        variance_mm2 = self.axis_std_mm**2
        from_camera_mm = self.poses3d_mm - viewpoint_mm
        sight = from_camera_mm / np.maximum(
            np.linalg.norm(from_camera_mm, axis=-1, keepdims=True), 1e-9
        )
        excess = sight**2 - 1 / 3
        along_mm2 = (excess * variance_mm2).sum(axis=-1, keepdims=True) / np.maximum(
            (excess**2).sum(axis=-1, keepdims=True), 1e-9
        )
        across_mm2 = variance_mm2.mean(axis=-1, keepdims=True) - along_mm2 / 3
        axis_std_mm = np.sqrt(np.maximum(across_mm2 + along_mm2 * (sight @ rotation.T) ** 2, 0))
        return dataclasses.replace(
            self,
            poses3d_mm=poses3d_mm,
            velocities_mm_s=velocities_mm_s,
            axis_std_mm=axis_std_mm,
        )

    def scaled(self, factors: FloatArray, camera_velocity_mm_s: FloatArray) -> People:
        """
        Return the same people scaled about the camera centre, which is the origin of their frame.

        Parameters
        ----------
        factors
            [N].
        camera_velocity_mm_s
            [3], velocity of the camera relative to the world, along the axes of the camera frame.
        """
        factors = factors[:, None, None]
        return dataclasses.replace(
            self,
            poses3d_mm=factors * self.poses3d_mm,
            joint_std_mm=factors[:, 0] * self.joint_std_mm,
            axis_std_mm=factors * self.axis_std_mm,
            # The camera moves, so that the scaled positions move relative to the unscaled ones.
            velocities_mm_s=factors * self.velocities_mm_s + (1 - factors) * camera_velocity_mm_s,
        )

    def extrapolated(self, time_s: float) -> People:
        """Return the same people moved by their velocities; image points are unchanged."""
        poses3d_mm = self.poses3d_mm + time_s * self.velocities_mm_s
        return dataclasses.replace(self, poses3d_mm=poses3d_mm)

    def finite(self) -> BoolArray:
        """Return which people have only finite values, each below `MAX_MAGNITUDE`, [N]."""
        of_people = (
            *(self.poses3d_mm, self.poses2d_px, self.boxes_px, self.velocities_mm_s),
            *(self.joint_std_mm, self.axis_std_mm, self.joint_confidence),
            *(self.confidence, self.ages_s, self.network_poses2d_px),
        )
        finite = np.ones(len(self), bool)
        # Fast path: usually the values of all people are finite.
        if all(np.abs(values).max(initial=0) < MAX_MAGNITUDE for values in of_people):
            return finite
        for values in of_people:
            flat = values.reshape(len(self), int(np.prod(values.shape[1:])))
            finite &= np.abs(flat).max(axis=1, initial=0) < MAX_MAGNITUDE
        return finite

    @property
    def positions_mm(self) -> FloatArray:
        """Midpoint of each person's hips, [N, 3], camera frame; of all joints without hips."""
        hips_mm = self.midpoint('hip')
        return np.where(np.isnan(hips_mm), self.poses3d_mm.mean(axis=1), hips_mm)

    @property
    def distances_mm(self) -> FloatArray:
        """Distance between the camera and each person's hips, [N]."""
        return np.linalg.norm(self.positions_mm, axis=-1)

    @property
    def statures_mm(self) -> FloatArray:
        """
        Estimated standing height of each person, [N], independent of the posture.

        It is the length along the body from ankle to nose, divided by its share of the stature;
        NaN if the skeleton lacks one of the joints.
        """
        return implied_statures_mm(self.poses3d_mm, self.skeleton)

    def part_position(self, part: str, side: str = '') -> FloatArray:
        """Return the position of a body part, [N, 3]; NaN if the skeleton has no such joint."""
        return _part_position(self.poses3d_mm, self.skeleton, part, side)

    def midpoint(self, part: str) -> FloatArray:
        """Return the midpoint between the left and the right body part, [N, 3]."""
        return _midpoint(self.poses3d_mm, self.skeleton, part)


def _part_position(
    poses3d: FloatArray, skeleton: Skeleton, part: str, side: str = ''
) -> FloatArray:
    """Return the position [..., 3] of a part in poses [..., J, 3]; NaN without such joints."""
    joints = skeleton.part(part, side)
    if not len(joints):
        return np.full((*poses3d.shape[:-2], 3), np.nan)
    position: FloatArray = poses3d[..., joints, :].mean(axis=-2)
    return position


def _midpoint(poses3d: FloatArray, skeleton: Skeleton, part: str) -> FloatArray:
    """Return the midpoint [..., 3] between the left and the right body part."""
    left, right = (_part_position(poses3d, skeleton, part, side) for side in ('left', 'right'))
    return (left + right) / 2


def implied_statures_mm(poses3d_mm: FloatArray, skeleton: Skeleton) -> FloatArray:
    """Return the statures [...] of poses [..., J, 3]; see `People.statures_mm`."""
    position_mm = functools.partial(_part_position, poses3d_mm, skeleton)
    midpoint_mm = functools.partial(_midpoint, poses3d_mm, skeleton)
    shoulders_mm = midpoint_mm('shoulder')
    trunk_mm = np.linalg.norm(midpoint_mm('hip') - shoulders_mm, axis=-1)
    neck_mm = np.linalg.norm(position_mm('nose') - shoulders_mm, axis=-1)
    legs_mm = [
        np.linalg.norm(position_mm(upper, side) - position_mm(lower, side), axis=-1)
        for side in ('left', 'right')
        for upper, lower in (('hip', 'knee'), ('knee', 'ankle'))
    ]
    length_mm: FloatArray = np.sum(legs_mm, axis=0) / 2 + trunk_mm + neck_mm
    return length_mm / ANKLE_TO_NOSE_RATIO


def inside_image(points_px: FloatArray, image_shape: tuple[int, ...]) -> BoolArray:
    """Return which points [..., 2] lie on the pixels of an image, [...]."""
    x, y = points_px[..., 0], points_px[..., 1]
    height, width = image_shape[:2]
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def in_view(
    poses3d_mm: FloatArray, poses2d_px: FloatArray, image_shape: tuple[int, ...]
) -> BoolArray:
    """Return which joints [..., 3] lie in front of the camera and, at [..., 2], in its image."""
    return (poses3d_mm[..., 2] > 0) & inside_image(poses2d_px, image_shape)
