"""
How joints move: where they are between the noise of single frames, and how fast they go.

A pose is split into where the trunk is and where the joints are from there, as a network errs far
more in the former.  Each of these points has a constant-velocity Kalman filter of its own, whose
measurement noise is the joint's standard deviation.  A camera sees across its line of sight far
better than along it, so that both have a variance of their own.  Filters that hold still joints
still are slow to follow moving ones; so the process noise depends on how surprising the last
measurements were, judged against the noise that each person's measurements turn out to have.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import Skeleton

FASTEST_MM_S = 12_000.0
"""No part of a body moves faster; a hand at a hard throw comes near."""
FIRST_SPEED_MM_S = 1_500.0
"""What is known of the velocity of somebody seen for the first time: a standard deviation."""

STILL, MOVING = 2e-4, 0.8
"""Tracking indices (Kalata, 1984) of joints at rest and of those that move most freely."""
STRAY = 1.5
"""By how many standard deviations of the noise the freely moving stray from a steady course."""
SURPRISING, ALARMING = 4.5, 7.5
"""From how many standard deviations on, and by how many wholly, a joint is taken to move."""
DRIFT_SHARE = 0.2
"""How much a frame counts among those before it, when one looks for a lasting deviation."""
RESTING_S = 0.25
"""How soon a joint that has moved is taken to rest again: longer than a wave's turning point."""
UNSEEN_RESTS_S = 0.05
"""How soon an unseen joint is taken to move with the trunk."""
NOISE_LEARNT_S = 1.0
NOISE_JOINTS = 10
NOISE_LIMITS = (0.3, 30.0)
"""The limits within which a person's noise may differ from the standard deviations stated."""
MEDIAN_OF_NORMAL = np.array([1.1774, 0.6745])[:, None]
MEAN_OF_NORMAL = np.array([1.2533, 0.7979])[:, None]
"""Of a normal distribution's absolute values, in a plane (across) and on a line (along)."""
FIRST_NOISE_OF_DISTANCE = 0.03
"""The trunk's noise along the line of sight, as long as nothing else is known."""
LEAST_STD_MM = 1.0
LEAST_STEP_S = 1e-4
LEAST_CALM = 1e-2
"""Lower bound of the factor by which the noise counts: variances must not become 0."""
UNKNOWN_VARIANCE = 1e12
LEAST_VARIANCE = 1e-12


@dataclasses.dataclass
class _State:
    """
    What is known of the points of T people: J joints as seen from the trunk, and the trunk.

    Places are [3, T, J + 1] and variances [2, T, J + 1], across and along the line of sight, as
    that makes the arithmetic of many people several times quicker.
    """

    position_mm: FloatArray
    velocity_mm_s: FloatArray
    position_variance: FloatArray
    covariance: FloatArray
    velocity_variance: FloatArray
    agility: FloatArray
    """[2, T, J + 1], from 0 (at rest) to 1 (moves freely)."""
    drift: FloatArray
    """[3, T, J + 1], the mean of the last deviations, in standard deviations."""
    noise_mm: FloatArray
    """[2, T, J + 1], the standard deviation of the last measurement, as far as it was learnt."""
    noise_ratio: FloatArray
    """[2, T, 2], the noise found over the noise stated, of the joints and of the trunk."""
    measured_mm: FloatArray
    measured_before_mm: FloatArray
    measured_ago_s: FloatArray
    """[T], how long ago the last measurement was."""
    measured_apart_s: FloatArray
    """[T], how much earlier the one before it was; 0 where there was none."""
    measurements: FloatArray
    """[T], how many there were."""
    followed_ago_s: FloatArray
    """[T, J + 1], how long ago the last one was that was not held back."""

    def select(self, which: NDArray[Any]) -> _State:
        """Return the state of the people at an index array or mask."""
        return _State(
            **{
                name: array[:, which] if array.ndim == 3 else array[which]
                for name, array in vars(self).items()
            }
        )

    def joined(self, other: _State) -> _State:
        """Return the state of these people and others."""
        return _State(
            **{
                name: np.concatenate(
                    [array, getattr(other, name)], axis=1 if array.ndim == 3 else 0
                )
                for name, array in vars(self).items()
            }
        )


class JointMotion:
    """
    Where the joints of T people are and how fast they move.

    Parameters
    ----------
    skeleton
        With J joints.
    smoothing
        From 0 to 1, how calm the joints are; at 0.5 the noise counts for what it is.
    """

    def __init__(self, skeleton: Skeleton, smoothing: float) -> None:
        self.smoothing = smoothing
        trunk = [skeleton.part(p, s) for p in ('hip', 'shoulder') for s in ('left', 'right')]
        joints = np.concatenate(trunk)
        self._trunk = joints if len(joints) else np.arange(len(skeleton))
        empty = np.zeros((0, len(skeleton), 3))
        self._state = self._newcomers(empty, np.zeros(empty.shape[:2]), np.zeros(3))
        self.usual_step_s = 0.0
        """How much time passes from one prediction to the next; 0 as long as none was made."""

    @property
    def _calm(self) -> float:
        # Where poses stay as they came, velocities still need it.
        return max(2 * self.smoothing, LEAST_CALM) if self.smoothing else 1.0

    @property
    def positions_mm(self) -> FloatArray:
        """Where the joints are, [T, J, 3]."""
        return _whole(self._state.position_mm)

    @property
    def velocities_mm_s(self) -> FloatArray:
        """How fast the joints move, [T, J, 3]."""
        return _whole(self._state.velocity_mm_s)

    @property
    def centres_mm(self) -> FloatArray:
        """
        Where the middle of each person's joints should be, [T, 3].

        Calm joints stay behind somebody who turns, and a single measurement may be a false
        alarm's: it is half way between where the two say.
        """
        state = self._state
        points_mm = state.measured_mm + state.position_mm
        middle_mm: FloatArray = points_mm[..., :-1].mean(axis=-1) + points_mm[..., -1]
        return (middle_mm + state.velocity_mm_s[..., -1] * state.measured_ago_s).T / 2

    @property
    def carried_mm(self) -> FloatArray:
        """Where the joints were last measured, carried on by their velocities, [T, J, 3]."""
        state = self._state
        moved_mm = state.velocity_mm_s * state.measured_ago_s[:, None]
        return _whole(state.measured_mm + moved_mm)

    @property
    def noise_mm(self) -> FloatArray:
        """The noise of each person's trunk, [2, T], across and along the line of sight."""
        return self._state.noise_mm[..., -1]

    def add(self, measured_mm: FloatArray, std_mm: FloatArray, viewpoint_mm: FloatArray) -> None:
        """
        Take up people who were seen for the first time.

        Parameters
        ----------
        measured_mm
            [N, J, 3], where their joints were measured.
        std_mm
            [N, J], how far off that may be.
        viewpoint_mm
            [3], where the camera is.
        """
        self._state = self._state.joined(self._newcomers(measured_mm, std_mm, viewpoint_mm))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        self._state = self._state.select(which)

    def predict(self, step_s: float) -> None:
        """Let time pass."""
        if step_s < LEAST_STEP_S:
            return
        self.usual_step_s += (0.1 if self.usual_step_s else 1.0) * (step_s - self.usual_step_s)
        state = self._state
        state.position_mm += step_s * state.velocity_mm_s
        # Noise per frame rather than per second keeps joints at rest as calm at any frame rate.
        frames = step_s / max(self.usual_step_s, LEAST_STEP_S)
        push_mm = (STILL + state.agility * (MOVING - STILL)) * state.noise_mm * frames**2
        stray_mm = (STRAY * frames) * state.agility * state.noise_mm
        push = push_mm * push_mm
        state.position_variance += (
            2 * step_s * state.covariance
            + step_s**2 * state.velocity_variance
            + push / 4
            + stray_mm * stray_mm
        )
        state.covariance += step_s * state.velocity_variance + push / (2 * step_s)
        state.velocity_variance += push / step_s**2
        state.agility *= np.exp(-step_s / RESTING_S)
        state.measured_ago_s += step_s
        state.followed_ago_s += step_s

    def correct(
        self,
        measured_mm: FloatArray,
        std_mm: FloatArray,
        seen: BoolArray,
        viewpoint_mm: FloatArray,
    ) -> None:
        """
        Take in what was measured of those people who were seen.

        Parameters
        ----------
        measured_mm
            [T, J, 3]; of those not seen anything that is finite.
        std_mm
            [T, J], how far off it may be.
        seen
            [T].
        viewpoint_mm
            [3], where the camera is.
        """
        state = self._state
        measured = self._points(measured_mm)
        sight = state.position_mm - viewpoint_mm[:, None, None]
        sight[..., :-1] += state.position_mm[..., -1:]
        sight /= np.maximum(np.sqrt(_dot(sight, sight)), 1e-9)
        point_std_mm = self._points_std(std_mm)
        self._learn_noise(measured, point_std_mm, seen, sight)
        self._remember(measured, point_std_mm, seen)
        off = measured - state.position_mm
        along_mm = _dot(off, sight)
        apart_mm2 = _dot(off, off)
        limit_mm = FASTEST_MM_S * state.followed_ago_s + 2 * state.noise_mm[0]
        follow = (apart_mm2 <= limit_mm * limit_mm) & seen[:, None]
        self._watch(off, along_mm, apart_mm2, sight, follow)
        self._find_again(apart_mm2, follow)
        allowed_mm = self._calm * state.noise_mm
        share = follow / (state.position_variance + allowed_mm * allowed_mm)
        gain = share * state.position_variance
        velocity_gain = share * state.covariance
        state.position_mm += gain[0] * off + ((gain[1] - gain[0]) * along_mm) * sight
        state.velocity_mm_s += (
            velocity_gain[0] * off + ((velocity_gain[1] - velocity_gain[0]) * along_mm) * sight
        )
        state.velocity_variance -= velocity_gain * state.covariance
        state.covariance *= 1 - gain
        state.position_variance *= 1 - gain
        # Rounding must not make the covariance matrices indefinite.
        least = state.covariance**2 / np.maximum(state.position_variance, LEAST_VARIANCE)
        np.maximum(state.velocity_variance, least, out=state.velocity_variance)
        state.followed_ago_s *= ~follow
        np.clip(state.velocity_mm_s, -FASTEST_MM_S, FASTEST_MM_S, out=state.velocity_mm_s)
        if not follow.all():
            self._calm_the_unseen(follow)

    def _learn_noise(
        self, measured: FloatArray, std_mm: FloatArray, seen: BoolArray, sight: FloatArray
    ) -> None:
        """Compare how measurements scatter about a straight line with what they claim."""
        state = self._state
        # A third point's distance from the line through two, in units of one point's noise.
        ratio = state.measured_ago_s / np.maximum(state.measured_apart_s, LEAST_STEP_S)
        usable = seen & (state.measurements > 1) & (ratio > 0.3) & (ratio < 3)
        units = np.sqrt(1 + (1 + ratio) ** 2 + ratio**2)
        # Some of the joints say as much as all.
        every = -max(1, (std_mm.shape[1] - 1) // NOISE_JOINTS)
        last = state.measured_mm[..., ::every]
        before = state.measured_before_mm[..., ::every]
        bend = measured[..., ::every] - last - ratio[:, None] * (last - before)
        along_mm = _dot(bend, sight[..., ::every])
        across_mm = np.sqrt(np.maximum(_dot(bend, bend) - along_mm * along_mm, 0))
        bends = np.stack([across_mm, np.abs(along_mm)]) / (std_mm[:, ::every] * units[:, None])
        middle = (bends.shape[-1] - 1) // 2
        # The middle one of the joints, as a waving hand is no noise; there is but one trunk.
        found = np.empty_like(state.noise_ratio)
        found[..., 0] = np.partition(bends[..., 1:], middle, axis=-1)[..., middle]
        found[..., 0] /= MEDIAN_OF_NORMAL
        found[..., 1] = bends[..., 0] / MEAN_OF_NORMAL
        share = 1 - np.exp(-state.measured_ago_s / NOISE_LEARNT_S)
        share = (usable * np.maximum(share, 1 / (state.measurements + 1)))[:, None]
        so_far = state.noise_ratio
        learnt = so_far + share * (np.minimum(found, 3 * so_far) - so_far)
        state.noise_ratio = np.clip(learnt, *NOISE_LIMITS)

    def _remember(self, measured: FloatArray, std_mm: FloatArray, seen: BoolArray) -> None:
        """Keep the last two measurements."""
        state = self._state
        now = seen[:, None]
        noise_mm = state.noise_ratio[..., :1] * std_mm
        noise_mm[..., -1] = state.noise_ratio[..., 1] * std_mm[:, -1]
        state.noise_mm = np.where(now, noise_mm, state.noise_mm)
        state.measured_before_mm = np.where(now, state.measured_mm, state.measured_before_mm)
        state.measured_mm = np.where(now, measured, state.measured_mm)
        state.measured_apart_s = np.where(seen, state.measured_ago_s, state.measured_apart_s)
        state.measured_ago_s[seen] = 0
        state.measurements += seen

    def _watch(
        self,
        off: FloatArray,
        along_mm: FloatArray,
        apart_mm2: FloatArray,
        sight: FloatArray,
        follow: BoolArray,
    ) -> None:
        """Find out which joints move in a way that noise does not explain."""
        state = self._state
        limit_mm = self._calm * state.noise_mm
        sudden = np.empty_like(limit_mm)
        sudden[0] = np.sqrt(np.maximum(apart_mm2 - along_mm * along_mm, 0))
        sudden[1] = np.abs(along_mm)
        sudden /= limit_mm
        relative = off / limit_mm[0] + (along_mm * (1 / limit_mm[1] - 1 / limit_mm[0])) * sight
        state.drift += (DRIFT_SHARE * follow) * (relative - state.drift)
        lasting = np.empty_like(limit_mm)
        lasting[1] = _dot(state.drift, sight)
        lasting[0] = np.maximum(_dot(state.drift, state.drift) - lasting[1] * lasting[1], 0)
        lasting[0] = np.sqrt(lasting[0])
        # Noise alone would leave so much in a running mean.
        lasting *= np.sqrt((2 - DRIFT_SHARE) / DRIFT_SHARE)
        surprise = np.maximum(np.abs(lasting), sudden)
        surprise -= SURPRISING
        if surprise.max(initial=0) <= 0:
            return
        agility = np.clip(surprise / (ALARMING - SURPRISING), 0, 1)
        agility = np.where(follow, np.maximum(state.agility, agility), state.agility)
        stray = (agility**2 - state.agility**2) * STRAY**2
        stray += np.maximum(sudden - SURPRISING, 0) ** 2
        state.position_variance += follow * stray * limit_mm**2
        state.agility = agility

    def _find_again(self, apart_mm2: FloatArray, follow: BoolArray) -> None:
        """Put joints that were held back, and are elsewhere after all, there without a run-up."""
        state = self._state
        again = follow & (state.followed_ago_s > state.measured_apart_s[:, None] + LEAST_STEP_S)
        if again.any():
            again &= apart_mm2 > SURPRISING**2 * _dot(state.noise_mm, state.noise_mm)
            state.position_variance[:, again] = UNKNOWN_VARIANCE
            state.covariance[:, again] = 0

    def _calm_the_unseen(self, follow: BoolArray) -> None:
        """Let joints that were not seen move on with the trunk."""
        state = self._state
        resting = np.where(follow, 1.0, np.exp(-state.followed_ago_s / UNSEEN_RESTS_S))
        state.velocity_mm_s[..., :-1] *= resting[:, :-1]

    def _points(self, poses_mm: FloatArray) -> FloatArray:
        """Return the points [3, T, J + 1] of poses [T, J, 3]."""
        people, joints, _ = poses_mm.shape
        points = np.empty((3, people, joints + 1))
        points[..., :-1] = poses_mm.transpose(2, 0, 1)
        points[..., -1] = points[..., self._trunk].mean(axis=-1)
        points[..., :-1] -= points[..., -1:]
        return points

    def _points_std(self, std_mm: FloatArray) -> FloatArray:
        """Return how far off the points may be, [T, J + 1]."""
        of_trunk = std_mm[:, self._trunk].mean(axis=1, keepdims=True)
        return np.maximum(np.concatenate([std_mm, of_trunk], axis=1), LEAST_STD_MM)

    def _newcomers(
        self, measured_mm: FloatArray, std_mm: FloatArray, viewpoint_mm: FloatArray
    ) -> _State:
        points, std_mm = self._points(measured_mm), self._points_std(std_mm)
        people = len(std_mm)
        noise_ratio = np.ones((2, people, 2))
        away_mm = points[..., -1] - viewpoint_mm[:, None]
        far_mm = FIRST_NOISE_OF_DISTANCE * np.linalg.norm(away_mm, axis=0)
        noise_ratio[1, :, 1] = np.clip(far_mm / std_mm[:, -1], 1, NOISE_LIMITS[1])
        noise_mm = np.stack([std_mm, std_mm])
        noise_mm[1, :, -1] *= noise_ratio[1, :, 1]
        return _State(
            position_mm=points.copy(),
            velocity_mm_s=np.zeros_like(points),
            position_variance=noise_mm**2,
            covariance=np.zeros_like(noise_mm),
            velocity_variance=np.full_like(noise_mm, FIRST_SPEED_MM_S**2),
            agility=np.zeros_like(noise_mm),
            drift=np.zeros_like(points),
            noise_mm=noise_mm,
            noise_ratio=noise_ratio,
            measured_mm=points,
            measured_before_mm=points,
            measured_ago_s=np.zeros(people),
            measured_apart_s=np.zeros(people),
            measurements=np.ones(people),
            followed_ago_s=np.zeros_like(std_mm),
        )


def _whole(points: FloatArray) -> FloatArray:
    """Return poses [T, J, 3] of points [3, T, J + 1]."""
    return (points[..., :-1] + points[..., -1:]).transpose(1, 2, 0)


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [K, ...]."""
    product: FloatArray = np.einsum('ktj,ktj->tj', one, other)
    return product
