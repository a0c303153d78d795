"""
Kalman filters for the joints of tracked people.

A pose is split into the position of the trunk and the positions of the joints relative to it,
because the error of a network is much larger in the former.  Each of these points has a
constant-velocity Kalman filter.  Its measurement noise is the stated standard deviation of the
joint, scaled by a ratio that is estimated for each track.  The noise across the line of sight and
the noise along it differ, so that each point has two covariance matrices.

A filter that smooths a resting joint strongly is slow to follow a moving one.  The process noise
therefore depends on the mobility of the joint, which normalised innovations above a threshold
increase, and which decays over time.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import Skeleton

MAX_SPEED_MM_S = 12_000.0
"""Maximum speed of a joint: about that of a hand in a hard throw."""
INITIAL_SPEED_STD_MM_S = 1_500.0
"""Standard deviation of the velocity of a new track."""

RESTING_INDEX, MOVING_INDEX = 2e-4, 0.8
"""Tracking indices (Kalata, 1984) of joints at rest and of joints at full mobility."""
MOVING_STD = 1.5
"""Additional process noise of the position at full mobility, in measurement noise per frame."""
MIN_INNOVATION, MAX_INNOVATION = 4.5, 7.5
"""Normalised innovations at which the mobility of a joint starts to increase, and reaches 1."""
INNOVATION_GAIN = 0.2
"""Gain of the running mean of the innovations."""
MOBILITY_DECAY_S = 0.25
"""Time constant of the mobility; longer than the turning point of a waving hand."""
UNSEEN_DECAY_S = 0.05
"""Time constant of the relative velocities of joints without accepted measurements."""
NOISE_TIME_CONSTANT_S = 1.0
"""Time constant of the noise estimate."""
NOISE_JOINTS = 10
"""Approximate number of joints that the noise estimate uses; more are not more accurate."""
NOISE_RATIO_LIMITS = (0.3, 30.0)
"""Limits of the ratio of estimated noise to stated standard deviations."""
MEDIAN_OF_NORMAL = np.array([1.1774, 0.6745])[:, None]
MEAN_OF_NORMAL = np.array([1.2533, 0.7979])[:, None]
"""Median and mean of the norm of normal noise: in two dimensions (across), in one (along)."""
INITIAL_DEPTH_NOISE = 0.03
"""Initial noise of the trunk along the line of sight, as a fraction of the distance."""
MIN_STD_MM = 1.0
"""Lower bound of the stated standard deviations."""
MIN_STEP_S = 1e-4
"""Shorter prediction steps are skipped."""
MIN_NOISE_FACTOR = 1e-2
"""Lower bound of the factor by which `smoothing` scales the noise; variances must not become 0."""
UNKNOWN_VARIANCE = 1e12
"""Variance of a position that the next measurement replaces, in square millimetres."""
MIN_VARIANCE = 1e-12
"""Lower bound of variances in divisions, in square millimetres."""


@dataclasses.dataclass
class _State:
    """
    Filter states of T tracks, each with J joints relative to the trunk, and the trunk.

    The coordinates come first because that makes the arithmetic of many tracks several times
    faster.  Arrays of shape [2, ...] hold values across the line of sight and along it.

    Parameters
    ----------
    position_mm, velocity_mm_s
        [3, T, J + 1], world frame.
    position_variance, covariance, velocity_variance
        [2, T, J + 1], entries of the covariance matrices of position and velocity.
    mobility
        [2, T, J + 1], from 0 (at rest) to 1 (moves freely).
    mean_innovation
        [3, T, J + 1], running mean of the normalised innovations.
    noise_mm
        [2, T, J + 1], estimated standard deviations of the last measurement.
    noise_ratio
        [2, T, 2], ratio of estimated to stated noise, of the joints and of the trunk.
    measured_mm, previous_mm
        [3, T, J + 1], the last measurement and the one before.
    measured_ago_s
        [T], time since the last measurement.
    measured_step_s
        [T], time between the last two measurements; 0 if there was only one.
    measurements
        [T], number of measurements.
    accepted_ago_s
        [T, J + 1], time since the last measurement that was not rejected.
    """

    position_mm: FloatArray
    velocity_mm_s: FloatArray
    position_variance: FloatArray
    covariance: FloatArray
    velocity_variance: FloatArray
    mobility: FloatArray
    mean_innovation: FloatArray
    noise_mm: FloatArray
    noise_ratio: FloatArray
    measured_mm: FloatArray
    previous_mm: FloatArray
    measured_ago_s: FloatArray
    measured_step_s: FloatArray
    measurements: FloatArray
    accepted_ago_s: FloatArray

    def select(self, which: NDArray[Any]) -> _State:
        """Return the states of the tracks at an index array or mask."""
        return _State(
            **{
                name: array[:, which] if array.ndim == 3 else array[which]
                for name, array in vars(self).items()
            }
        )

    def concatenate(self, other: _State) -> _State:
        """Return the states of these tracks followed by those of others."""
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
    Kalman filters for the joints of T tracks.

    Parameters
    ----------
    skeleton
        Skeleton with J joints.
    smoothing
        From 0 to 1; scales the measurement noise, which counts unchanged at 0.5 (and at 0, where
        only the velocities are filtered).
    """

    def __init__(self, skeleton: Skeleton, smoothing: float) -> None:
        self.smoothing = smoothing
        trunk = [skeleton.part(p, s) for p in ('hip', 'shoulder') for s in ('left', 'right')]
        joints = np.concatenate(trunk)
        self._trunk = joints if len(joints) else np.arange(len(skeleton))
        empty = np.zeros((0, len(skeleton), 3))
        self._state = self._initial_state(empty, np.zeros(empty.shape[:2]), np.zeros(3))
        self.mean_step_s = 0.0
        """Running mean of the time between predictions; 0 before the first."""

    @property
    def _noise_factor(self) -> float:
        # Without smoothing only the velocities are used, and they need the unscaled noise.
        return max(2 * self.smoothing, MIN_NOISE_FACTOR) if self.smoothing else 1.0

    @property
    def positions_mm(self) -> FloatArray:
        """Filtered joint positions, [T, J, 3], world frame."""
        return _poses_from_points(self._state.position_mm)

    @property
    def velocities_mm_s(self) -> FloatArray:
        """Joint velocities, [T, J, 3], world frame."""
        return _poses_from_points(self._state.velocity_mm_s)

    @property
    def centres_mm(self) -> FloatArray:
        """
        Predicted means of the joints, [T, 3], world frame, for the association.

        The mean of the filtered and the extrapolated measured position: the former lags when a
        person turns, the latter may be a false detection.
        """
        state = self._state
        points_mm = state.measured_mm + state.position_mm
        middle_mm: FloatArray = points_mm[..., :-1].mean(axis=-1) + points_mm[..., -1]
        return (middle_mm + state.velocity_mm_s[..., -1] * state.measured_ago_s).T / 2

    @property
    def extrapolated_mm(self) -> FloatArray:
        """Last measured joint positions, extrapolated by the velocities, [T, J, 3]."""
        state = self._state
        moved_mm = state.velocity_mm_s * state.measured_ago_s[:, None]
        return _poses_from_points(state.measured_mm + moved_mm)

    @property
    def noise_mm(self) -> FloatArray:
        """Estimated noise of the trunks, [2, T], across the line of sight and along it."""
        return self._state.noise_mm[..., -1]

    def add(self, measured_mm: FloatArray, std_mm: FloatArray, viewpoint_mm: FloatArray) -> None:
        """
        Append tracks.

        Parameters
        ----------
        measured_mm
            [N, J, 3], joint positions, world frame.
        std_mm
            [N, J], their standard deviations.
        viewpoint_mm
            [3], position of the camera, world frame.
        """
        new = self._initial_state(measured_mm, std_mm, viewpoint_mm)
        self._state = self._state.concatenate(new)

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the tracks at an index array or mask, in its order."""
        self._state = self._state.select(which)

    def predict(self, step_s: float) -> None:
        """Predict the states after a time step, in seconds."""
        if step_s < MIN_STEP_S:
            return
        self.mean_step_s += (0.1 if self.mean_step_s else 1.0) * (step_s - self.mean_step_s)
        state = self._state
        state.position_mm += step_s * state.velocity_mm_s
        # Noise per frame instead of per second smooths joints equally at any frame rate.
        frames = step_s / max(self.mean_step_s, MIN_STEP_S)
        index = RESTING_INDEX + state.mobility * (MOVING_INDEX - RESTING_INDEX)
        push_mm = index * state.noise_mm * frames**2
        moving_mm = (MOVING_STD * frames) * state.mobility * state.noise_mm
        push = push_mm * push_mm
        state.position_variance += (
            2 * step_s * state.covariance
            + step_s**2 * state.velocity_variance
            + push / 4
            + moving_mm * moving_mm
        )
        state.covariance += step_s * state.velocity_variance + push / (2 * step_s)
        state.velocity_variance += push / step_s**2
        state.mobility *= np.exp(-step_s / MOBILITY_DECAY_S)
        state.measured_ago_s += step_s
        state.accepted_ago_s += step_s

    def correct(
        self,
        measured_mm: FloatArray,
        std_mm: FloatArray,
        seen: BoolArray,
        viewpoint_mm: FloatArray,
    ) -> None:
        """
        Correct the states of detected tracks with their measurements.

        Parameters
        ----------
        measured_mm
            [T, J, 3], joint positions, world frame; any finite values for undetected tracks.
        std_mm
            [T, J], their standard deviations.
        seen
            [T], which tracks were detected.
        viewpoint_mm
            [3], position of the camera, world frame.
        """
        state = self._state
        measured = self._points(measured_mm)
        sight = state.position_mm - viewpoint_mm[:, None, None]
        sight[..., :-1] += state.position_mm[..., -1:]
        sight /= np.maximum(np.sqrt(_dot(sight, sight)), 1e-9)
        point_std_mm = self._points_std(std_mm)
        self._estimate_noise(measured, point_std_mm, seen, sight)
        self._store_measurement(measured, point_std_mm, seen)
        innovation = measured - state.position_mm
        along_mm = _dot(innovation, sight)
        innovation_mm2 = _dot(innovation, innovation)
        limit_mm = MAX_SPEED_MM_S * state.accepted_ago_s + 2 * state.noise_mm[0]
        accepted = (innovation_mm2 <= limit_mm * limit_mm) & seen[:, None]
        self._update_mobility(innovation, along_mm, innovation_mm2, sight, accepted)
        self._reset_displaced(innovation_mm2, accepted)
        noise_mm = self._noise_factor * state.noise_mm
        weight = accepted / (state.position_variance + noise_mm * noise_mm)
        gain = weight * state.position_variance
        velocity_gain = weight * state.covariance
        state.position_mm += gain[0] * innovation + ((gain[1] - gain[0]) * along_mm) * sight
        state.velocity_mm_s += (
            velocity_gain[0] * innovation
            + ((velocity_gain[1] - velocity_gain[0]) * along_mm) * sight
        )
        state.velocity_variance -= velocity_gain * state.covariance
        state.covariance *= 1 - gain
        state.position_variance *= 1 - gain
        # Rounding must not make the covariance matrices indefinite.
        least = state.covariance**2 / np.maximum(state.position_variance, MIN_VARIANCE)
        np.maximum(state.velocity_variance, least, out=state.velocity_variance)
        state.accepted_ago_s *= ~accepted
        np.clip(state.velocity_mm_s, -MAX_SPEED_MM_S, MAX_SPEED_MM_S, out=state.velocity_mm_s)
        if not accepted.all():
            self._damp_unseen(accepted)

    def _estimate_noise(
        self, measured: FloatArray, std_mm: FloatArray, seen: BoolArray, sight: FloatArray
    ) -> None:
        """Update the noise ratio by the deviation of three measurements from a straight line."""
        state = self._state
        # Distance of the third point from the line through the other two, in noise of one point.
        ratio = state.measured_ago_s / np.maximum(state.measured_step_s, MIN_STEP_S)
        usable = seen & (state.measurements > 1) & (ratio > 0.3) & (ratio < 3)
        units = np.sqrt(1 + (1 + ratio) ** 2 + ratio**2)
        # The trunk, which is last, and a subset of the joints.
        stride = -max(1, (std_mm.shape[1] - 1) // NOISE_JOINTS)
        last = state.measured_mm[..., ::stride]
        previous = state.previous_mm[..., ::stride]
        bend = measured[..., ::stride] - last - ratio[:, None] * (last - previous)
        along_mm = _dot(bend, sight[..., ::stride])
        across_mm = np.sqrt(np.maximum(_dot(bend, bend) - along_mm * along_mm, 0))
        bends = np.stack([across_mm, np.abs(along_mm)]) / (std_mm[:, ::stride] * units[:, None])
        middle = (bends.shape[-1] - 1) // 2
        # The median over the joints is robust against the motion of single joints, e.g. a hand.
        estimate = np.empty_like(state.noise_ratio)
        estimate[..., 0] = np.partition(bends[..., 1:], middle, axis=-1)[..., middle]
        estimate[..., 0] /= MEDIAN_OF_NORMAL
        estimate[..., 1] = bends[..., 0] / MEAN_OF_NORMAL
        gain = 1 - np.exp(-state.measured_ago_s / NOISE_TIME_CONSTANT_S)
        gain = (usable * np.maximum(gain, 1 / (state.measurements + 1)))[:, None]
        current = state.noise_ratio
        updated = current + gain * (np.minimum(estimate, 3 * current) - current)
        state.noise_ratio = np.clip(updated, *NOISE_RATIO_LIMITS)

    def _store_measurement(
        self, measured: FloatArray, std_mm: FloatArray, seen: BoolArray
    ) -> None:
        """Store the measurements of detected tracks, and keep the ones before."""
        state = self._state
        now = seen[:, None]
        noise_mm = state.noise_ratio[..., :1] * std_mm
        noise_mm[..., -1] = state.noise_ratio[..., 1] * std_mm[:, -1]
        state.noise_mm = np.where(now, noise_mm, state.noise_mm)
        state.previous_mm = np.where(now, state.measured_mm, state.previous_mm)
        state.measured_mm = np.where(now, measured, state.measured_mm)
        state.measured_step_s = np.where(seen, state.measured_ago_s, state.measured_step_s)
        state.measured_ago_s[seen] = 0
        state.measurements += seen

    def _update_mobility(
        self,
        innovation: FloatArray,
        along_mm: FloatArray,
        innovation_mm2: FloatArray,
        sight: FloatArray,
        accepted: BoolArray,
    ) -> None:
        """Increase the mobility of points with innovations that noise does not explain."""
        state = self._state
        noise_mm = self._noise_factor * state.noise_mm
        sudden = np.empty_like(noise_mm)
        sudden[0] = np.sqrt(np.maximum(innovation_mm2 - along_mm * along_mm, 0))
        sudden[1] = np.abs(along_mm)
        sudden /= noise_mm
        normalised = (
            innovation / noise_mm[0] + (along_mm * (1 / noise_mm[1] - 1 / noise_mm[0])) * sight
        )
        state.mean_innovation += (INNOVATION_GAIN * accepted) * (
            normalised - state.mean_innovation
        )
        lasting = np.empty_like(noise_mm)
        lasting[1] = _dot(state.mean_innovation, sight)
        lasting[0] = _dot(state.mean_innovation, state.mean_innovation) - lasting[1] * lasting[1]
        lasting[0] = np.sqrt(np.maximum(lasting[0], 0))
        # In units of the standard deviation that noise alone causes in the running mean.
        lasting *= np.sqrt((2 - INNOVATION_GAIN) / INNOVATION_GAIN)
        excess = np.maximum(np.abs(lasting), sudden)
        excess -= MIN_INNOVATION
        if excess.max(initial=0) <= 0:
            return
        mobility = np.clip(excess / (MAX_INNOVATION - MIN_INNOVATION), 0, 1)
        mobility = np.where(accepted, np.maximum(state.mobility, mobility), state.mobility)
        variance = (mobility**2 - state.mobility**2) * MOVING_STD**2
        variance += np.maximum(sudden - MIN_INNOVATION, 0) ** 2
        state.position_variance += accepted * variance * noise_mm**2
        state.mobility = mobility

    def _reset_displaced(self, innovation_mm2: FloatArray, accepted: BoolArray) -> None:
        """Let a measurement far away replace the state if the one before was rejected."""
        state = self._state
        displaced = accepted & (state.accepted_ago_s > state.measured_step_s[:, None] + MIN_STEP_S)
        if displaced.any():
            noise_mm2 = _dot(state.noise_mm, state.noise_mm)
            displaced &= innovation_mm2 > MIN_INNOVATION**2 * noise_mm2
            state.position_variance[:, displaced] = UNKNOWN_VARIANCE
            state.covariance[:, displaced] = 0

    def _damp_unseen(self, accepted: BoolArray) -> None:
        """Damp the relative velocities of unmeasured joints, which then move with the trunk."""
        state = self._state
        factor = np.where(accepted, 1.0, np.exp(-state.accepted_ago_s / UNSEEN_DECAY_S))
        state.velocity_mm_s[..., :-1] *= factor[:, :-1]

    def _points(self, poses_mm: FloatArray) -> FloatArray:
        """Return the points [3, T, J + 1] of poses [T, J, 3]."""
        people, joints, _ = poses_mm.shape
        points = np.empty((3, people, joints + 1))
        points[..., :-1] = poses_mm.transpose(2, 0, 1)
        points[..., -1] = points[..., self._trunk].mean(axis=-1)
        points[..., :-1] -= points[..., -1:]
        return points

    def _points_std(self, std_mm: FloatArray) -> FloatArray:
        """Return the standard deviations of the points, [T, J + 1]."""
        trunk_mm = std_mm[:, self._trunk].mean(axis=1, keepdims=True)
        return np.maximum(np.concatenate([std_mm, trunk_mm], axis=1), MIN_STD_MM)

    def _initial_state(
        self, measured_mm: FloatArray, std_mm: FloatArray, viewpoint_mm: FloatArray
    ) -> _State:
        points, std_mm = self._points(measured_mm), self._points_std(std_mm)
        people = len(std_mm)
        noise_ratio = np.ones((2, people, 2))
        distance_mm = np.linalg.norm(points[..., -1] - viewpoint_mm[:, None], axis=0)
        depth_noise_mm = INITIAL_DEPTH_NOISE * distance_mm
        noise_ratio[1, :, 1] = np.clip(depth_noise_mm / std_mm[:, -1], 1, NOISE_RATIO_LIMITS[1])
        noise_mm = np.stack([std_mm, std_mm])
        noise_mm[1, :, -1] *= noise_ratio[1, :, 1]
        return _State(
            position_mm=points.copy(),
            velocity_mm_s=np.zeros_like(points),
            position_variance=noise_mm**2,
            covariance=np.zeros_like(noise_mm),
            velocity_variance=np.full_like(noise_mm, INITIAL_SPEED_STD_MM_S**2),
            mobility=np.zeros_like(noise_mm),
            mean_innovation=np.zeros_like(points),
            noise_mm=noise_mm,
            noise_ratio=noise_ratio,
            measured_mm=points,
            previous_mm=points,
            measured_ago_s=np.zeros(people),
            measured_step_s=np.zeros(people),
            measurements=np.ones(people),
            accepted_ago_s=np.zeros_like(std_mm),
        )


def _poses_from_points(points: FloatArray) -> FloatArray:
    """Return the poses [T, J, 3] of points [3, T, J + 1]."""
    return (points[..., :-1] + points[..., -1:]).transpose(1, 2, 0)


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [K, ...]."""
    product: FloatArray = np.einsum('ktj,ktj->tj', one, other)
    return product
