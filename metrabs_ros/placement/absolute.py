"""
From root-relative to absolute: the step that turns a pose into a place in front of the camera.

MeTRAbs (Sarandi et al., T-BIOM 2021, section III-D): image points say in which direction each
joint lies, metric root-relative points say how far the joints are from each other, and the
intrinsics tie the two together.  The root's place is a small linear least-squares problem.
"""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray

OUTSIDE_WEIGHT = 1e-4
RIDGE = 0.1


def absolute_points(
    image_points: FloatArray,
    root_relative_mm: FloatArray,
    reference_mm: FloatArray,
    inside: BoolArray,
    mix: float = 0.5,
) -> FloatArray:
    """
    Place poses in front of the camera.

    Joints inside the view are `mix` parts the root-relative pose moved to its place, and the
    rest the image points back-projected to the depth found; joints outside are moved only.

    Parameters
    ----------
    image_points
        [N, J, 2], on the plane at depth 1 of an undistorted camera.
    root_relative_mm
        [N, J, 3], millimetres, along that camera's axes.
    reference_mm
        [N, 3], where the root is: of `full_perspective` or `weak_perspective`.
    inside
        [N, J], which image points are to be trusted.
    mix
        From 0 (back-projection only) to 1 (no back-projection).

    Returns
    -------
    [N, J, 3] millimetres, in that camera's frame.
    """
    moved_mm = root_relative_mm + reference_mm[:, None]
    rays = np.concatenate([image_points, np.ones_like(image_points[..., :1])], axis=-1)
    back_projected_mm = rays * moved_mm[..., 2:]
    mixed_mm = mix * moved_mm + (1 - mix) * back_projected_mm
    return np.where(inside[..., None], mixed_mm, moved_mm)


def full_perspective(
    image_points: FloatArray, root_relative_mm: FloatArray, inside: BoolArray
) -> FloatArray:
    """
    Find where the root must be for the joints to project to their image points.

    Each joint gives two rows of x + X = n (z + Z), with (x, y, z) the root-relative joint,
    (X, Y, Z) the root and n the image point; unknowns and right-hand sides are brought to unit
    scale one pose at a time, joints outside the view count next to nothing, and a ridge keeps the
    problem solvable where no joint is inside.

    Parameters
    ----------
    image_points
        [N, J, 2], on the plane at depth 1.
    root_relative_mm
        [N, J, 3], millimetres.
    inside
        [N, J], which image points are to be trusted.

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
    Find where the root is as if all joints had the same depth (T-BIOM 2021, section III-D).

    The depth is the ratio of the pose's size in space to its size in the image, over the joints
    inside the view.

    Parameters
    ----------
    image_points
        [N, J, 2], on the plane at depth 1.
    root_relative_mm
        [N, J, 3], millimetres.
    inside
        [N, J], which image points are to be trusted.

    Returns
    -------
    [N, 3] millimetres.
    """
    points = np.asarray(image_points, np.float64)
    relative_mm = np.asarray(root_relative_mm, np.float64)
    # Where no joint is inside, all there are give at least the direction.
    counted = inside | ~inside.any(axis=1, keepdims=True)
    share = counted / counted.sum(axis=1, keepdims=True)
    depth_mm = _spread(relative_mm[..., :2], share) / _spread(points, share)
    mean_point = np.einsum('nj,njc->nc', share, points)
    ray = np.concatenate([mean_point, np.ones_like(mean_point[:, :1])], axis=-1)
    return ray * depth_mm[:, None] - np.einsum('nj,njc->nc', share, relative_mm)


def _spread(points: FloatArray, share: FloatArray) -> FloatArray:
    """Return how far points [N, J, D] lie from their mean weighted by shares [N, J], [N]."""
    deviation = points - np.einsum('nj,njd->nd', share, points)[:, None]
    variance = np.einsum('nj,njd->n', share, deviation**2)
    return np.maximum(np.sqrt(variance + 1e-10), 1e-5)


def _root_mean_square(values: FloatArray) -> FloatArray:
    """Root mean square over all but the first axis, [N], kept away from 0."""
    return np.maximum(np.sqrt(np.mean(values**2, axis=(1, 2))), 1e-12)
