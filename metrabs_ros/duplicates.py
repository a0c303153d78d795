"""Detections of the same person: comparison of all pairs, and greedy suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

MAX_BLOCK_VALUES = 2_000_000
"""Number of coordinates that are compared at once, 16 MB."""


def are_near(points_px: FloatArray, limits_px: FloatArray) -> BoolArray:
    """
    Return which pairs of people have most of their points near each other, [N, N].

    If the number of points is odd, that is the case if the median of their distances is below the
    limit.

    Parameters
    ----------
    points_px
        [N, K, 2], image points of the people; NaN is near to nothing.
    limits_px
        [N, N], limit of the distance of each pair.
    """
    count, points = points_px.shape[:2]
    near = np.zeros((count, count), bool)
    # Blocks of rows, because the distances of all pairs need much memory.
    rows = max(1, MAX_BLOCK_VALUES // max(1, 2 * count * points))
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        apart_px = points_px[block, None] - points_px
        square_px2 = np.einsum('ijkc,ijkc->ijk', apart_px, apart_px)
        is_near = square_px2 < limits_px[block, :, None] ** 2
        near[block] = 2 * is_near.sum(axis=-1) > points
    return near


def keep_first(same: BoolArray, order: NDArray[np.intp]) -> BoolArray:
    """
    Return which people to keep so that each is kept once, [N].

    Parameters
    ----------
    same
        [N, N], whether a person (row) is a duplicate of another one (column).
    order
        [N], indices of the people.  A person is kept unless it is a duplicate of a person before
        it that is kept.
    """
    kept = np.zeros(len(order), bool)
    for i in order.tolist():
        kept[i] = not (same[i] & kept).any()
    return kept
