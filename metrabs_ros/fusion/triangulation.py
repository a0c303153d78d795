"""
Robust triangulation of points from rays, with a Gaussian prior.

The residual of a ray is the distance between point and ray, relative to its standard deviation at
the distance of the point.  For small errors this is the reprojection error of any lens, but it is
linear in the point, so that each step of the iteratively reweighted least squares solves one
system of 3 x 3 equations per point.  The weights follow the loss of Geman and McClure, which
ignores outliers completely.  As it has local minima, the iteration starts at the candidate with
the least loss among the prior and the intersections of all pairs of rays.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

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
        [B, V, 3], directions have unit length.
    std_mm
        [B, V], standard deviations across the ray.
    weights
        [B, V], 0 for points that are not seen; less than 1 for rays whose errors are correlated
        with those of earlier frames.
    distances_mm
        [B, V], measured distances along the rays.
    distance_information
        [B, V], inverse variances of these distances; 0 if they are not known.
    """

    origins_mm: FloatArray
    directions: FloatArray
    std_mm: FloatArray
    weights: FloatArray
    distances_mm: FloatArray
    distance_information: FloatArray

    def select(self, which: FloatArray) -> PointRays:
        """Return the rays of the points that a mask selects."""
        return PointRays(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))


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
        [B, V], from 0 to 1, robust weights of the rays; 0 for those not seen.
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
    points_mm = prior_mm.copy()
    seen = rays.weights > 0
    # Points whose rays all pass the prior need no other start.
    unsure = (seen & (_squared_residuals(rays, points_mm)[0] > LOSS_SCALE)).any(axis=1)
    unsure &= seen.sum(axis=1) > 1
    if unsure.any():
        points_mm[unsure] = _best_start(
            rays.select(unsure), prior_mm[unsure], prior_information[unsure]
        )
    prior_weight: FloatArray = np.ones(len(points_mm))
    weak = WEAK_INFORMATION * np.eye(3)
    # The coordinates come first, [3, B, V]: that makes the arithmetic several times faster.
    origins_mm, directions = (
        np.ascontiguousarray(values.transpose(2, 0, 1))
        for values in (rays.origins_mm, rays.directions)
    )
    precision = 1 / (rays.std_mm * rays.std_mm)
    for step in range(STEPS + 1):
        from_origin_mm = points_mm.T[..., None] - origins_mm
        along_mm = _inner(from_origin_mm, directions)
        offset_mm = along_mm * directions - from_origin_mm
        squared = _inner(offset_mm, offset_mm) * precision
        squared[along_mm < MIN_DISTANCE_MM] = BEHIND_CAMERA
        agreement = seen * _weight_of(squared)
        to_prior_mm = prior_mm - points_mm
        pull = (prior_information @ to_prior_mm[..., None])[..., 0]
        # With a single ray, it may be the ray that is wrong.
        several = (agreement > 0.25).sum(axis=1) > 1
        prior_weight = np.where(several, _weight_of((to_prior_mm * pull).sum(axis=-1) / 2), 1)
        across = rays.weights * agreement * precision
        along = rays.distance_information * agreement
        information = np.einsum('ibv,jbv->bij', (along - across) * directions, directions)
        information += across.sum(axis=1)[:, None, None] * np.eye(3)
        if step == STEPS:
            break
        force = (
            (across * offset_mm + (along * (rays.distances_mm - along_mm)) * directions)
            .sum(axis=2)
            .T
        )
        force += prior_weight[:, None] * pull
        total = information + prior_weight[:, None, None] * prior_information + weak
        points_mm = points_mm + np.linalg.solve(total, force[..., None])[..., 0]
    return Triangulated(points_mm, information, agreement, prior_weight)


def _inner(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [3, ...]."""
    product: FloatArray = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


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
        [..., 3].

    Returns
    -------
    Distances along both rays, [...], and the sines of the angles between them, [...].  Of parallel
    rays the distances are large or arbitrary, but finite.
    """
    between_mm = other_origins_mm - origins_mm
    cosine = (directions * other_directions).sum(axis=-1)
    square = np.maximum(1 - cosine * cosine, 1e-9)
    one = (directions * between_mm).sum(axis=-1)
    other = (other_directions * between_mm).sum(axis=-1)
    return (one - cosine * other) / square, (cosine * one - other) / square, np.sqrt(square)


def _weight_of(squared: FloatArray) -> FloatArray:
    """Return the weights for squared residuals in standard deviations, from 0 to 1."""
    root = 1 / (1 + squared / LOSS_SCALE**2)
    return root * root


def _squared_residuals(
    rays: PointRays, points_mm: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """
    Return squared residuals [..., V], offsets to the rays [..., V, 3], distances along them.

    Points [..., 3] may have more dimensions than the rays.  Points behind a camera are outliers.
    """
    from_origin_mm = points_mm[..., None, :] - rays.origins_mm
    along_mm = (from_origin_mm * rays.directions).sum(axis=-1)
    offset_mm = along_mm[..., None] * rays.directions - from_origin_mm
    squared = (offset_mm * offset_mm).sum(axis=-1) / rays.std_mm**2
    return np.where(along_mm < MIN_DISTANCE_MM, BEHIND_CAMERA, squared), offset_mm, along_mm


def _best_start(
    rays: PointRays, prior_mm: FloatArray, prior_information: FloatArray
) -> FloatArray:
    """Return the candidate [B, 3] with the least loss: the prior, or where two rays intersect."""
    pairs = np.array(list(itertools.combinations(range(rays.weights.shape[1]), 2)))
    i, j = pairs.T
    origins_mm, directions = rays.origins_mm, rays.directions
    one_mm, other_mm, sine = intersections(
        origins_mm[:, i], directions[:, i], origins_mm[:, j], directions[:, j]
    )
    points_mm = (
        origins_mm[:, i]
        + one_mm[..., None] * directions[:, i]
        + origins_mm[:, j]
        + other_mm[..., None] * directions[:, j]
    ) / 2
    usable = (sine > MIN_PARALLAX) & (np.minimum(one_mm, other_mm) > MIN_DISTANCE_MM)
    usable &= (rays.weights[:, i] > 0) & (rays.weights[:, j] > 0)
    usable = np.concatenate([np.ones((len(usable), 1), bool), usable], axis=1)
    candidates_mm = np.concatenate([prior_mm[:, None], points_mm], axis=1)
    # One axis more: [K, B, 3] against rays of [B, V].
    squared, _, _ = _squared_residuals(rays, np.swapaxes(candidates_mm, 0, 1))
    loss = (np.minimum(squared, MAX_LOSS) * (rays.weights > 0)).sum(axis=-1).T
    to_prior_mm = candidates_mm - prior_mm[:, None]
    prior_loss = ((to_prior_mm @ prior_information) * to_prior_mm).sum(axis=-1)
    loss += np.minimum(prior_loss, MAX_LOSS)
    best = np.where(usable, loss, np.inf).argmin(axis=1)
    return candidates_mm[np.arange(len(best)), best]
