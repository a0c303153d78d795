"""
Bundle adjustment of camera poses and joints.

The residuals are the reprojection errors of all joints, relative to the standard deviations of
image points, and the monocular distances, relative to a scale factor of each person that is
estimated too: the network assumes the size of an average adult.  The loss is that of
Cauchy or of Geman and McClure, so that exchanged sides and wrong associations do not count.  Each
step of Levenberg and Marquardt eliminates the joints (Schur complement), which leaves six unknowns
per camera and one per person; the inverse of their matrix is the covariance of the result.
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
MIN_VIEWS = 2
MAX_STEPS = 60
MIN_GAIN, SMALL_DAMPING = 0.01, 1e-6
"""The iteration ends when the loss decreases by less, unless damping hinders the scale."""
MAX_DAMPING, INITIAL_DAMPING, MIN_DAMPING = 1e9, 1e-4, 1e-12
INLIER = 3.0
"""Maximum residual of inliers, in standard deviations."""
TRIANGULATION_STEPS = 6
MAX_LAG_S = 2.0
"""Correlations of residuals over a longer time are not measured."""

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
class _Residuals:
    """Residuals [Q, C, J, 3]: two of the ray, one of the distance; and what they derive from."""

    values: FloatArray
    losses: FloatArray
    weights: FloatArray
    in_camera_mm: FloatArray
    depths_mm: FloatArray


def triangulated(
    observations: Observations, rotations: FloatArray, translations_mm: FloatArray
) -> FloatArray:
    """Return the points [Q, J, 3] that are nearest to the rays, robustly; world frame."""
    directions = np.einsum('cki,qcjk->qcji', rotations, observations.rays)
    origins_mm = -np.einsum('cji,cj->ci', rotations, translations_mm)[:, None]
    has_distance = observations.distances_mm > 0
    known_mm = np.where(has_distance, observations.distances_mm, 4000.0)
    across = np.where(observations.seen, 1 / (observations.std * known_mm) ** 2, 0)
    along = 1 / (observations.scale_std[..., None] * known_mm) ** 2
    # A weak tie to the monocular position keeps nearly parallel rays from diverging.
    along = np.where(observations.seen & has_distance, along, 1e-3 * across)
    along = np.minimum(along, across)
    weights = np.ones_like(across)
    for _ in range(TRIANGULATION_STEPS):
        # across (I - d d^T) + along d d^T
        dyads = directions[..., :, None] * directions[..., None, :]
        information = (
            across[..., None, None] * np.eye(3) + (along - across)[..., None, None] * dyads
        )
        information = weights[..., None, None] * information
        target_mm = origins_mm + known_mm[..., None] * directions
        total = information.sum(axis=1) + 1e-12 * np.eye(3)
        right = np.einsum('qcjik,qcjk->qji', information, target_mm)
        points_mm = np.linalg.solve(total, right[..., None])[..., 0]
        offset_mm = points_mm[:, None] - origins_mm
        depth_mm = (offset_mm * directions).sum(axis=-1)
        squares = across * ((offset_mm**2).sum(axis=-1) - depth_mm**2)
        _, weights = cauchy(np.maximum(squares, 0))
    return points_mm


def adjust(
    observations: Observations,
    estimate: Estimate,
    prior: Prior,
    weights: DataWeights,
    loss: Loss = geman_mcclure,
) -> tuple[Estimate, FloatArray]:
    """
    Minimise the loss from an initial estimate.

    Returns
    -------
    The estimate, and the covariance [6 C + K, 6 C + K] of small rotations (radians, camera frame)
    and translations (mm, camera frame) of each camera, and of the sizes of people.
    """
    damping = INITIAL_DAMPING
    residuals = _residuals(observations, estimate, weights, loss)
    current = residuals.losses.sum() + _prior_loss(observations, estimate, prior)
    system = _System(observations, estimate, prior, residuals)
    for _ in range(MAX_STEPS):
        candidate = system.step(damping)
        new_residuals = _residuals(observations, candidate, weights, loss)
        new = new_residuals.losses.sum() + _prior_loss(observations, candidate, prior)
        if new < current:
            gain = current - new
            estimate, residuals, current = candidate, new_residuals, new
            damping = max(damping / 10, MIN_DAMPING)
            system = _System(observations, estimate, prior, residuals)
            if gain < MIN_GAIN and damping <= SMALL_DAMPING:
                break
        else:
            damping *= 10
            if damping > MAX_DAMPING:
                break
    return estimate, system.covariance()


def ray_residuals(observations: Observations, estimate: Estimate) -> FloatArray:
    """Return the residuals of rays [Q, C, J, 2] in standard deviations; NaN if not seen."""
    residuals = _residuals(observations, estimate, DataWeights(1.0, 0.0), geman_mcclure)
    return np.where(observations.seen[..., None], residuals.values[..., :2], np.nan)


def information_factor(
    observations: Observations, residuals: FloatArray, step_s: float
) -> tuple[float, float]:
    """
    Return by how much the variance of the data exceeds the assumed one, and its correlation.

    Parameters
    ----------
    observations
        The observations.
    residuals
        [Q, C, J, 2] of `ray_residuals`.
    step_s
        Time between two instants.

    Returns
    -------
    The ratio of observed and assumed variance, and the number of residuals that count as much as
    one independent one: errors of the network persist over time, and are common to the joints.
    """
    inlier = (residuals**2).sum(axis=-1) < INLIER**2
    values = np.where(inlier[..., None], residuals, 0)
    count = inlier.sum()
    unknowns = 3 * (inlier.sum(axis=1) >= MIN_VIEWS).sum()
    total = (values**2).sum()
    variance = total / max(2 * count - unknowns, 1)
    sums = values.sum(axis=2)
    of_joints = (sums**2).sum() / max(total, 1e-12)
    # Rows are sorted by person and instant, so that a key finds the same person later.
    span = int(observations.instants.max()) + 1
    keys = observations.people * 2 * span + observations.instants
    over_time = 1.0
    power = (values**2).sum() / max(count, 1)
    for lag in range(1, int(MAX_LAG_S / step_s) + 1):
        later = np.minimum(np.searchsorted(keys, keys + lag), len(keys) - 1)
        found = np.flatnonzero(keys[later] == keys + lag)
        both = inlier[found] & inlier[later[found]]
        if both.sum() < 100:
            continue
        correlation = (values[found] * values[later[found]]).sum() / both.sum() / max(power, 1e-12)
        if correlation < 0.05:
            break
        over_time += 2 * correlation
    return float(max(variance, 0.05)), float(max(of_joints, 1.0) * over_time)


def _residuals(
    observations: Observations, estimate: Estimate, weights: DataWeights, loss: Loss
) -> _Residuals:
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
    return _Residuals(
        values,
        use_ray * of_rays + use_distance * of_distances,
        np.stack([use_ray * ray_weights] * 2 + [use_distance * distance_weights], axis=-1),
        in_camera_mm,
        safe_mm,
    )


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


def _prior_loss(observations: Observations, estimate: Estimate, prior: Prior) -> float:
    turns, shifts_mm = prior_errors(estimate, prior)
    loss = ((turns / prior.rotation_std[:, None]) ** 2).sum()
    loss += ((shifts_mm / prior.position_std_mm[:, None]) ** 2).sum()
    return float(loss + ((estimate.log_scales / observations.person_scale_std) ** 2).sum())


class _System:
    """The normal equations at an estimate, without the points."""

    def __init__(
        self,
        observations: Observations,
        estimate: Estimate,
        prior: Prior,
        residuals: _Residuals,
    ) -> None:
        self._people, self._estimate = observations.people, estimate
        cameras, people = len(estimate.rotations), len(estimate.log_scales)
        self._cameras = cameras
        by_point, by_camera, by_scale = _jacobians(observations, estimate, residuals)
        weights, values = residuals.weights, residuals.values
        weighted = weights[..., None] * by_point
        self._points = (np.swapaxes(weighted, -1, -2) @ by_point).sum(axis=1)
        self._mixed = np.swapaxes(by_camera, -1, -2) @ weighted
        self._mixed_scale = np.einsum('qcj,qcji->qji', by_scale, weighted[..., 2, :])
        self._right_points = -(weighted * values[..., None]).sum(axis=(1, 3))
        size = 6 * cameras + people
        normal, right = np.zeros((size, size)), np.zeros(size)
        weighted = weights[..., None] * by_camera
        right[: 6 * cameras] = -(weighted * values[..., None]).sum(axis=(0, 2, 3)).ravel()
        cross = np.einsum('qcj,qcji->qci', by_scale, weighted[..., 2, :]).reshape(-1, 6 * cameras)
        scale_weights = weights[..., 2] * by_scale
        for c in range(cameras):
            own = weighted[:, c].reshape(-1, 6).T @ by_camera[:, c].reshape(-1, 6)
            normal[6 * c : 6 * c + 6, 6 * c : 6 * c + 6] = own
        in_cross = np.zeros((people, 6 * cameras))
        np.add.at(in_cross, self._people, cross)
        normal[6 * cameras :, : 6 * cameras] = in_cross
        normal[: 6 * cameras, 6 * cameras :] = in_cross.T
        diagonal = np.arange(6 * cameras, size)
        own_scale = np.bincount(
            self._people, (scale_weights * by_scale).sum(axis=(1, 2)), minlength=people
        )
        normal[diagonal, diagonal] = own_scale + observations.person_scale_std**-2.0
        right[6 * cameras :] = -np.bincount(
            self._people, (scale_weights * values[..., 2]).sum(axis=(1, 2)), minlength=people
        )
        right[6 * cameras :] -= estimate.log_scales / observations.person_scale_std**2
        self._normal, self._right = normal, right
        self._add_prior(prior)

    def _add_prior(self, prior: Prior) -> None:
        turns, shifts_mm = prior_errors(self._estimate, prior)
        for c, rotation in enumerate(self._estimate.rotations):
            of_rotation, of_position = prior.rotation_std[c] ** -2, prior.position_std_mm[c] ** -2
            at = 6 * c
            # A turn of the camera frame does not move the camera; a shift of it does.
            self._normal[at : at + 3, at : at + 3] += of_rotation * np.eye(3)
            self._right[at : at + 3] -= of_rotation * turns[c]
            self._normal[at + 3 : at + 6, at + 3 : at + 6] += of_position * np.eye(3)
            self._right[at + 3 : at + 6] += of_position * rotation @ shifts_mm[c]

    def _reduced(self, damping: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the equations of cameras and sizes, and the inverse matrices of the points."""
        points = self._points + 1e-10 * np.eye(3)
        diagonal = np.arange(3)
        points[..., diagonal, diagonal] *= 1 + damping
        inverse = np.linalg.inv(points)
        normal, right = self._normal.copy(), self._right.copy()
        at = np.arange(len(right))
        normal[at, at] *= 1 + damping
        size = 6 * self._cameras
        # [Q, J, 6 C, 3]
        mixed = np.moveaxis(self._mixed, 1, 2).reshape(*inverse.shape[:2], size, 3)
        eliminated = mixed @ inverse
        flat = np.moveaxis(mixed, 2, 3).reshape(-1, size)
        normal[:size, :size] -= np.moveaxis(eliminated, 2, 3).reshape(-1, size).T @ flat
        right[:size] -= np.tensordot(eliminated, self._right_points, ([0, 1, 3], [0, 1, 2]))
        of_scale = np.einsum('qji,qjik->qjk', self._mixed_scale, inverse)
        cross = np.zeros((len(right) - size, size))
        np.add.at(cross, self._people, np.einsum('qjk,qjik->qi', of_scale, mixed))
        normal[size:, :size] -= cross
        normal[:size, size:] -= cross.T
        own = (of_scale * self._mixed_scale).sum(axis=(1, 2))
        own_right = (of_scale * self._right_points).sum(axis=(1, 2))
        normal[at[size:], at[size:]] -= np.bincount(self._people, own, minlength=len(cross))
        right[size:] -= np.bincount(self._people, own_right, minlength=len(cross))
        return normal, right, inverse

    def step(self, damping: float) -> Estimate:
        """Return the estimate after a step."""
        normal, right, inverse = self._reduced(damping)
        change = _solve_scaled(normal, right)
        size = 6 * self._cameras
        of_cameras = change[:size].reshape(-1, 6)
        remaining = self._right_points - (self._mixed * of_cameras[:, None, :, None]).sum(
            axis=(1, 3)
        )
        remaining -= self._mixed_scale * change[size:][self._people][:, None, None]
        points_mm = self._estimate.points_mm + np.einsum('qjik,qjk->qji', inverse, remaining)
        turns = np.stack([cv2.Rodrigues(turn)[0] for turn in of_cameras[:, :3]])
        return Estimate(
            turns @ self._estimate.rotations,
            np.einsum('cij,cj->ci', turns, self._estimate.translations_mm) + of_cameras[:, 3:],
            points_mm,
            self._estimate.log_scales + change[size:],
        )

    def covariance(self) -> FloatArray:
        """Return the covariance of cameras and sizes; see `adjust`."""
        normal, _, _ = self._reduced(0.0)
        scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-12))
        return (
            scale[:, None]
            * np.linalg.pinv(normal * scale * scale[:, None], hermitian=True)
            * scale
        )


def _solve_scaled(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Solve equations whose unknowns have different units."""
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-12))
    scaled = normal * scale * scale[:, None]
    return scale * np.linalg.lstsq(scaled, scale * right, rcond=None)[0]


def _jacobians(
    observations: Observations, estimate: Estimate, residuals: _Residuals
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
