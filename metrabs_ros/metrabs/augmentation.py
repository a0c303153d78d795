"""Test-time augmentation: several crops of each person, as the official implementation's."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.virtual_cameras import VirtualCameras

LARGEST_ANGLE_DEGREES = 25.0
SCALES = (0.8, 1.0, 1.1)
"""The smallest, the middle one's and the largest."""
GAMMAS = (0.6, 1.0)


@dataclasses.dataclass(frozen=True)
class Augmentations:
    """
    How A crops of the same person differ.

    Parameters
    ----------
    angle_degrees
        [A], how far the camera is rolled.
    scale
        [A], how far it zooms in.
    gamma
        [A], the exponent of the colours beside the image's own gamma.
    mirrored
        [A], whether it shows the mirror image.
    """

    angle_degrees: FloatArray
    scale: FloatArray
    gamma: FloatArray
    mirrored: BoolArray

    def __len__(self) -> int:
        """Return the number of augmentations."""
        return len(self.scale)

    @classmethod
    def spread(cls, count: int) -> Augmentations:
        """Return so many augmentations, spread evenly; a single one has the middle values."""
        if count == 1:
            middle_gamma = np.mean(GAMMAS)
            return cls(np.zeros(1), np.ones(1), np.array([middle_gamma]), np.zeros(1, bool))
        low, middle, high = SCALES
        before = count // 2
        return cls(
            angle_degrees=np.linspace(-LARGEST_ANGLE_DEGREES, LARGEST_ANGLE_DEGREES, count),
            scale=np.concatenate(
                [
                    np.linspace(low, middle, before, endpoint=False),
                    np.linspace(middle, high, count - before),
                ]
            ),
            gamma=np.linspace(*GAMMAS, count),
            mirrored=(np.arange(count) - before) % 2 == 1,
        )

    def of(self, cameras: VirtualCameras) -> VirtualCameras:
        """Return for each of N virtual cameras its A augmented ones in a row, N x A."""
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
