"""
Absolute localisation of NLF's points.

It differs from that of MeTRAbs (`placement.absolute`) in three ways: only certain points determine
the reference; scales are computed from these points, and the regularisation is weaker; whether a
point is back-projected depends on the projection of its 3D-based position.
"""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.nlf.network import NlfConfig
from metrabs_ros.people import MM_PER_M
from metrabs_ros.placement.absolute import absolute_points

MAX_REFERENCE_UNCERTAINTY_M = 0.3
"""Maximum uncertainty of points that determine the reference."""
REFERENCE_MARGIN, MIXED_MARGIN = 1.0, 0.6
"""Minimum distance from the edge of the crop, in strides, of points that determine the reference,
and of points whose image points are used."""
INVALID_WEIGHT = 1e-8
"""Weight of points that do not determine the reference."""
RIDGE = 1e-4
"""Tikhonov regularisation, added to the diagonal of the normal equations."""
SCALE_FLOOR = 1e-10
"""Added to mean squares, of points in metres or at depth 1."""
MIN_DEVIATION = 1e-5
MIN_PROJECTION_DEPTH_MM = 100.0
MIN_DEPTH_MM = 1.0
MIX = 0.5
"""Share of the 3D-based position in points inside the crop."""


def place_points(
    image_points: FloatArray,
    metric_points_mm: FloatArray,
    uncertainties_m: FloatArray,
    image_points_px: FloatArray,
    intrinsics: FloatArray,
    config: NlfConfig,
) -> FloatArray:
    """
    Return absolute points in the frames of the virtual cameras, [N, P, 3], millimetres.

    Parameters
    ----------
    image_points
        [N, P, 2], on the plane at depth 1.
    metric_points_mm
        [N, P, 3], along the crop's axes, with an arbitrary origin.
    uncertainties_m
        [N, P], as the network estimates them.
    image_points_px
        [N, P, 2], the image points in crop pixels.
    intrinsics
        [N, 3, 3], of the virtual cameras.
    config
        Configuration of the network.
    """
    valid = config.is_inside(image_points_px, REFERENCE_MARGIN)
    valid &= uncertainties_m < MAX_REFERENCE_UNCERTAINTY_M
    find_reference = weak_reference if config.weak_perspective else full_reference
    reference_mm = find_reference(image_points, metric_points_mm, valid)
    moved_mm = metric_points_mm + reference_mm[:, None]
    projected = moved_mm / np.maximum(moved_mm[..., 2:], MIN_PROJECTION_DEPTH_MM)
    projected_px = projected @ intrinsics[:, :2].swapaxes(1, 2)
    inside = config.is_inside(projected_px, MIXED_MARGIN) & (moved_mm[..., 2] > MIN_DEPTH_MM)
    return absolute_points(image_points, metric_points_mm, reference_mm, inside, MIX)


def full_reference(
    image_points: FloatArray, metric_points_mm: FloatArray, valid: BoolArray
) -> FloatArray:
    """
    Return the positions of the origins for which points project to their image points.

    Each point contributes two rows of x + X = n (z + Z), as in
    `placement.absolute.full_perspective`.

    Parameters
    ----------
    image_points
        [N, P, 2], on the plane at depth 1.
    metric_points_mm
        [N, P, 3].
    valid
        [N, P], whether points determine the result.

    Returns
    -------
    [N, 3] millimetres.
    """
    metric_m = metric_points_mm / MM_PER_M
    targets = image_points * metric_m[..., 2:] - metric_m[..., :2]
    point_scale, target_scale = (_valid_scale(values, valid) for values in (image_points, targets))
    slopes = image_points / point_scale[:, None, None]
    targets = targets / target_scale[:, None, None]
    weights = valid + INVALID_WEIGHT

    # The normal equations of the rows (1, 0, -n_x) and (0, 1, -n_y), summed over the points.
    normal = np.zeros((len(slopes), 3, 3))
    normal[:, 0, 0] = normal[:, 1, 1] = weights.sum(axis=1)
    normal[:, :2, 2] = normal[:, 2, :2] = -np.einsum('np,npc->nc', weights, slopes)
    normal[:, 2, 2] = np.einsum('np,npc,npc->n', weights, slopes, slopes)
    normal += RIDGE * np.eye(3)
    right = np.empty((len(slopes), 3))
    right[:, :2] = np.einsum('np,npc->nc', weights, targets)
    right[:, 2] = -np.einsum('np,npc,npc->n', weights, slopes, targets)
    scaled = np.linalg.solve(normal, right[..., None])[..., 0]
    scaled[:, 2] /= point_scale
    return MM_PER_M * scaled * target_scale[:, None]


def weak_reference(
    image_points: FloatArray, metric_points_mm: FloatArray, valid: BoolArray
) -> FloatArray:
    """Return the positions of the origins by weak perspective; see `full_reference`."""
    metric_m = metric_points_mm / MM_PER_M
    mean_point, point_deviation = _valid_moments(image_points, valid)
    _, metric_deviation = _valid_moments(metric_m[..., :2], valid)
    depth_m = metric_deviation / point_deviation
    rays = np.concatenate([mean_point, np.ones_like(mean_point[:, :1])], axis=1)
    return MM_PER_M * (rays * depth_m[:, None] - _valid_mean(metric_m, valid))


def _valid_scale(values: FloatArray, valid: BoolArray) -> FloatArray:
    """Return the root mean squared norm of valid rows of [N, P, 2], [N]."""
    squares = _valid_mean(values**2, valid).sum(axis=-1)
    scale: FloatArray = np.sqrt(squares + SCALE_FLOOR)
    return scale


def _valid_moments(values: FloatArray, valid: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean [N, 2] of valid rows of [N, P, 2], and the deviation [N] from it."""
    mean = _valid_mean(values, valid)
    variance = _valid_mean((values - mean[:, None]) ** 2, valid).sum(axis=-1)
    return mean, np.maximum(np.sqrt(variance + SCALE_FLOOR), MIN_DEVIATION)


def _valid_mean(values: FloatArray, valid: BoolArray) -> FloatArray:
    """Return the mean [N, D] of valid rows of [N, P, D]; 0 if there are none."""
    share = valid / np.maximum(valid.sum(axis=1, keepdims=True), 1)
    mean: FloatArray = np.einsum('np,npd->nd', share, values)
    return mean
