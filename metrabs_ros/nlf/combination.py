"""Combination of test-time augmentations: scale alignment and a weighted geometric median."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.plausibility import align_scale

WEIGHT_EXPONENT = -1.5
"""Weights of augmentations are uncertainties to this power."""
ITERATIONS = 10
MEDIAN_FLOOR_MM = 50.0
"""Added to distances from the median, so that nearby points do not dominate it."""


def combine_augmentations(
    poses_mm: FloatArray, uncertainties_m: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """
    Combine the poses of people in several augmentations.

    Parameters
    ----------
    poses_mm
        [N, A, P, 3], camera frame.
    uncertainties_m
        [N, A, P].

    Returns
    -------
    The combined poses [N, P, 3] and uncertainties [N, P].
    """
    median_mm, weights = geometric_median(align_scale(poses_mm), uncertainties_m**WEIGHT_EXPONENT)
    return median_mm, np.einsum('nap,nap->np', weights, uncertainties_m)


def geometric_median(points_mm: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Return weighted geometric medians over the second axis, by Weiszfeld's algorithm.

    Parameters
    ----------
    points_mm
        [N, A, P, 3].
    weights
        [N, A, P], positive.

    Returns
    -------
    The medians [N, P, 3], and the weights [N, A, P] of the points in them, which sum to one.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    median_mm = np.einsum('nap,napd->npd', share, points_mm)
    for _ in range(ITERATIONS):
        distance_mm = np.linalg.norm(points_mm - median_mm[:, None], axis=-1)
        share = weights / (distance_mm + MEDIAN_FLOOR_MM)
        share /= share.sum(axis=1, keepdims=True)
        median_mm = np.einsum('nap,napd->npd', share, points_mm)
    return median_mm, share
