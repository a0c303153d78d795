"""Test-time augmentation: several crops of each person, as in the official implementation."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.virtual_cameras import VirtualCameras

MAX_ANGLE_DEGREES = 25.0
SCALES = (0.8, 1.0, 1.1)
"""Scale of the first, the middle and the last augmentation."""
GAMMAS = (0.6, 1.0)
"""Gamma exponent of the first and the last augmentation."""


@dataclasses.dataclass(frozen=True)
class Augmentations:
    """
    Parameters of A augmented crops of each person.

    Parameters
    ----------
    angle_degrees
        [A], roll angle of the camera.
    scale
        [A], zoom factor.
    gamma
        [A], exponent applied in addition to the image's own gamma.
    mirrored
        [A], whether the crop is mirrored.
    """

    angle_degrees: FloatArray
    scale: FloatArray
    gamma: FloatArray
    mirrored: BoolArray

    def __len__(self) -> int:
        """Return the number of augmentations."""
        return len(self.scale)

    @classmethod
    def evenly_spaced(cls, count: int) -> Augmentations:
        """Return evenly spaced augmentations; a single augmentation has the middle values."""
        if count == 1:
            middle_gamma = np.mean(GAMMAS)
            return cls(np.zeros(1), np.ones(1), np.array([middle_gamma]), np.zeros(1, bool))
        low, middle, high = SCALES
        first_half = count // 2
        return cls(
            angle_degrees=np.linspace(-MAX_ANGLE_DEGREES, MAX_ANGLE_DEGREES, count),
            scale=np.concatenate(
                [
                    np.linspace(low, middle, first_half, endpoint=False),
                    np.linspace(middle, high, count - first_half),
                ]
            ),
            gamma=np.linspace(*GAMMAS, count),
            mirrored=(np.arange(count) - first_half) % 2 == 1,
        )

    def apply_to(self, cameras: VirtualCameras) -> VirtualCameras:
        """Return N x A augmented cameras for N cameras; those of one camera are consecutive."""
        rolls = self._rotations() @ cameras.rotation[:, None]
        intrinsics = np.repeat(cameras.intrinsic_matrix[:, None], len(self), axis=1)
        intrinsics[..., :2, :2] *= self.scale[:, None, None]
        return VirtualCameras(
            rolls.reshape(-1, 3, 3),
            intrinsics.reshape(-1, 3, 3),
            cameras.side_px,
            (cameras.scale[:, None] * self.scale).reshape(-1),
        )

    def _rotations(self) -> FloatArray:
        angle = -np.radians(self.angle_degrees)
        rotations = np.zeros((len(self), 3, 3))
        rotations[:, 0, 0] = rotations[:, 1, 1] = np.cos(angle)
        rotations[:, 0, 1] = -np.sin(angle)
        rotations[:, 1, 0] = np.sin(angle)
        rotations[:, 2, 2] = 1
        rotations[self.mirrored, 0] *= -1
        return rotations
