"""Overlap of axis-aligned boxes, given as left, top, width, height in pixels."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray

MIN_AREA_PX2 = 1e-9


def box_iou(first_px: FloatArray, second_px: FloatArray) -> FloatArray:
    """
    Return the intersection over union of boxes.

    Parameters
    ----------
    first_px, second_px
        [..., 4]; the leading axes are broadcast.

    Returns
    -------
    [...], from 0 to 1.
    """
    shared_px2 = box_intersection_px2(first_px, second_px)
    union_px2 = first_px[..., 2:4].prod(axis=-1) + second_px[..., 2:4].prod(axis=-1) - shared_px2
    return shared_px2 / np.maximum(union_px2, MIN_AREA_PX2)


def box_containment(inner_px: FloatArray, outer_px: FloatArray) -> FloatArray:
    """
    Return the share of each inner box that lies within the outer box.

    Parameters
    ----------
    inner_px, outer_px
        [..., 4]; the leading axes are broadcast.

    Returns
    -------
    [...], from 0 to 1.
    """
    area_px2 = np.maximum(inner_px[..., 2:4].prod(axis=-1), MIN_AREA_PX2)
    return box_intersection_px2(inner_px, outer_px) / area_px2


def box_intersection_px2(first_px: FloatArray, second_px: FloatArray) -> FloatArray:
    """
    Return the area that boxes have in common, in square pixels.

    Parameters
    ----------
    first_px, second_px
        [..., 4]; the leading axes are broadcast.

    Returns
    -------
    [...], at least 0.
    """
    low_px = np.maximum(first_px[..., :2], second_px[..., :2])
    high_px = np.minimum(
        first_px[..., :2] + first_px[..., 2:4], second_px[..., :2] + second_px[..., 2:4]
    )
    return np.maximum(high_px - low_px, 0).prod(axis=-1)
