"""What one image holds: its people, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import Convention, Skeleton

UNKNOWN_ID = -1
BEYOND_ALL_PLACES = 1e9
"""Millimetres, millimetres per second or pixels; sums of a thousand such values fit a float32."""

SURE_STD_MM = 30.0
DOUBT_STD_MM = 270.0
"""How far off joints are, by rule of thumb, that a network is sure of; and what doubt adds."""

NOSE_TO_ANKLE_OF_STATURE = 0.88
"""From ankle to nose along the body, as a share of stature (Drillis and Contini, 1966)."""


@dataclasses.dataclass(frozen=True)
class People:
    """
    N people of one image, with J joints each.

    Parameters
    ----------
    skeleton
        The convention of the joints.
    boxes_px
        [N, 4], left, top, width, height of what of each person is in the image.
    confidence
        [N], from 0 to 1: that this is a person.
    poses3d_mm
        [N, J, 3], camera optical frame.
    poses2d_px
        [N, J, 2], image pixels.
    joint_confidence
        [N, J], from 0 to 1: that the joint is visible.
    in_view
        [N, J], whether the joint lies inside the image.
    ids
        [N], who is who, or UNKNOWN_ID.
    joint_std_mm
        [N, J], how far off each joint may be, a standard deviation; by default what its
        confidence is worth.
    velocities_mm_s
        [N, J, 3], how fast the joints move in the world, along the axes of the poses' frame; 0 as
        long as that is not known.
    ages_s
        [N], how long ago each person was first seen; 0 as long as that is not known.
    seen
        [N], whether the person was seen in this image; otherwise carried over from earlier ones.
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

    def __post_init__(self) -> None:
        """Fill in what was not given."""
        if self.joint_std_mm.shape != self.joint_confidence.shape:
            doubt = 1 - self.joint_confidence
            object.__setattr__(self, 'joint_std_mm', SURE_STD_MM + doubt * DOUBT_STD_MM)
        if self.velocities_mm_s.shape != self.poses3d_mm.shape:
            object.__setattr__(self, 'velocities_mm_s', np.zeros_like(self.poses3d_mm))
        if len(self.ages_s) != len(self):
            object.__setattr__(self, 'ages_s', np.zeros(len(self)))
        if len(self.seen) != len(self):
            object.__setattr__(self, 'seen', np.ones(len(self), bool))

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.boxes_px)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> People:
        """Return arrays of the right shapes with no people in them."""
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
        Return the people of a prediction in the camera's frame.

        Parameters
        ----------
        prediction
            By `PoseEstimator.detect_poses`, without an extrinsic matrix: ``boxes`` [N, 5],
            ``poses3d`` [N, J, 3] and ``poses2d`` [N, J, 2].
        skeleton
            With J joints: ``model.convention(name).skeleton``.
        image_shape
            Height and width in pixels, further entries are ignored.
        """
        return cls.as_found(
            skeleton,
            prediction['boxes'][:, :4],
            prediction['boxes'][:, 4],
            prediction['poses3d'],
            prediction['poses2d'],
            image_shape,
        )

    @classmethod
    def as_found(
        cls,
        skeleton: Skeleton,
        boxes_px: FloatArray,
        confidence: FloatArray,
        poses3d_mm: FloatArray,
        poses2d_px: FloatArray,
        image_shape: tuple[int, ...],
    ) -> People:
        """Return people whose joints each have their person's confidence: no more is known."""
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

    def select(self, which: NDArray[Any]) -> People:
        """Return the people at an index array or mask."""
        arrays = {
            field.name: getattr(self, field.name)[which]
            for field in dataclasses.fields(self)
            if field.name != 'skeleton'
        }
        return dataclasses.replace(self, **arrays)

    @classmethod
    def concatenate(cls, several: Sequence[People]) -> People:
        """Join the people of several sets, at least one, with the same skeleton."""
        arrays = {
            field.name: np.concatenate([getattr(people, field.name) for people in several])
            for field in dataclasses.fields(cls)
            if field.name != 'skeleton'
        }
        return cls(skeleton=several[0].skeleton, **arrays)

    def in_convention(self, convention: Convention) -> People:
        """Return the same people with only a convention's joints."""
        joints = convention.indices
        return dataclasses.replace(
            self,
            skeleton=convention.skeleton,
            poses3d_mm=self.poses3d_mm[:, joints],
            poses2d_px=self.poses2d_px[:, joints],
            joint_confidence=self.joint_confidence[:, joints],
            in_view=self.in_view[:, joints],
            joint_std_mm=self.joint_std_mm[:, joints],
            velocities_mm_s=self.velocities_mm_s[:, joints],
        )

    def moved(self, rotation: FloatArray, translation_mm: FloatArray) -> People:
        """Return the same people in another frame: rotated [3, 3], then moved [3]."""
        poses3d_mm = self.poses3d_mm @ rotation.T + translation_mm
        velocities_mm_s = self.velocities_mm_s @ rotation.T
        return dataclasses.replace(self, poses3d_mm=poses3d_mm, velocities_mm_s=velocities_mm_s)

    def after(self, time_s: float) -> People:
        """Return the same people where they will be by their velocities; image points stay."""
        poses3d_mm = self.poses3d_mm + time_s * self.velocities_mm_s
        return dataclasses.replace(self, poses3d_mm=poses3d_mm)

    def finite(self) -> BoolArray:
        """Return which people have only finite values, each below `BEYOND_ALL_PLACES`, [N]."""
        of_people = (
            *(self.poses3d_mm, self.poses2d_px, self.boxes_px, self.velocities_mm_s),
            *(self.joint_std_mm, self.joint_confidence, self.confidence, self.ages_s),
        )
        finite = np.ones(len(self), bool)
        # Usually all of them, which is faster to find out for all people at once.
        if all(np.abs(values).max(initial=0) < BEYOND_ALL_PLACES for values in of_people):
            return finite
        for values in of_people:
            flat = values.reshape(len(self), int(np.prod(values.shape[1:])))
            finite &= np.abs(flat).max(axis=1, initial=0) < BEYOND_ALL_PLACES
        return finite

    @property
    def positions_mm(self) -> FloatArray:
        """The midpoint of each person's hips, or else of all joints, [N, 3], camera frame."""
        hips_mm = self.midpoint('hip')
        return np.where(np.isnan(hips_mm), self.poses3d_mm.mean(axis=1), hips_mm)

    @property
    def distances_mm(self) -> FloatArray:
        """How far each person's hips are from the camera, [N]."""
        return np.linalg.norm(self.positions_mm, axis=-1)

    @property
    def statures_mm(self) -> FloatArray:
        """
        How tall each person would stand, [N], whatever the posture.

        Summed along the body from ankle to nose, as a share of stature; NaN where the skeleton
        lacks one of these.
        """
        shoulders_mm = self.midpoint('shoulder')
        trunk_mm = np.linalg.norm(self.midpoint('hip') - shoulders_mm, axis=-1)
        neck_mm = np.linalg.norm(self.place('nose') - shoulders_mm, axis=-1)
        legs_mm = [
            np.linalg.norm(self.place(upper, side) - self.place(lower, side), axis=-1)
            for side in ('left', 'right')
            for upper, lower in (('hip', 'knee'), ('knee', 'ankle'))
        ]
        return (np.sum(legs_mm, axis=0) / 2 + trunk_mm + neck_mm) / NOSE_TO_ANKLE_OF_STATURE

    def place(self, part: str, side: str = '') -> FloatArray:
        """Return where a part of each body is, [N, 3]; NaN if the skeleton has no such joint."""
        joints = self.skeleton.part(part, side)
        if not len(joints):
            return np.full((len(self), 3), np.nan)
        return self.poses3d_mm[:, joints].mean(axis=1)

    def midpoint(self, part: str) -> FloatArray:
        """Return the midpoint of the left and the right part of this name, [N, 3]."""
        return (self.place(part, 'left') + self.place(part, 'right')) / 2


def inside_image(points_px: FloatArray, image_shape: tuple[int, ...]) -> BoolArray:
    """Tell which points [..., 2] lie on the pixels of an image, [...]."""
    x, y = points_px[..., 0], points_px[..., 1]
    height, width = image_shape[:2]
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def in_view(
    poses3d_mm: FloatArray, poses2d_px: FloatArray, image_shape: tuple[int, ...]
) -> BoolArray:
    """Tell which joints [..., 3] are in front of the camera and, at [..., 2], in its image."""
    return (poses3d_mm[..., 2] > 0) & inside_image(poses2d_px, image_shape)
