"""
Person scale: the ratio between the size of a person and the size that the network assumes.

One image determines the apparent size of a person, not the true one.  An estimated pose is
therefore known up to a factor, by which it is scaled about the camera centre.  Each cue observes
this factor: the ground plane, a depth image, or a known stature.

The logarithm of the factor is the sum of two parts.  The person's part is constant; its posterior
is kept on a grid, because observations can be ambiguous: a foot is on the floor or above it.  The
pose's part is the error of the network in the present posture, which decays within about a second.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

POPULATION_STD = 0.06
"""
Standard deviation of the log stature of adults.

1.5 % more than that of the statures, about 0.055 (NCD-RisC, eLife 2016), because the proportions
differ, too.
"""
WIDE_STD, WIDE_SHARE = 0.2, 0.2
"""Standard deviation and share of the second component of the prior, for children."""
POSE_STD, POSE_TIME_S = 0.035, 0.5
"""Standard deviation and correlation time of the pose's part of the log factor."""
UNSCALED_STD = float(np.hypot(POPULATION_STD, POSE_STD))
"""Relative standard deviation of the distance without any cue of the person scale."""
CORRELATION_S = 0.25
"""Observations of the person's part within this time count as one: the poses are similar."""
NOISE_TIME_S = 0.05
"""Observations of the pose's part within this time count as one: their noise is correlated."""
MIN_WEIGHT = 1e-3
"""Minimum weight of an observation."""
MEMORY_S = 60.0
"""Time constant after which the person's part is forgotten."""
FORGOTTEN_S = 3 * MEMORY_S
"""Time after which a cue that is not observed any more has no influence."""
MIN_FACTOR, MAX_FACTOR = 0.45, 1.5
"""Range of factors: people of 0.8 to 2.5 m."""
GRID_SIZE = 150
MAX_EVIDENCE = 60.0
"""Maximum difference of log posterior densities.  It bounds the time in which a decision is
corrected: a foot on a step for a minute is found to have been above the floor after 5 s."""
MIN_PERSON_STD = 0.01
"""Lower bound of the standard deviation of the person's part: errors of the height and tilt of the
floor, or of a depth camera, do not decrease with the number of observations."""
OUTLIER_PROBABILITY = 0.004
"""Probability that an observation does not constrain the factor."""
STATURE_TIME_S = 5.0
"""Time constant of the running mean of the implied statures."""

LOG_FACTORS: FloatArray = np.linspace(np.log(MIN_FACTOR), np.log(MAX_FACTOR), GRID_SIZE)
"""[G], grid of the posterior."""


class Cue(enum.IntFlag):
    """Cues of the person scale; the values are those of `Skeleton.scale_source`."""

    GROUND_PLANE = 1
    DEPTH_IMAGE = 2
    STATURE = 4


@dataclasses.dataclass(frozen=True)
class ScaleObservations:
    """
    K observations of one cue for the factors of each of T people.

    Parameters
    ----------
    cue
        The cue.
    log_factor
        [T, K], logarithms of the observed factors; NaN for no observation.
    std
        [T, K], their standard deviations.
    probability
        [T, K], that the factor is observed.  Otherwise the observation is an upper bound.
    mean_excess
        Mean difference between an upper bound and the log factor; infinite if the observation
        then says nothing.
    """

    cue: Cue
    log_factor: FloatArray
    std: FloatArray
    probability: FloatArray
    mean_excess: float = np.inf


class ScaleEstimates(NamedTuple):
    """
    Estimated scales of N people.

    Parameters
    ----------
    factors
        [N]; 1 for people without observations.
    relative_std
        [N], standard deviations of the log factors.
    statures_mm
        [N], estimated statures; NaN if unknown.
    cues
        [N], cues that have been observed, as sums of `Cue` values.
    """

    factors: FloatArray
    relative_std: FloatArray
    statures_mm: FloatArray
    cues: NDArray[np.uint8]

    @classmethod
    def unknown(cls, count: int) -> ScaleEstimates:
        """Return the estimates for people without observations."""
        return cls(
            np.ones(count),
            np.full(count, UNSCALED_STD),
            np.full(count, np.nan),
            np.zeros(count, np.uint8),
        )


def _log_prior() -> FloatArray:
    """Return the logarithm of the prior density of the log factors, [G]."""
    density = (1 - WIDE_SHARE) * _normal(LOG_FACTORS, POPULATION_STD)
    density += WIDE_SHARE * _normal(LOG_FACTORS, WIDE_STD)
    log_density: FloatArray = np.log(density)
    return log_density


def _normal(difference: FloatArray, std: FloatArray | float) -> FloatArray:
    """Return the density of a normal distribution with mean 0."""
    density: FloatArray = np.exp(-0.5 * (difference / std) ** 2) / (np.sqrt(2 * np.pi) * std)
    return density


LOG_PRIOR = _log_prior()


class PersonScales:
    """Scale factors of T tracked people."""

    def __init__(self) -> None:
        self._log_posterior: FloatArray = np.zeros((0, GRID_SIZE))
        self._person: FloatArray = np.zeros((2, 0))
        self._pose: FloatArray = np.zeros((2, 0))
        self._unobserved_s: FloatArray = np.zeros((len(Cue), 0))
        self._stature: FloatArray = np.zeros((2, 0))

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self._log_posterior)

    @property
    def factors(self) -> FloatArray:
        """Factors, [T]; 1 for people without observations."""
        log_factor = np.where(self.cues > 0, self._person[0] + self._pose[0], 0.0)
        return np.exp(log_factor)

    @property
    def relative_std(self) -> FloatArray:
        """Standard deviations of the log factors, [T]."""
        std: FloatArray = np.sqrt(self._person[1] + self._pose[1])
        return std

    @property
    def cues(self) -> NDArray[np.uint8]:
        """Cues that have been observed for each person, [T], as a sum of `Cue` values."""
        is_observed = (self._unobserved_s < FORGOTTEN_S).astype(np.uint8)
        cues: NDArray[np.uint8] = np.array(list(Cue), np.uint8) @ is_observed
        return cues

    @property
    def statures_mm(self) -> FloatArray:
        """Estimated statures, [T]; NaN if the body was never observed."""
        is_known = self._stature[1] > 0
        return np.where(is_known, self._stature[0] * np.exp(self._person[0]), np.nan)

    @property
    def implied_statures_mm(self) -> FloatArray:
        """Running means of the statures that the network's poses imply, [T]; NaN if unknown."""
        return np.where(self._stature[1] > 0, self._stature[0], np.nan)

    @property
    def estimates(self) -> ScaleEstimates:
        """The estimated scales of the T people."""
        return ScaleEstimates(self.factors, self.relative_std, self.statures_mm, self.cues)

    def add(self, count: int) -> None:
        """Append people without observations."""
        unknown = [[0.0] * count, [POPULATION_STD**2] * count]
        posture = [[0.0] * count, [POSE_STD**2] * count]
        log_prior = np.repeat(LOG_PRIOR[None], count, axis=0)
        self._log_posterior = np.concatenate([self._log_posterior, log_prior])
        self._person = np.concatenate([self._person, np.array(unknown).reshape(2, -1)], axis=1)
        self._pose = np.concatenate([self._pose, np.array(posture).reshape(2, -1)], axis=1)
        self._unobserved_s = np.pad(
            self._unobserved_s, ((0, 0), (0, count)), constant_values=np.inf
        )
        self._stature = np.pad(self._stature, ((0, 0), (0, count)))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        self._log_posterior = self._log_posterior[which]
        self._person, self._pose = self._person[:, which], self._pose[:, which]
        self._unobserved_s = self._unobserved_s[:, which]
        self._stature = self._stature[:, which]

    def merge(self, lost: NDArray[np.intp], new: NDArray[np.intp]) -> None:
        """Add what is known of lost people [K] to new tracks [K] of the same people."""
        self._log_posterior[new] += self._log_posterior[lost] - LOG_PRIOR
        self._unobserved_s[:, new] = np.minimum(
            self._unobserved_s[:, new], self._unobserved_s[:, lost]
        )
        for i, j in zip(lost.tolist(), new.tolist()):
            counts = self._stature[1, [i, j]]
            if counts.sum() > 0:
                self._stature[0, j] = self._stature[0, [i, j]] @ counts / counts.sum()
                self._stature[1, j] = counts.sum()
        self._summarise()

    def update_statures(
        self, implied_mm: FloatArray, is_complete: BoolArray, step_s: float
    ) -> None:
        """
        Update the running means of the implied statures.

        Parameters
        ----------
        implied_mm
            [T], statures that the poses imply, before scaling.
        is_complete
            [T], whether the whole body is visible, so that the stature is to be used.
        step_s
            Time since the last update.
        """
        usable = is_complete & np.isfinite(implied_mm)
        mean_mm, counts = self._stature
        gain = np.maximum(1 - np.exp(-step_s / STATURE_TIME_S), 1 / (counts + 1)) * usable
        self._stature[0] += gain * (np.where(usable, implied_mm, mean_mm) - mean_mm)
        self._stature[1] += usable

    def update(self, observations: Sequence[ScaleObservations], step_s: float) -> None:
        """
        Update the factors with the observations of one frame.

        Parameters
        ----------
        observations
            At most one of each cue, for all T people.
        step_s
            Time since the last update.
        """
        observations = [own for own in observations if np.isfinite(own.log_factor).any()]
        if not observations and not self.cues.any():
            return
        step_s = max(step_s, 0.0)
        self._unobserved_s += step_s
        self._log_posterior = LOG_PRIOR + np.exp(-step_s / MEMORY_S) * (
            self._log_posterior - LOG_PRIOR
        )
        decay = np.exp(-step_s / POSE_TIME_S)
        self._pose[0] *= decay
        self._pose[1] += (1 - decay**2) * (POSE_STD**2 - self._pose[1])
        elapsed_s = self._unobserved_s.copy()
        for own in observations:
            # The first observation counts fully, and the following ones by the elapsed time.
            weight = np.minimum(elapsed_s[_row(own.cue)] / CORRELATION_S, 1.0)
            self._log_posterior += weight[:, None] * _log_likelihood(own)
            is_observed = np.isfinite(own.log_factor).any(axis=1)
            self._unobserved_s[_row(own.cue), is_observed] = 0
        highest = self._log_posterior.max(axis=1, keepdims=True)
        self._log_posterior = np.maximum(self._log_posterior, highest - MAX_EVIDENCE)
        self._log_posterior[self.cues == 0] = LOG_PRIOR
        self._summarise()
        for own in observations:
            weight = np.minimum(elapsed_s[_row(own.cue)] / NOISE_TIME_S, 1.0)
            for k in range(own.log_factor.shape[1]):
                self._correct_pose(own, k, weight)

    def _summarise(self) -> None:
        """Compute the mean and the variance of the person's part from its posterior."""
        posterior = np.exp(self._log_posterior - self._log_posterior.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        mean = posterior @ LOG_FACTORS
        variance = posterior @ LOG_FACTORS**2 - mean**2
        has_cue = self.cues > 0
        self._person[0] = np.where(has_cue, mean, 0)
        self._person[1] = np.where(
            has_cue, np.maximum(variance, MIN_PERSON_STD**2), POPULATION_STD**2
        )

    def _correct_pose(self, own: ScaleObservations, k: int, weight: FloatArray) -> None:
        """
        Correct the pose's part with the k-th observation of a cue: a Kalman filter.

        Parameters
        ----------
        own
            The observations.
        k
            Column of the observations.
        weight
            [T], from 0 to 1, share of an independent observation.
        """
        is_valid = np.isfinite(own.log_factor[:, k])
        difference = np.where(is_valid, own.log_factor[:, k], 0) - self._person[0]
        noise = np.where(is_valid, own.std[:, k], 1) ** 2
        # The probability does not depend on the pose's part, which would follow a raised foot.
        spread = np.sqrt(self._person[1] + POSE_STD**2 + noise)
        inlier = own.probability[:, k] * _normal(difference, spread)
        other = (1 - own.probability[:, k]) * _excess_density(difference, own.mean_excess)
        responsibility = np.where(is_valid, inlier / (inlier + other + OUTLIER_PROBABILITY), 0)
        variance = self._pose[1] + self._person[1] + noise / np.maximum(weight, MIN_WEIGHT)
        gain = responsibility * self._pose[1] / variance
        self._pose[0] += gain * (difference - self._pose[0])
        self._pose[1] *= 1 - gain


def _row(cue: Cue) -> int:
    return list(Cue).index(cue)


def _log_likelihood(own: ScaleObservations) -> FloatArray:
    """Return the log likelihood of the person's log factors, [T, G]; the mean over K."""
    is_valid = np.isfinite(own.log_factor)
    log_factor = np.where(is_valid, own.log_factor, 0)[..., None]
    std = np.sqrt(np.where(is_valid, own.std, 1) ** 2 + POSE_STD**2)[..., None]
    probability = np.where(is_valid, own.probability, 0)[..., None]
    difference = log_factor - LOG_FACTORS
    density = probability * _normal(difference, std)
    density += (1 - probability) * _excess_density(difference, own.mean_excess)
    log_density = np.log(density + OUTLIER_PROBABILITY) * is_valid[..., None]
    mean: FloatArray = log_density.sum(axis=1) / np.maximum(is_valid.sum(axis=1), 1)[:, None]
    return mean


def _excess_density(excess: FloatArray, mean_excess: float) -> FloatArray:
    """Return the exponential density of positive values; 0 if the mean is infinite."""
    if not np.isfinite(mean_excess):
        return np.zeros_like(excess)
    density: FloatArray = np.where(excess > 0, np.exp(-np.maximum(excess, 0) / mean_excess), 0)
    return density / mean_excess
