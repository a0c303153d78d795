"""
Errors of estimated poses, as functions of arrays.

Arrays have N poses with J joints.  Joints without a known true position are NaN in the truth, and
are left out of all means.  Positions are in millimetres, in the camera frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

MATCH_RATIO = 0.15
"""A detection shows a person if its median joint error is below this share of their size."""
SWAP_RATIO = 0.7
"""Sides are swapped if exchanging left and right reduces the image error to this share."""


def radial_errors(positions_mm: FloatArray, true_mm: FloatArray) -> FloatArray:
    """
    Return the errors of positions along the viewing direction, [N], positive if too far away.

    Parameters
    ----------
    positions_mm, true_mm
        [N, 3], camera frame.
    """
    return ((positions_mm - true_mm) * _directions(true_mm)).sum(axis=-1)


def lateral_errors(positions_mm: FloatArray, true_mm: FloatArray) -> FloatArray:
    """Return the errors [N] of positions [N, 3] perpendicular to the viewing direction."""
    error_mm = positions_mm - true_mm
    along_mm = radial_errors(positions_mm, true_mm)[:, None] * _directions(true_mm)
    return np.linalg.norm(error_mm - along_mm, axis=-1)


def joint_errors(poses: FloatArray, true: FloatArray) -> FloatArray:
    """Return the mean distance [N] between the joints of poses [N, J, D] and of true poses."""
    return np.nanmean(np.linalg.norm(poses - true, axis=-1), axis=-1)


def root_relative_errors(
    poses_mm: FloatArray, true_mm: FloatArray, roots: ArrayLike
) -> FloatArray:
    """
    Return the mean joint errors [N] after moving the roots of both poses to the origin.

    Parameters
    ----------
    poses_mm, true_mm
        [N, J, 3].
    roots
        Indices of the joints whose midpoint is the root.
    """
    return joint_errors(_relative_to(poses_mm, roots), _relative_to(true_mm, roots))


def aligned_errors(poses_mm: FloatArray, true_mm: FloatArray) -> FloatArray:
    """Return the mean joint errors [N] after Procrustes alignment (move, rotate, scale)."""
    return joint_errors(procrustes_aligned(poses_mm, true_mm), true_mm)


def procrustes_aligned(poses_mm: FloatArray, true_mm: FloatArray) -> FloatArray:
    """
    Translate, rotate and scale each pose [N, J, 3] to the least squared error.

    Reflections are not allowed: a mirrored pose keeps an error.
    """
    known = np.isfinite(true_mm).all(axis=-1, keepdims=True)
    share = known / known.sum(axis=1, keepdims=True)
    truth_mm = np.where(known, true_mm, 0)
    mean_mm = (share * poses_mm).sum(axis=1, keepdims=True)
    true_mean_mm = (share * truth_mm).sum(axis=1, keepdims=True)
    centred_mm, true_centred_mm = poses_mm - mean_mm, truth_mm - true_mean_mm
    u, singular, vt = np.linalg.svd(np.swapaxes(share * centred_mm, 1, 2) @ true_centred_mm)
    signs = np.ones_like(singular)
    signs[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs[:, None]) @ vt
    variance = (share * centred_mm**2).sum(axis=(1, 2))
    scale = (singular * signs).sum(axis=1) / variance
    return scale[:, None, None] * (centred_mm @ rotation) + true_mean_mm


def are_swapped(
    points_px: FloatArray, true_px: FloatArray, mirror: NDArray[np.intp], joints: ArrayLike
) -> BoolArray:
    """
    Return for which poses left and right are swapped, [N].

    Parameters
    ----------
    points_px, true_px
        [N, J, 2].
    mirror
        [J], index of each joint's counterpart on the other side.
    joints
        Indices of the joints to look at, of both sides.
    """
    plain_px = joint_errors(points_px[:, joints], true_px[:, joints])
    swapped_px = joint_errors(points_px[:, mirror][:, joints], true_px[:, joints])
    return swapped_px < SWAP_RATIO * plain_px


def acceleration_errors(poses_mm: FloatArray, true_mm: FloatArray, period_s: float) -> FloatArray:
    """
    Return the errors of the joints' accelerations, m/s^2.

    Parameters
    ----------
    poses_mm, true_mm
        [T, J, 3], poses at equal time intervals; NaN in frames without a pose.
    period_s
        Time between two poses.

    Returns
    -------
    [M], one for each joint of a pose that is known in this pose and in both neighbours.
    """
    error_mm = np.diff(poses_mm - true_mm, n=2, axis=0)
    error_m_s2 = np.linalg.norm(error_mm, axis=-1) / 1000 / period_s**2
    return error_m_s2[np.isfinite(error_m_s2)]


def coverage(errors_mm: FloatArray, std_mm: FloatArray, deviations: float) -> FloatArray:
    """
    Return the share of the errors [..., 3] within a number of standard deviations, per axis, [3].

    Parameters
    ----------
    errors_mm
        [..., 3], NaN where they are unknown.
    std_mm
        [..., 3], or [..., 1] if all axes have the same standard deviation.
    deviations
        The number of standard deviations.
    """
    inside = np.abs(errors_mm) <= deviations * std_mm
    known = np.isfinite(errors_mm)
    axes = tuple(range(errors_mm.ndim - 1))
    return (inside & known).sum(axis=axes) / known.sum(axis=axes)


def match_costs(
    points_px: FloatArray, person_px: FloatArray, mirror: NDArray[np.intp]
) -> FloatArray:
    """
    Return how well detections fit a person, [N]; `MATCH_RATIO` and more: another person.

    Parameters
    ----------
    points_px
        [N, J, 2], image points of the detections.
    person_px
        [J, 2], image points of the person; NaN where they are unknown or outside the image.
    mirror
        [J], index of each joint's counterpart: a detection with swapped sides fits, too.

    Returns
    -------
    The median joint errors as a share of the diagonal of the person's extent.
    """
    known = np.isfinite(person_px).all(axis=-1)
    size_px = np.linalg.norm(np.ptp(person_px[known], axis=0))
    costs = [
        np.median(np.linalg.norm(these_px[:, known] - person_px[known], axis=-1), axis=1)
        for these_px in (points_px, points_px[:, mirror])
    ]
    return np.minimum(*costs) / size_px


def _directions(positions_mm: FloatArray) -> FloatArray:
    return positions_mm / np.linalg.norm(positions_mm, axis=-1, keepdims=True)


def _relative_to(poses_mm: FloatArray, roots: ArrayLike) -> FloatArray:
    return poses_mm - poses_mm[:, roots].mean(axis=1, keepdims=True)
