"""Segment lengths of people: measured in each frame, averaged, and fixed once they are stable."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, norms
from metrabs_ros.kinematics.human_urdf import PROPORTIONS, SEGMENTS
from metrabs_ros.kinematics.landmarks import (
    ANKLES,
    EARS,
    ELBOWS,
    HIPS,
    KNEES,
    SHOULDERS,
    WRISTS,
)

DEFAULT_STATURE_MM = 1650.0
"""Stature of people without any measurement, as in the template."""
TIME_CONSTANT_S = 3.0
"""Time constant of the running mean of the lengths."""
STEADY_CHANGE, STEADY_S = 0.025, 1.0
"""Lengths are steady if none has changed by more than this share for this time."""
PUBLISHED_CHANGE = 0.05
"""Steady lengths replace the fixed ones if one of them differs by more than this share."""
MIN_LENGTH_MM, MAX_LENGTH_MM = 20.0, 1500.0
LIMBS = (
    *(('upper_arm', SHOULDERS, ELBOWS), ('forearm', ELBOWS, WRISTS)),
    *(('thigh', HIPS, KNEES), ('shank', KNEES, ANKLES)),
)
NECK_SHARE = PROPORTIONS[1] / (PROPORTIONS[0] + PROPORTIONS[1])
"""Share of the neck in the distance from the shoulders to the middle of the head."""


def measure_lengths(landmarks_mm: FloatArray, known: BoolArray) -> tuple[FloatArray, BoolArray]:
    """
    Return the lengths of `SEGMENTS` in a frame.

    The lengths of both sides are averaged.

    Parameters
    ----------
    landmarks_mm
        [N, 17, 3].
    known
        [N, 17], which landmarks are known.

    Returns
    -------
    Lengths [N, 9], and which of them are known, [N, 9].
    """
    lengths_mm = np.zeros((len(landmarks_mm), len(SEGMENTS)))
    is_known = np.zeros(lengths_mm.shape, bool)

    def set_length(segment: str, values_mm: FloatArray, *landmarks: slice) -> None:
        column = SEGMENTS.index(segment)
        lengths_mm[:, column] = values_mm
        is_known[:, column] = np.all([known[:, own].all(axis=1) for own in landmarks], axis=0)

    for segment, start, end in LIMBS:
        both_mm = norms(landmarks_mm[:, start] - landmarks_mm[:, end])
        # One side is sufficient.
        sides = known[:, start] & known[:, end]
        column, count = SEGMENTS.index(segment), sides.sum(axis=1)
        lengths_mm[:, column] = (both_mm * sides).sum(axis=1) / np.maximum(count, 1)
        is_known[:, column] = count > 0
    hips_mm, shoulders_mm, ears_mm = (
        landmarks_mm[:, own].mean(axis=1) for own in (HIPS, SHOULDERS, EARS)
    )
    set_length('hips', norms(np.diff(landmarks_mm[:, HIPS], axis=1))[:, 0], HIPS)
    across_mm = norms(np.diff(landmarks_mm[:, SHOULDERS], axis=1))[:, 0]
    set_length('shoulder', across_mm / 2, SHOULDERS)
    set_length('torso', norms(shoulders_mm - hips_mm), HIPS, SHOULDERS)
    to_head_mm = norms(ears_mm - shoulders_mm)
    set_length('neck', NECK_SHARE * to_head_mm, SHOULDERS, EARS)
    set_length('head_radius', (1 - NECK_SHARE) * to_head_mm, SHOULDERS, EARS)
    return lengths_mm, is_known


class SegmentLengths:
    """
    Segment lengths of T people.

    All arrays have the same order of people.

    Attributes
    ----------
    fixed_mm
        [T, 9], lengths of `SEGMENTS`: the present estimates until they are stable.
    versions
        [T], how often the stable lengths were set; 0 until they are stable.
    """

    def __init__(self) -> None:
        self.fixed_mm: FloatArray = np.zeros((0, len(SEGMENTS)))
        self.versions: NDArray[np.int64] = np.zeros(0, np.int64)
        self._means_mm: FloatArray = np.zeros((0, len(SEGMENTS)))
        self._counts: FloatArray = np.zeros((0, len(SEGMENTS)))
        self._steady_mm: FloatArray = np.zeros((0, len(SEGMENTS)))
        self._steady_s: FloatArray = np.zeros(0)

    def add(self, count: int) -> None:
        """Append people without any measurement."""
        for name, values in vars(self).items():
            setattr(self, name, np.pad(values, ((0, count),) + ((0, 0),) * (values.ndim - 1)))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        for name, values in vars(self).items():
            setattr(self, name, values[which])

    def update(
        self,
        rows: NDArray[np.intp],
        measured_mm: FloatArray,
        is_known: BoolArray,
        statures_mm: FloatArray,
        step_s: FloatArray,
    ) -> None:
        """
        Update the lengths with those of a frame.

        Parameters
        ----------
        rows
            [N], indices of the people in the frame.
        measured_mm, is_known
            [N, 9], lengths, and which of them are known.
        statures_mm
            [N], for people with unknown lengths; NaN if unknown, too.
        step_s
            [N], time since the last update; infinite for new people.
        """
        step_s = np.where(np.isfinite(step_s), step_s, 0.0)
        counts, means_mm = self._counts[rows], self._means_mm[rows]
        recent = 1 - np.exp(-step_s / TIME_CONSTANT_S)
        gain = np.maximum(recent[:, None], 1 / (counts + 1)) * is_known
        means_mm = means_mm + gain * np.where(is_known, measured_mm - means_mm, 0.0)
        counts = counts + is_known
        self._means_mm[rows], self._counts[rows] = means_mm, counts
        lengths_mm = _complete(means_mm, counts > 0, statures_mm)

        is_steady = ~_differs(lengths_mm, self._steady_mm[rows], STEADY_CHANGE)
        self._steady_s[rows] = np.where(is_steady, self._steady_s[rows] + step_s, 0.0)
        self._steady_mm[rows] = np.where(is_steady[:, None], self._steady_mm[rows], lengths_mm)
        is_first = self.versions[rows] == 0
        is_new: BoolArray = (self._steady_s[rows] >= STEADY_S) & (
            is_first | _differs(lengths_mm, self.fixed_mm[rows], PUBLISHED_CHANGE)
        )
        self.versions[rows] += is_new
        replaced = is_first | is_new
        self.fixed_mm[rows] = np.where(replaced[:, None], lengths_mm, self.fixed_mm[rows])


def _differs(lengths_mm: FloatArray, others_mm: FloatArray, share: float) -> BoolArray:
    """Return which people [N] have a length that differs by more than a share of the other."""
    return np.any(np.abs(lengths_mm - others_mm) > share * others_mm, axis=1)


def _complete(means_mm: FloatArray, is_known: BoolArray, statures_mm: FloatArray) -> FloatArray:
    """Return lengths [N, 9] with the template's proportions for unknown ones, within limits."""
    units = means_mm / PROPORTIONS
    ordered = np.sort(np.where(is_known, units, np.inf), axis=1)
    count = is_known.sum(axis=1)
    median = ordered[np.arange(len(units)), np.maximum(count - 1, 0) // 2]
    fallback = np.where(statures_mm > 0, statures_mm, DEFAULT_STATURE_MM)
    unit = np.where(count > 0, median, fallback)
    lengths_mm = np.where(is_known, means_mm, unit[:, None] * PROPORTIONS)
    return np.clip(lengths_mm, MIN_LENGTH_MM, MAX_LENGTH_MM)
