"""
Store of tracks in the world frame: joint filters, and when which camera saw them.

A person moves as a whole, and its joints move relative to the body.  Both have Kalman filters with
constant velocity, but the states are stored as a sum: positions and velocities of the joints.  The
covariance matrices are those of the two filters: one for the motion that all joints share, and one
per joint.  Errors such as that of a monocular distance are in the former.
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
INITIAL_SPEED_STD_MM_S = 1_000.0
LIMB_NOISE, TRUNK_NOISE, PERSON_NOISE = 1e7, 3e6, 2e6
"""
Spectral densities of the accelerations, mm^2/s^3: of joints relative to the body, and of the body.
"""
MAX_JOINT_STD_MM = 300.0
"""Joints stay near the body, so that their error relative to it has a limit."""
MAX_SHARED_STD_MM = 3000.0
"""Maximum of the error that all joints share."""
MIN_PRIOR_WEIGHT = 1e-2
"""Lower limit of the weight of predictions that measurements contradict."""
STEADY_S = 0.2
"""Tracks that were not seen for longer move as a rigid body."""
LIMB_DECAY_S = 0.1
"""Time constant of the velocities relative to the trunk of joints that are not seen."""


@dataclasses.dataclass
class WorldTracks:
    """
    T tracks of people with J joints, seen by up to C cameras.

    Parameters
    ----------
    ids
        [T].
    hits
        [T], number of frame sets that saw the track.
    evidence
        [T], sum over frame sets; each adds up to 1, less if most cameras that the person would be
        in the image of do not see it.
    first_seen_s, last_seen_s
        [T], stamps.
    position_mm, velocity_mm_s
        [T, J, 3].
    position_mm2, covariance_mm2_s, velocity_mm2_s2
        [T, J, 3, 3], blocks of the covariance matrices; the second is position by velocity.
    shared_mm2, shared_covariance_mm2_s, shared_velocity_mm2_s2
        [T, 3, 3], the same for the error that all joints share.
    log_size, size_weight, size_spread2
        [T], mean logarithm of true divided by monocular distances, the number of independent ones,
        and their sum of squared differences from the mean; see `person_sizes`.
    joint_seen_s, joint_confidence
        [T, J], stamp of the last accepted measurement, and its confidence.
    camera_seen_s, camera_ids, reprojection_px
        [T, C], when each camera saw the track last, under which id of its own, and its median
        reprojection error then.
    """

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    evidence: FloatArray
    first_seen_s: FloatArray
    last_seen_s: FloatArray
    position_mm: FloatArray
    velocity_mm_s: FloatArray
    position_mm2: FloatArray
    covariance_mm2_s: FloatArray
    velocity_mm2_s2: FloatArray
    shared_mm2: FloatArray
    shared_covariance_mm2_s: FloatArray
    shared_velocity_mm2_s2: FloatArray
    log_size: FloatArray
    size_weight: FloatArray
    size_spread2: FloatArray
    joint_seen_s: FloatArray
    joint_confidence: FloatArray
    camera_seen_s: FloatArray
    camera_ids: NDArray[np.int64]
    reprojection_px: FloatArray

    @classmethod
    def empty(cls, joints: int, cameras: int = 0) -> WorldTracks:
        """Return a store without tracks."""
        return cls.started(
            np.zeros(0, np.int64),
            0.0,
            np.zeros((0, joints, 3)),
            np.zeros((0, joints, 3, 3)),
            np.zeros((0, 3, 3)),
            cameras,
        )

    @classmethod
    def started(
        cls,
        ids: NDArray[np.int64],
        stamp_s: float,
        position_mm: FloatArray,
        position_mm2: FloatArray,
        shared_mm2: FloatArray,
        cameras: int,
    ) -> WorldTracks:
        """Return new tracks at rest, from positions [T, J, 3] and covariance matrices."""
        count, joints, _ = position_mm.shape
        speed_mm2 = INITIAL_SPEED_STD_MM_S**2 * np.eye(3)
        return cls(
            ids=ids,
            hits=np.zeros(count, np.int64),
            evidence=np.zeros(count),
            first_seen_s=np.full(count, stamp_s),
            last_seen_s=np.full(count, stamp_s),
            position_mm=position_mm,
            velocity_mm_s=np.zeros_like(position_mm),
            position_mm2=position_mm2,
            covariance_mm2_s=np.zeros_like(position_mm2),
            velocity_mm2_s2=np.tile(speed_mm2, (count, joints, 1, 1)),
            shared_mm2=shared_mm2,
            shared_covariance_mm2_s=np.zeros_like(shared_mm2),
            shared_velocity_mm2_s2=np.tile(speed_mm2, (count, 1, 1)),
            log_size=np.zeros(count),
            size_weight=np.zeros(count),
            size_spread2=np.zeros(count),
            joint_seen_s=np.full((count, joints), -np.inf),
            joint_confidence=np.zeros((count, joints)),
            camera_seen_s=np.full((count, cameras), -np.inf),
            camera_ids=np.full((count, cameras), -1),
            reprojection_px=np.zeros((count, cameras)),
        )

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.ids)

    def select(self, which: NDArray[Any]) -> WorldTracks:
        """Return a new store with the tracks at an index array or mask."""
        return WorldTracks(**{name: values[which] for name, values in vars(self).items()})

    def replace(self, which: NDArray[Any], other: WorldTracks) -> None:
        """Replace the tracks at an index array or mask by others."""
        for name, values in vars(other).items():
            getattr(self, name)[which] = values

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the tracks at an index array or mask, in its order."""
        for name, values in vars(self).items():
            setattr(self, name, values[which])

    def append(self, other: WorldTracks) -> None:
        """Append other tracks."""
        for name, values in vars(self).items():
            setattr(self, name, np.concatenate([values, getattr(other, name)]))

    def add_cameras(self, count: int) -> None:
        """Append columns for cameras that have not seen any track."""
        for name, value in (
            ('camera_seen_s', -np.inf),
            ('camera_ids', -1),
            ('reprojection_px', 0.0),
        ):
            values = getattr(self, name)
            setattr(self, name, np.pad(values, ((0, 0), (0, count)), constant_values=value))

    def unseen_s(self, stamp_s: float) -> FloatArray:
        """Return for how long each track was not seen, [T]."""
        return np.maximum(stamp_s - self.last_seen_s, 0)

    def predict(
        self, step_s: float, stamp_s: float, noise: FloatArray, trunk: NDArray[Any]
    ) -> None:
        """
        Predict the states.

        Parameters
        ----------
        step_s
            Time since the last prediction.
        stamp_s
            The new time.
        noise
            [J], spectral density of the acceleration.
        trunk
            Indices of the joints of the trunk.
        """
        self._damp_unseen(step_s, stamp_s, trunk)
        self.position_mm = self.position_mm + step_s * self.velocity_mm_s
        blocks = _predicted_blocks(
            self.position_mm2, self.covariance_mm2_s, self.velocity_mm2_s2, step_s, noise
        )
        # A joint cannot be far from the body.
        blocks = _limited_blocks(*blocks, MAX_JOINT_STD_MM)
        self.position_mm2, self.covariance_mm2_s, self.velocity_mm2_s2 = blocks
        blocks = _predicted_blocks(
            self.shared_mm2,
            self.shared_covariance_mm2_s,
            self.shared_velocity_mm2_s2,
            step_s,
            np.array(PERSON_NOISE),
        )
        blocks = _limited_blocks(*blocks, MAX_SHARED_STD_MM)
        self.shared_mm2, self.shared_covariance_mm2_s, self.shared_velocity_mm2_s2 = blocks

    def _damp_unseen(self, step_s: float, stamp_s: float, trunk: NDArray[Any]) -> None:
        """Let joints that are not seen move with the trunk."""
        unseen = stamp_s - self.joint_seen_s > STEADY_S
        if unseen.any():
            trunk_mm_s = self.velocity_mm_s[:, trunk].mean(axis=1, keepdims=True)
            factor = np.where(unseen, np.exp(-step_s / LIMB_DECAY_S), 1.0)[..., None]
            self.velocity_mm_s = trunk_mm_s + factor * (self.velocity_mm_s - trunk_mm_s)

    def shift(self, shift_mm: FloatArray, shared_mm2: FloatArray) -> None:
        """Move tracks by [T, 3]; the covariances of their shared error become [T, 3, 3]."""
        blocks, gain = _corrected_blocks(
            self.shared_mm2,
            self.shared_covariance_mm2_s,
            self.shared_velocity_mm2_s2,
            np.linalg.inv(self.shared_mm2),
            shared_mm2,
        )
        self.shared_mm2, self.shared_covariance_mm2_s, self.shared_velocity_mm2_s2 = blocks
        self.position_mm = self.position_mm + shift_mm[:, None]
        self._accelerate((gain @ shift_mm[..., None])[:, None, :, 0])

    def correct(
        self,
        position_mm: FloatArray,
        prior_information: FloatArray,
        information: FloatArray,
        prior_weight: FloatArray,
    ) -> None:
        """
        Correct the states with measured positions.

        Parameters
        ----------
        position_mm
            [T, J, 3], estimates that include the prior.
        prior_information
            [T, J, 3, 3], inverse of `position_mm2`.
        information
            [T, J, 3, 3], information of the measurements; zero for joints that are not measured.
        prior_weight
            [T, J], less than 1 if the joint moved as the filter did not expect: then its
            covariance matrix is increased.
        """
        factor = 1 / np.maximum(prior_weight, MIN_PRIOR_WEIGHT)[..., None, None]
        inverse = prior_information / factor
        blocks, gain = _corrected_blocks(
            factor * self.position_mm2,
            factor * self.covariance_mm2_s,
            factor * self.velocity_mm2_s2,
            inverse,
            np.linalg.inv(inverse + information),
        )
        self.position_mm2, self.covariance_mm2_s, self.velocity_mm2_s2 = blocks
        moved_mm = position_mm - self.position_mm
        self.position_mm = position_mm
        self._accelerate((gain @ moved_mm[..., None])[..., 0])

    def _accelerate(self, change_mm_s: FloatArray) -> None:
        self.velocity_mm_s = np.clip(
            self.velocity_mm_s + change_mm_s, -MAX_SPEED_MM_S, MAX_SPEED_MM_S
        )

    def set_joints(self, which: BoolArray, mirror: NDArray[np.intp]) -> None:
        """Exchange left and right of the joints of a mask [T, J]."""
        for name in ('position_mm', 'velocity_mm_s'):
            values = getattr(self, name)
            setattr(self, name, np.where(which[..., None], values[:, mirror], values))


def _predicted_blocks(
    position: FloatArray,
    covariance: FloatArray,
    velocity: FloatArray,
    step_s: float,
    noise: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the blocks [..., 3, 3] of covariance matrices after a time step."""
    push = noise[..., None, None] * np.eye(3)
    position = position + step_s * (covariance + np.swapaxes(covariance, -1, -2))
    position += step_s**2 * velocity + (step_s**3 / 3) * push
    covariance = covariance + step_s * velocity + (step_s**2 / 2) * push
    return position, covariance, velocity + step_s * push


def _corrected_blocks(
    position: FloatArray,
    covariance: FloatArray,
    velocity: FloatArray,
    inverse: FloatArray,
    posterior: FloatArray,
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], FloatArray]:
    """
    Return the blocks of covariance matrices after a correction, and the gain of the velocities.

    Parameters
    ----------
    position, covariance, velocity
        [..., 3, 3], blocks before.
    inverse
        [..., 3, 3], inverse of the first.
    posterior
        [..., 3, 3], covariance matrices of the positions after the correction.
    """
    gain = np.swapaxes(covariance, -1, -2) @ inverse
    gain_t = np.swapaxes(gain, -1, -2)
    posterior = (posterior + np.swapaxes(posterior, -1, -2)) / 2
    # The covariance of the velocity given the position does not change.
    given = velocity + gain @ ((posterior - position) @ gain_t)
    given = (given + np.swapaxes(given, -1, -2)) / 2
    return (posterior, posterior @ gain_t, given), gain


def _limited_blocks(
    position: FloatArray, covariance: FloatArray, velocity: FloatArray, std_mm: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the blocks of covariance matrices, scaled down to a limit of the position's."""
    variance = np.trace(position, axis1=-2, axis2=-1)
    factor = np.minimum(1, 3 * std_mm**2 / np.maximum(variance, 1e-9))[..., None, None]
    return factor * position, factor * covariance, factor * velocity


def acceleration_noise(skeleton: Skeleton, trunk: NDArray[np.intp]) -> FloatArray:
    """Return the spectral density of the acceleration of each joint, [J]."""
    noise = np.full(len(skeleton), LIMB_NOISE)
    noise[trunk] = TRUNK_NOISE
    return noise


def trunk_joints(skeleton: Skeleton) -> NDArray[np.intp]:
    """Return the indices of shoulders and hips, or of all joints if there are none."""
    parts = [skeleton.part(p, s) for p in ('hip', 'shoulder') for s in ('left', 'right')]
    joints = np.concatenate(parts)
    return joints if len(joints) else np.arange(len(skeleton))
