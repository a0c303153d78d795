"""Bone lengths: slowly estimated per track, and used to reduce the noise of poses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import Skeleton

TIME_CONSTANT_S = 3.0
"""Time constant of the running mean of the lengths."""
MIN_LENGTH_MM = 60.0
"""Shorter bones are not corrected, as the noise of their joints is of the same size."""
TOLERANCE = 0.1
"""
Relative deviation from the estimated length at which the correction is halved.

A larger deviation is evidence that a joint moved, not noise.
"""


class BoneLengths:
    """
    Bone lengths of T tracks.

    Parameters
    ----------
    skeleton
        Skeleton with J joints and E bones.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        ends = np.array(skeleton.edges, np.intp).reshape(-1, 2)
        bones = np.arange(len(ends))
        self._lengths_mm: FloatArray = np.zeros((0, len(ends)))
        self._counts: FloatArray = np.zeros(0)
        # [J, E], from joints to bone vectors; [E, J], from bone corrections to joint corrections.
        self._to_bones = np.zeros((len(skeleton), len(ends)))
        self._to_bones[ends[:, 1], bones] = 1
        self._to_bones[ends[:, 0], bones] = -1
        bones_per_joint = np.maximum(np.abs(self._to_bones).sum(axis=1), 1)
        self._to_joints = (self._to_bones / (2 * bones_per_joint[:, None])).T

    def add(self, count: int) -> None:
        """Append tracks with unknown bone lengths."""
        self._lengths_mm = np.pad(self._lengths_mm, ((0, count), (0, 0)))
        self._counts = np.pad(self._counts, (0, count))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the tracks at an index array or mask, in its order."""
        self._lengths_mm, self._counts = self._lengths_mm[which], self._counts[which]

    def update(self, poses_mm: FloatArray, seen: BoolArray, step_s: float) -> FloatArray:
        """
        Update the lengths and correct the poses towards them.

        Parameters
        ----------
        poses_mm
            [T, J, 3], filtered poses; noise would bias the lengths upwards.
        seen
            [T], which tracks were detected; only their lengths are updated.
        step_s
            Time since the last frame.

        Returns
        -------
        Corrected poses, [T, J, 3], millimetres.
        """
        joints_mm = poses_mm.transpose(2, 0, 1)
        bones_mm = joints_mm @ self._to_bones
        measured_mm = np.sqrt((bones_mm * bones_mm).sum(axis=0))
        gain = np.maximum(1 - np.exp(-step_s / TIME_CONSTANT_S), 1 / (self._counts + 1)) * seen
        self._lengths_mm += gain[:, None] * (measured_mm - self._lengths_mm)
        self._counts += seen
        lengths_mm = self._lengths_mm
        deviation = (lengths_mm - measured_mm) / np.maximum(lengths_mm, MIN_LENGTH_MM)
        weight = (lengths_mm > MIN_LENGTH_MM) / (1 + (deviation / TOLERANCE) ** 2)
        stretch = weight * (lengths_mm - measured_mm) / np.maximum(measured_mm, 1e-9)
        return (joints_mm + (stretch * bones_mm) @ self._to_joints).transpose(1, 2, 0)
