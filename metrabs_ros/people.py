"""What one image holds: its people, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.skeleton import Skeleton

UNKNOWN_ID = -1

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
    """

    skeleton: Skeleton
    boxes_px: FloatArray
    confidence: FloatArray
    poses3d_mm: FloatArray
    poses2d_px: FloatArray
    joint_confidence: FloatArray
    in_view: NDArray[np.bool_]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.boxes_px)

    @classmethod
    def nobody(cls, skeleton: Skeleton) -> People:
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

    def with_skeleton(self, skeleton: Skeleton) -> People:
        """
        Return the same people with another convention's joints, which all must be among theirs.

        Raises
        ------
        ValueError
            If a joint of the new skeleton is not in the present one.
        """
        if skeleton == self.skeleton:
            return self
        joints = skeleton.indices_in(self.skeleton)
        return dataclasses.replace(
            self,
            skeleton=skeleton,
            poses3d_mm=self.poses3d_mm[:, joints],
            poses2d_px=self.poses2d_px[:, joints],
            joint_confidence=self.joint_confidence[:, joints],
            in_view=self.in_view[:, joints],
        )

    @property
    def positions_mm(self) -> FloatArray:
        """The midpoint of each person's hips, [N, 3], camera frame."""
        return self.midpoint('hip')

    @property
    def distances_mm(self) -> FloatArray:
        """How far each person's hips are from the camera, [N]."""
        return np.linalg.norm(self.positions_mm, axis=-1)

    @property
    def statures_mm(self) -> FloatArray:
        """
        How tall each person would stand, [N], whatever the posture.

        Summed along the body from ankle to nose, as a share of stature.
        """
        chain = [self.midpoint('shoulder'), self.joint('nose')]
        trunk_mm = np.linalg.norm(self.midpoint('hip') - chain[0], axis=-1)
        neck_mm = np.linalg.norm(chain[1] - chain[0], axis=-1)
        legs_mm = np.mean(
            [
                np.linalg.norm(self.joint(f'{side}_hip') - self.joint(f'{side}_knee'), axis=-1)
                + np.linalg.norm(self.joint(f'{side}_knee') - self.joint(f'{side}_ankle'), axis=-1)
                for side in ('left', 'right')
            ],
            axis=0,
        )
        return (legs_mm + trunk_mm + neck_mm) / NOSE_TO_ANKLE_OF_STATURE

    def joint(self, name: str) -> FloatArray:
        """Return where everybody's joint of this name is, [N, 3], millimetres."""
        return self.poses3d_mm[:, self.skeleton.joint_names.index(name)]

    def midpoint(self, name: str) -> FloatArray:
        """Return the midpoint of the left and the right joint of this name, [N, 3]."""
        return (self.joint(f'left_{name}') + self.joint(f'right_{name}')) / 2
