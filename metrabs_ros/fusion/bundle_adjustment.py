"""
Bundle adjustment of camera poses, joints and sizes of people.

The steps are those of Levenberg and Marquardt for the residuals of `adjustment_residuals`, with
the equations of `normal_equations`.
"""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.adjustment_residuals import (
    DataWeights,
    Estimate,
    Loss,
    Observations,
    Prior,
    cauchy,
    geman_mcclure,
    prior_loss,
    residuals_of,
)
from metrabs_ros.fusion.normal_equations import NormalEquations

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
    residuals = residuals_of(observations, estimate, weights, loss)
    current = residuals.losses.sum() + prior_loss(observations, estimate, prior)
    system = NormalEquations(observations, estimate, prior, residuals)
    for _ in range(MAX_STEPS):
        candidate = system.step(damping)
        new_residuals = residuals_of(observations, candidate, weights, loss)
        new = new_residuals.losses.sum() + prior_loss(observations, candidate, prior)
        if new < current:
            gain = current - new
            estimate, residuals, current = candidate, new_residuals, new
            damping = max(damping / 10, MIN_DAMPING)
            system = NormalEquations(observations, estimate, prior, residuals)
            if gain < MIN_GAIN and damping <= SMALL_DAMPING:
                break
        else:
            damping *= 10
            if damping > MAX_DAMPING:
                break
    return estimate, system.covariance()


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
