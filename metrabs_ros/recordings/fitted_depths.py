"""Depths of recorded joints in the frame of their camera, from positions in any frame."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.people import People

MIN_POINTS = 12
"""Minimum number of joints of all people; a projection has eleven unknowns, a joint gives two."""
MAX_MISFIT, EXACT_MISFIT = 0.05, 1e-4
"""
Median distance of image points from the projections, relative to their spread: maximum, and the
largest one without distortion of the lens.
"""
SAME_DEPTH, SAME_RATIO = 0.25, 0.05
"""
Maximum relative differences of the depths from z, and of their ratios, in the frame of a camera
whose lens distorts.
"""
MIN_PERSPECTIVE = 1e-9
NO_PROJECTION = np.zeros((3, 4)), np.inf


def fitted_depths(people: People) -> FloatArray | None:
    """
    Return the depths of the joints in the frame of the camera, mm, [N, J].

    The projection from the positions to the image points is estimated from both, by the direct
    linear transform: the frame of the positions, the camera and its pose need not be known.

    Parameters
    ----------
    people
        People in any fixed frame, with image points of one camera.

    Returns
    -------
    The depths; None if the image points are not projections of the positions, or too few.
    """
    # Image points of people who were not seen are those of an earlier image.
    fitted = people.select(people.seen) if people.seen.any() else people
    projection, misfit = _fit_projection(
        fitted.poses3d_mm.reshape(-1, 3), fitted.poses2d_px.reshape(-1, 2)
    )
    if misfit > MAX_MISFIT:
        return None
    depths_mm: FloatArray = people.poses3d_mm @ projection[2, :3] + projection[2, 3]
    z_mm = people.poses3d_mm[..., 2]
    if not np.all(depths_mm > 0):
        return None
    if misfit <= EXACT_MISFIT:
        return depths_mm
    ratios = z_mm / depths_mm
    middle = np.median(ratios)
    # In the frame of the camera, z is not affected by the distortion.
    is_same = np.abs(middle - 1) <= SAME_DEPTH and np.all(
        np.abs(ratios / middle - 1) <= SAME_RATIO
    )
    return z_mm if is_same else depths_mm


def _fit_projection(points_mm: FloatArray, points_px: FloatArray) -> tuple[FloatArray, float]:
    """
    Return the matrix [3, 4] that projects points [K, 3] to image points [K, 2], and the misfit.

    The third row gives depths in millimetres.  The misfit is infinite if there is no such matrix.
    """
    middle_mm, middle_px = points_mm.mean(axis=0), points_px.mean(axis=0)
    spread_mm, spread_px = points_mm.std(), points_px.std(axis=0).max()
    if len(points_mm) < MIN_POINTS or not spread_mm > 0 or not spread_px > 0:
        return NO_PROJECTION
    # Without units, the system is well conditioned.
    points = np.column_stack([(points_mm - middle_mm) / spread_mm, np.ones(len(points_mm))])
    x, y = ((points_px - middle_px) / spread_px).T
    zeros = np.zeros_like(points)
    system = np.concatenate(
        [
            np.column_stack([points, zeros, -x[:, None] * points]),
            np.column_stack([zeros, points, -y[:, None] * points]),
        ]
    )
    _, vectors = np.linalg.eigh(system.T @ system)
    matrix = vectors[:, 0].reshape(3, 4)
    depths = points @ matrix[2]
    # The sign of the eigenvector is arbitrary.
    matrix = matrix * np.sign(np.median(depths))
    depths = points @ matrix[2]
    if not np.all(depths > 0):
        return NO_PROJECTION
    misses = np.abs(points @ matrix[:2].T / depths[:, None] - np.column_stack([x, y])).max(axis=1)
    # Back to millimetres; the third row is then the direction of the optical axis, whose length
    # is 0 for parallel lines of sight.
    matrix = matrix / max(np.linalg.norm(matrix[2, :3]), MIN_PERSPECTIVE) * spread_mm
    linear = matrix[:, :3] / spread_mm
    projection = np.column_stack([linear, matrix[:, 3] - linear @ middle_mm])
    return projection, float(np.median(misses))
