"""
Absolute localisation: from root-relative poses and image points to the camera frame.

MeTRAbs (Sarandi et al., T-BIOM 2021, section III-D): image points give the direction of each
joint, metric root-relative points give the distances between joints, and the intrinsics relate
both.  The position of the root follows from a small linear least-squares problem.
"""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray

OUTSIDE_WEIGHT = 1e-4
"""Weight of joints outside the view; joints inside have weight 1."""
RIDGE = 0.1
"""Strength of the Tikhonov regularisation, after scaling to unit size."""


def absolute_points(
    image_points: FloatArray,
    root_relative_mm: FloatArray,
    reference_mm: FloatArray,
    inside: BoolArray,
    mix: float = 0.5,
) -> FloatArray:
    """
    Compute absolute poses from root positions.

    Joints inside the view are a weighted mean of the translated root-relative joint, with weight
    `mix`, and of the image point back-projected to its depth.  Joints outside the view are only
    translated.

    Parameters
    ----------
    image_points
        [N, J, 2], on the plane at depth 1 of an undistorted camera.
    root_relative_mm
        [N, J, 3], millimetres, along that camera's axes.
    reference_mm
        [N, 3], position of the root, from `full_perspective` or `weak_perspective`.
    inside
        [N, J], whether the image points are reliable.
    mix
        From 0 (only back-projection) to 1 (no back-projection).

    Returns
    -------
    [N, J, 3] millimetres, in that camera's frame.
    """
    moved_mm = root_relative_mm + reference_mm[:, None]
    back_projected_mm = to_rays(image_points) * moved_mm[..., 2:]
    mixed_mm = mix * moved_mm + (1 - mix) * back_projected_mm
    return np.where(inside[..., None], mixed_mm, moved_mm)


def to_rays(image_points: FloatArray) -> FloatArray:
    """Return points [..., 2] on the plane at depth 1 as rays [..., 3]."""
    return np.concatenate([image_points, np.ones_like(image_points[..., :1])], axis=-1)


def full_perspective(
    image_points: FloatArray, root_relative_mm: FloatArray, inside: BoolArray
) -> FloatArray:
    """
    Compute root positions for which the joints project to their image points.

    Each joint contributes two rows of x + X = n (z + Z), with (x, y, z) the root-relative joint,
    (X, Y, Z) the root and n the image point.  Unknowns and right-hand sides are scaled to unit
    size for each pose separately.  Joints outside the view have a very low weight, and Tikhonov
    regularisation keeps the problem solvable if no joint is inside.

    Parameters
    ----------
    image_points
        [N, J, 2], on the plane at depth 1.
    root_relative_mm
        [N, J, 3], millimetres.
    inside
        [N, J], whether the image points are reliable.

    Returns
    -------
    [N, 3] millimetres.
    """
    points = np.asarray(image_points, np.float64)
    relative_mm = np.asarray(root_relative_mm, np.float64)
    target_mm = points * relative_mm[..., 2:] - relative_mm[..., :2]
    point_scale = _root_mean_square(points)
    target_scale = _root_mean_square(target_mm)
    slopes = points / point_scale[:, None, None]
    targets = target_mm / target_scale[:, None, None]
    weights = (inside + OUTSIDE_WEIGHT) ** 2

    # The normal equations of the rows (1, 0, -n_x) and (0, 1, -n_y), summed over the joints.
    normal = np.zeros((len(points), 3, 3))
    normal[:, 0, 0] = normal[:, 1, 1] = weights.sum(axis=1)
    normal[:, :2, 2] = normal[:, 2, :2] = -np.einsum('nj,njc->nc', weights, slopes)
    normal[:, 2, 2] = np.einsum('nj,njc,njc->n', weights, slopes, slopes)
    normal += RIDGE**2 * np.eye(3)
    right = np.empty((len(points), 3))
    right[:, :2] = np.einsum('nj,njc->nc', weights, targets)
    right[:, 2] = -np.einsum('nj,njc,njc->n', weights, slopes, targets)
    scaled = np.linalg.solve(normal, right[..., None])[..., 0]
    scaled[:, 2] /= point_scale
    return scaled * target_scale[:, None]


def weak_perspective(
    image_points: FloatArray, root_relative_mm: FloatArray, inside: BoolArray
) -> FloatArray:
    """
    Compute root positions with the weak-perspective model (T-BIOM 2021, section III-D).

    The depth is the ratio of the pose's metric size to its size in the image, over the joints
    inside the view.  Parameters and result are those of `full_perspective`.
    """
    points = np.asarray(image_points, np.float64)
    relative_mm = np.asarray(root_relative_mm, np.float64)
    # If no joint is inside, use all joints; they give at least the direction.
    used = inside | ~inside.any(axis=1, keepdims=True)
    share = used / used.sum(axis=1, keepdims=True)
    depth_mm = _weighted_std(relative_mm[..., :2], share) / _weighted_std(points, share)
    mean_point = np.einsum('nj,njc->nc', share, points)
    return to_rays(mean_point) * depth_mm[:, None] - np.einsum('nj,njc->nc', share, relative_mm)


def _weighted_std(points: FloatArray, share: FloatArray) -> FloatArray:
    """Return the standard deviation [N] of points [N, J, D] with weights [N, J], at least 1e-5."""
    deviation = points - np.einsum('nj,njd->nd', share, points)[:, None]
    variance = np.einsum('nj,njd->n', share, deviation**2)
    return np.maximum(np.sqrt(variance + 1e-10), 1e-5)


def _root_mean_square(values: FloatArray) -> FloatArray:
    """Return the root mean square over all axes except the first, [N], at least 1e-12."""
    return np.maximum(np.sqrt(np.mean(values**2, axis=(1, 2))), 1e-12)
