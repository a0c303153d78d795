"""Bones that keep their lengths: what is learnt of each person's, slowly, steadies the poses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import Skeleton

LEARNT_S = 3.0
SHORTEST_MM = 60.0
"""Bones that are no longer than joints are uncertain say nothing."""
TOLERANCE = 0.1
"""A bone off by more of its length than this has moved: it is the joint that the network sees."""


class BoneLengths:
    """
    The lengths of T people's bones.

    Parameters
    ----------
    skeleton
        With E bones.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        ends = np.array(skeleton.edges, np.intp).reshape(-1, 2)
        bones = np.arange(len(ends))
        self._lengths_mm: FloatArray = np.zeros((0, len(ends)))
        self._lessons: FloatArray = np.zeros(0)
        # [J, E], from joints to bones; and [E, J], from what bones lack to where joints move.
        self._to_bones = np.zeros((len(skeleton), len(ends)))
        self._to_bones[ends[:, 1], bones] = 1
        self._to_bones[ends[:, 0], bones] = -1
        of_joint = np.maximum(np.abs(self._to_bones).sum(axis=1), 1)
        self._to_joints = (self._to_bones / (2 * of_joint[:, None])).T

    def add(self, people: int) -> None:
        """Take up people of whom nothing is known yet."""
        self._lengths_mm = np.pad(self._lengths_mm, ((0, people), (0, 0)))
        self._lessons = np.pad(self._lessons, (0, people))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        self._lengths_mm, self._lessons = self._lengths_mm[which], self._lessons[which]

    def steady(self, poses_mm: FloatArray, seen: BoolArray, step_s: float) -> FloatArray:
        """
        Return poses whose bones are nearer to their lengths, which are learnt from them as well.

        Parameters
        ----------
        poses_mm
            [T, J, 3], without the noise of single frames, which would make bones longer.
        seen
            [T], of whom there is something to learn.
        step_s
            How long it is since the last frame.
        """
        joints_mm = poses_mm.transpose(2, 0, 1)
        bones_mm = joints_mm @ self._to_bones
        length_mm = np.sqrt((bones_mm * bones_mm).sum(axis=0))
        share = np.maximum(1 - np.exp(-step_s / LEARNT_S), 1 / (self._lessons + 1)) * seen
        self._lengths_mm += share[:, None] * (length_mm - self._lengths_mm)
        self._lessons += seen
        wanted_mm = self._lengths_mm
        off = (wanted_mm - length_mm) / np.maximum(wanted_mm, SHORTEST_MM)
        trust = (wanted_mm > SHORTEST_MM) / (1 + (off / TOLERANCE) ** 2)
        stretch = trust * (wanted_mm - length_mm) / np.maximum(length_mm, 1e-9)
        return (joints_mm + (stretch * bones_mm) @ self._to_joints).transpose(1, 2, 0)
