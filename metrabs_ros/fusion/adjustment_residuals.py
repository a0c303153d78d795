"""
Residuals of the bundle adjustment, their losses and derivatives.

The residuals are the reprojection errors of all joints, relative to the standard deviations of
image points, and the monocular distances, relative to a scale factor of each person that is
estimated too: the network assumes the size of an average adult.  The loss is that of
Cauchy or of Geman and McClure, so that exchanged sides and wrong associations do not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

LOSS_SCALE = 3.0
"""Residual in standard deviations at which the loss bends."""
MIN_DEPTH_MM = 100.0

Loss = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""From squared residuals to losses and weights."""


def cauchy(squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return losses that grow slowly for outliers, and weights; for a bad initial guess."""
    scaled = squares / LOSS_SCALE**2
    return LOSS_SCALE**2 * np.log1p(scaled), 1 / (1 + scaled)


def geman_mcclure(squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return losses that are bounded for outliers, and weights; for a good initial guess."""
    scaled = 1 / (1 + squares / LOSS_SCALE**2)
    return squares * scaled, scaled**2


@dataclasses.dataclass(frozen=True)
class Observations:
    """
    Q people at certain instants, in C cameras, with J joints each.

    Parameters
    ----------
    rays
        [Q, C, J, 3], unit vectors, camera frame.
    seen
        [Q, C, J].
    std
        [Q, C, J], standard deviations of rays, in radians.
    distances_mm
        [Q, C, J], monocular distances; 0 without.
    scale_std
        [Q, C], their standard deviations as a fraction.
    people
        [Q], index of the person.
    instants
        [Q], index of the instant.
    person_scale_std
        [K], standard deviations of the sizes of all people, as a fraction.
    """

    rays: FloatArray
    seen: BoolArray
    std: FloatArray
    distances_mm: FloatArray
    scale_std: FloatArray
    people: NDArray[np.intp]
    instants: NDArray[np.intp]
    person_scale_std: FloatArray

    def select(self, which: NDArray[np.intp]) -> Observations:
        """Return some of the people and instants, with the sizes of all people."""
        values = {
            name: value[which] for name, value in vars(self).items() if name != 'person_scale_std'
        }
        return Observations(**values, person_scale_std=self.person_scale_std)


@dataclasses.dataclass(frozen=True)
class Prior:
    """
    Poses of C cameras that are known before the adjustment.

    Parameters
    ----------
    rotations, positions_mm
        [C, 3, 3] from world to camera, and [C, 3] in the world.
    rotation_std, position_std_mm
        [C], in radians and millimetres; infinite for unknown poses.
    """

    rotations: FloatArray
    positions_mm: FloatArray
    rotation_std: FloatArray
    position_std_mm: FloatArray


@dataclasses.dataclass(frozen=True)
class Estimate:
    """
    Camera poses, joints and sizes of people.

    Parameters
    ----------
    rotations, translations_mm
        [C, 3, 3] and [C, 3], from world to cameras.
    points_mm
        [Q, J, 3], world.
    log_scales
        [K], logarithm of true distance divided by monocular distance, of each person.
    """

    rotations: FloatArray
    translations_mm: FloatArray
    points_mm: FloatArray
    log_scales: FloatArray

    @property
    def positions_mm(self) -> FloatArray:
        """Positions of the cameras in the world, [C, 3]."""
        return -np.einsum('cji,cj->ci', self.rotations, self.translations_mm)


@dataclasses.dataclass(frozen=True)
class DataWeights:
    """
    How much the residuals count.

    Parameters
    ----------
    rays
        Weight of each squared residual of a ray, less than 1 because of correlations.
    distances
        Weight of each squared residual of a monocular distance.
    """

    rays: float
    distances: float


@dataclasses.dataclass(frozen=True)
class Residuals:
    """
    Residuals at an estimate, and what they derive from.

    Parameters
    ----------
    values
        [Q, C, J, 3], two of the ray and one of the distance, in standard deviations.
    losses
        [Q, C, J].
    weights
        [Q, C, J, 3], of the squared residuals; 0 for joints that are not seen.
    in_camera_mm
        [Q, C, J, 3], camera frame.
    depths_mm
        [Q, C, J], along the rays.
    """

    values: FloatArray
    losses: FloatArray
    weights: FloatArray
    in_camera_mm: FloatArray
    depths_mm: FloatArray


def residuals_of(
    observations: Observations, estimate: Estimate, weights: DataWeights, loss: Loss
) -> Residuals:
    """Return the residuals, losses and weights at an estimate."""
    in_camera_mm = estimate.points_mm[:, None] @ np.swapaxes(estimate.rotations, 1, 2)
    in_camera_mm = in_camera_mm + estimate.translations_mm[:, None]
    rays = observations.rays
    depths_mm = (rays * in_camera_mm).sum(axis=-1)
    safe_mm = np.maximum(depths_mm, MIN_DEPTH_MM)
    tangents = _tangents(rays)
    across = (tangents * in_camera_mm[..., None, :]).sum(axis=-1)
    values = np.empty((*depths_mm.shape, 3))
    values[..., :2] = across / (safe_mm * observations.std)[..., None]
    has_distance = observations.seen & (observations.distances_mm > 0)
    distance_mm = np.where(has_distance, observations.distances_mm, 1)
    log_scales = estimate.log_scales[observations.people][:, None, None]
    values[..., 2] = np.log(safe_mm / distance_mm) - log_scales
    values[..., 2] /= observations.scale_std[..., None]
    of_rays, ray_weights = loss((values[..., :2] ** 2).sum(axis=-1))
    of_distances, distance_weights = cauchy(values[..., 2] ** 2)
    use_ray = weights.rays * observations.seen
    use_distance = weights.distances * has_distance
    return Residuals(
        values,
        use_ray * of_rays + use_distance * of_distances,
        np.stack([use_ray * ray_weights] * 2 + [use_distance * distance_weights], axis=-1),
        in_camera_mm,
        safe_mm,
    )


def ray_residuals(observations: Observations, estimate: Estimate) -> FloatArray:
    """Return the residuals of rays [Q, C, J, 2] in standard deviations; NaN if not seen."""
    residuals = residuals_of(observations, estimate, DataWeights(1.0, 0.0), geman_mcclure)
    return np.where(observations.seen[..., None], residuals.values[..., :2], np.nan)


def jacobians(
    observations: Observations, estimate: Estimate, residuals: Residuals
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return derivatives by points [Q, C, J, 3, 3], cameras [.., 3, 6] and sizes [Q, C, J]."""
    rays, depths_mm = observations.rays, residuals.depths_mm
    by_place = np.empty((*rays.shape[:3], 3, 3))
    across = residuals.values[..., :2] * observations.std[..., None]
    by_place[..., :2, :] = _tangents(rays) - across[..., None] * rays[..., None, :]
    by_place[..., :2, :] /= (depths_mm * observations.std)[..., None, None]
    std = observations.scale_std[..., None]
    by_place[..., 2, :] = rays / (depths_mm * std)[..., None]
    # Rows without weight have values of any size, which must not overflow.
    by_place = np.where(residuals.weights[..., None] > 0, by_place, 0)
    by_point = by_place @ estimate.rotations[:, None]
    by_camera = np.empty((*rays.shape[:3], 3, 6))
    by_camera[..., :3] = np.cross(residuals.in_camera_mm[..., None, :], by_place)
    by_camera[..., 3:] = by_place
    by_scale = np.where(residuals.weights[..., 2] > 0, -1 / std, 0)
    return by_point, by_camera, by_scale


def _tangents(rays: FloatArray) -> FloatArray:
    """Return two unit vectors [..., 2, 3] that are perpendicular to rays [..., 3]."""
    # The axis that is least parallel to the ray.
    axes = np.eye(3)[np.argmin(np.abs(rays), axis=-1)]
    first = np.cross(rays, axes)
    first = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-12)
    return np.stack([first, np.cross(rays, first)], axis=-2)


def prior_errors(estimate: Estimate, prior: Prior) -> tuple[FloatArray, FloatArray]:
    """Return the rotations [C, 3] from the prior in radians, and the shifts [C, 3] in mm."""
    turns = np.stack(
        [
            cv2.Rodrigues(own @ known.T)[0][:, 0]
            for own, known in zip(estimate.rotations, prior.rotations)
        ]
    )
    return turns, estimate.positions_mm - prior.positions_mm


def prior_loss(observations: Observations, estimate: Estimate, prior: Prior) -> float:
    """Return the loss of poses and sizes that differ from those known before."""
    turns, shifts_mm = prior_errors(estimate, prior)
    loss = ((turns / prior.rotation_std[:, None]) ** 2).sum()
    loss += ((shifts_mm / prior.position_std_mm[:, None]) ** 2).sum()
    return float(loss + ((estimate.log_scales / observations.person_scale_std) ** 2).sum())
