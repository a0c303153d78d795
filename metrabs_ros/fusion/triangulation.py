"""
Robust triangulation of points from rays, with a Gaussian prior.

The residual of a ray is the distance between point and ray, relative to its standard deviation at
the distance of the point.  For small errors this is the reprojection error of any lens, but it is
linear in the point, so that each step of the iteratively reweighted least squares solves one
system of 3 x 3 equations per point.  The weights follow the loss of Geman and McClure, which
ignores outliers completely.  As it has local minima, the iteration starts at the candidate with
the least loss among the prior and the intersections of all pairs of rays.

The coordinates are the first axis of the arrays, and the points the last one, which makes the
arithmetic several times faster.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.rays import MIN_DISTANCE_MM

LOSS_SCALE = 3.0
"""Residual in standard deviations at which the weight is a quarter."""
MAX_LOSS = 9.0
"""Loss of an outlier, in squared standard deviations."""
STEPS = 2
MIN_PARALLAX = 0.05
"""Sine of the angle between two rays from which their intersection is a candidate."""
BEHIND_CAMERA = 1e9
"""Squared residual of points behind a camera."""
WEAK_INFORMATION = 1e-8
"""Information of a standard deviation of 10 m, which keeps the equations regular."""


@dataclasses.dataclass(frozen=True)
class PointRays:
    """
    V rays for each of B points.

    Parameters
    ----------
    origins_mm, directions
        [3, V, B], directions have unit length.
    std_mm
        [V, B], standard deviations across the ray.
    weights
        [V, B], 0 for points that are not seen; less than 1 for rays whose errors are correlated
        with those of earlier frames.
    distances_mm
        [V, B], measured distances along the rays.
    distance_information
        [V, B], inverse variances of these distances; 0 if they are not known.
    """

    origins_mm: FloatArray
    directions: FloatArray
    std_mm: FloatArray
    weights: FloatArray
    distances_mm: FloatArray
    distance_information: FloatArray


@dataclasses.dataclass(frozen=True)
class Triangulated:
    """
    B triangulated points.

    Parameters
    ----------
    points_mm
        [B, 3].
    information
        [B, 3, 3], inverse covariance matrices, without the prior.
    agreement
        [V, B], from 0 to 1, robust weights of the rays; 0 for those not seen.
    prior_weight
        [B], from 0 to 1, robust weight of the prior.
    """

    points_mm: FloatArray
    information: FloatArray
    agreement: FloatArray
    prior_weight: FloatArray


def triangulate(
    rays: PointRays, prior_mm: FloatArray, prior_information: FloatArray
) -> Triangulated:
    """
    Return the points that minimise the robust loss of the rays and of the prior.

    Parameters
    ----------
    rays
        V rays for each of B points.
    prior_mm
        [B, 3].
    prior_information
        [B, 3, 3]; may be zero.
    """
    prior_mm = np.ascontiguousarray(prior_mm.T)
    prior_information = np.ascontiguousarray(prior_information.transpose(1, 2, 0))
    weak = WEAK_INFORMATION * np.eye(3)[..., None]
    seen = rays.weights > 0
    precision = 1 / (rays.std_mm * rays.std_mm)
    points_mm = prior_mm
    offset_mm, along_mm, squared = _residuals(rays, precision, points_mm)
    # Points whose rays all pass the prior need no other start.
    unsure = (seen & (squared > LOSS_SCALE)).any(axis=0) & (seen.sum(axis=0) > 1)
    if unsure.any():
        points_mm = prior_mm.copy()
        points_mm[:, unsure] = _best_start(
            PointRays(*(own[..., unsure] for own in vars(rays).values())),
            prior_mm[:, unsure],
            prior_information[..., unsure],
        )
        offset_mm, along_mm, squared = _residuals(rays, precision, points_mm)
    for step in range(STEPS + 1):
        agreement = seen * _weight_of(squared)
        to_prior_mm = prior_mm - points_mm
        pull = _product(prior_information, to_prior_mm)
        # With a single ray, it may be the ray that is wrong.
        several = (agreement > 0.25).sum(axis=0) > 1
        prior_weight = np.where(several, _weight_of(_inner(to_prior_mm, pull) / 2), 1)
        across = rays.weights * agreement * precision
        along = rays.distance_information * agreement
        scaled = (along - across) * rays.directions
        information = (scaled[:, None] * rays.directions).sum(axis=2)
        total = across.sum(axis=0)
        for k in range(3):
            information[k, k] += total
        if step == STEPS:
            break
        pushes = across * offset_mm + (along * (rays.distances_mm - along_mm)) * rays.directions
        force = pushes.sum(axis=1) + prior_weight * pull
        information = information + prior_weight * prior_information + weak
        points_mm = points_mm + _solve(information, force)
        offset_mm, along_mm, squared = _residuals(rays, precision, points_mm)
    return Triangulated(points_mm.T, information.transpose(2, 0, 1), agreement, prior_weight)


def _residuals(
    rays: PointRays, precision: FloatArray, points_mm: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """
    Return offsets of points [3, B] to the rays [3, V, B], distances along them, squared residuals.

    Points behind a camera are outliers.
    """
    from_origin_mm = points_mm[:, None] - rays.origins_mm
    along_mm = _inner(from_origin_mm, rays.directions)
    offset_mm = along_mm * rays.directions - from_origin_mm
    squared = _inner(offset_mm, offset_mm) * precision
    squared[along_mm < MIN_DISTANCE_MM] = BEHIND_CAMERA
    return offset_mm, along_mm, squared


def _inner(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [3, ...]."""
    product: FloatArray = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def _product(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """Return the products [3, ...] of matrices [3, 3, ...] and vectors [3, ...]."""
    product: FloatArray = (
        matrices[:, 0] * vectors[0] + matrices[:, 1] * vectors[1] + matrices[:, 2] * vectors[2]
    )
    return product


def _solve(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """Solve symmetric, positive definite equations [3, 3, B] for vectors [3, B], by LDL^T."""
    (a, b, c), (_, d, e), (_, _, f) = matrices
    ba, ca = b / a, c / a
    second = d - ba * b
    mixed = e - ca * b
    em = mixed / second
    third = f - ca * c - em * mixed
    x, y, z = vectors
    y = y - ba * x
    z = (z - ca * x - em * y) / third
    y = y / second - em * z
    return np.stack([x / a - ba * y - ca * z, y, z])


def intersections(
    origins_mm: FloatArray,
    directions: FloatArray,
    other_origins_mm: FloatArray,
    other_directions: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """
    Return where pairs of rays are closest to each other.

    Parameters
    ----------
    origins_mm, directions, other_origins_mm, other_directions
        [3, ...].

    Returns
    -------
    Distances along both rays, [...], and the sines of the angles between them, [...].  Of parallel
    rays the distances are large or arbitrary, but finite.
    """
    between_mm = other_origins_mm - origins_mm
    cosine = _inner(directions, other_directions)
    square = np.maximum(1 - cosine * cosine, 1e-9)
    one = _inner(directions, between_mm)
    other = _inner(other_directions, between_mm)
    return (one - cosine * other) / square, (cosine * one - other) / square, np.sqrt(square)


def _weight_of(squared: FloatArray) -> FloatArray:
    """Return the weights for squared residuals in standard deviations, from 0 to 1."""
    root = 1 / (1 + squared / LOSS_SCALE**2)
    return root * root


def _squared_of_candidates(rays: PointRays, candidates_mm: FloatArray) -> FloatArray:
    """Return the squared residuals [K, V, B] of candidates [3, K, B] for the points."""
    # Relative to one of the cameras, so that the differences of squares are exact enough.
    anchor_mm = rays.origins_mm[:, :1]
    points_mm, origins_mm = candidates_mm - anchor_mm, rays.origins_mm - anchor_mm
    each_mm = points_mm[:, :, None]
    along_mm = _inner(each_mm, rays.directions[:, None]) - _inner(origins_mm, rays.directions)
    apart_mm2 = _inner(each_mm, -2 * origins_mm[:, None]) + _inner(origins_mm, origins_mm)
    apart_mm2 += _inner(points_mm, points_mm)[:, None]
    squared = (apart_mm2 - along_mm * along_mm) / (rays.std_mm * rays.std_mm)
    squared[along_mm < MIN_DISTANCE_MM] = BEHIND_CAMERA
    return squared


@functools.cache
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of all pairs of some items."""
    i, j = np.array(list(itertools.combinations(range(count), 2))).T
    return i, j


def _best_start(
    rays: PointRays, prior_mm: FloatArray, prior_information: FloatArray
) -> FloatArray:
    """Return the candidate [3, B] with the least loss: the prior, or where two rays intersect."""
    i, j = _pairs(len(rays.weights))
    one_origin_mm, other_origin_mm = rays.origins_mm[:, i], rays.origins_mm[:, j]
    one_direction, other_direction = rays.directions[:, i], rays.directions[:, j]
    one_mm, other_mm, sine = intersections(
        one_origin_mm, one_direction, other_origin_mm, other_direction
    )
    points_mm = one_origin_mm + one_mm * one_direction
    points_mm += other_origin_mm + other_mm * other_direction
    seen = rays.weights > 0
    usable = (sine > MIN_PARALLAX) & (np.minimum(one_mm, other_mm) > MIN_DISTANCE_MM)
    usable &= seen[i] & seen[j]
    candidates_mm = np.concatenate([prior_mm[:, None], points_mm / 2], axis=1)
    squared = _squared_of_candidates(rays, candidates_mm)
    loss = (np.minimum(squared, MAX_LOSS) * seen).sum(axis=1)
    to_prior_mm = candidates_mm - prior_mm[:, None]
    prior_loss = _inner(_product(prior_information[:, :, None], to_prior_mm), to_prior_mm)
    loss += np.minimum(prior_loss, MAX_LOSS)
    loss[1:][~usable] = np.inf
    return candidates_mm[:, loss.argmin(axis=0), np.arange(loss.shape[1])]
