"""Virtual cameras that look straight at people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera

SMALLEST_SCALE = 1e-12
"""What needs less, for a crop of one pixel, is beyond all sense, and soon beyond all numbers."""

_YZX, _ZXY = np.array([1, 2, 0]), np.array([2, 0, 1])


@dataclasses.dataclass(frozen=True)
class VirtualCameras:
    """
    The pinhole cameras that N crops are seen through.

    Parameters
    ----------
    rotation
        [N, 3, 3], takes the real camera's coordinates to the virtual one's.
    intrinsic_matrix
        [N, 3, 3], pixels of the crop.
    side_px
        Height and width of every crop.
    scale
        [N], pixels of the crop to a pixel of the image, at the crop's centre.
    """

    rotation: FloatArray
    intrinsic_matrix: FloatArray
    side_px: int
    scale: FloatArray

    def __len__(self) -> int:
        """Return the number of cameras."""
        return len(self.scale)

    @property
    def usable(self) -> BoolArray:
        """Which of them can look at anything, [N]."""
        in_reach = (self.scale > self.side_px * SMALLEST_SCALE) & np.isfinite(self.scale)
        return in_reach & np.isfinite(self.rotation).all(axis=(1, 2))

    def select(self, which: slice | BoolArray) -> VirtualCameras:
        """Return some of the cameras."""
        return VirtualCameras(
            self.rotation[which], self.intrinsic_matrix[which], self.side_px, self.scale[which]
        )

    @classmethod
    def concatenate(cls, several: Sequence[VirtualCameras]) -> VirtualCameras:
        """Join several sets of cameras, of which there is at least one."""
        return cls(
            np.concatenate([cameras.rotation for cameras in several]),
            np.concatenate([cameras.intrinsic_matrix for cameras in several]),
            several[0].side_px,
            np.concatenate([cameras.scale for cameras in several]),
        )

    def mirrored(self) -> VirtualCameras:
        """Return cameras that see the same in a mirror: their x axes point the other way."""
        return dataclasses.replace(self, rotation=np.diag([-1.0, 1.0, 1.0]) @ self.rotation)

    def normalise(self, points_px: FloatArray) -> FloatArray:
        """Take crop pixels [N, J, 2] to the plane at depth 1 of the virtual camera."""
        return apply_homographies(np.linalg.inv(self.intrinsic_matrix), points_px)

    def to_camera(self, points: FloatArray) -> FloatArray:
        """Rotate points [N, J, 3] of the virtual camera's frame to the real camera's."""
        return points @ self.rotation

    def inside(self, points_px: FloatArray) -> BoolArray:
        """Tell which crop pixels [N, J, 2] lie within the crop, [N, J]."""
        return np.all((points_px >= 0) & (points_px <= self.side_px - 1), axis=-1)

    def to_image(self, points_px: FloatArray, camera: Camera) -> FloatArray:
        """Take crop pixels [N, J, 2] to pixels of the real camera's image."""
        normalised = self.normalise(points_px)
        rays = np.concatenate([normalised, np.ones_like(normalised[..., :1])], axis=-1)
        return camera.project(1000 * self.to_camera(rays))


def look_at(forward: FloatArray, up: FloatArray) -> FloatArray:
    """
    Turn a camera towards directions, its image's vertical axis along the up direction.

    Parameters
    ----------
    forward
        [N, 3], where the camera's z axis is to point, of any length.
    up
        [N, 3] or [3], up in the same frame, of any length.  Where it runs along `forward`, the
        upward direction of the image is kept.

    Returns
    -------
    [N, 3, 3] rotations to the turned cameras' frames.
    """
    z = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    x = cross(z, up)
    unclear = np.linalg.norm(x, axis=-1) < 1e-9
    if unclear.any():
        x[unclear] = cross(z[unclear], np.array([0.0, -1.0, 1e-3]))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, cross(z, x), z], axis=-2)


def cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return cross products [..., 3]; of few vectors `numpy.cross` takes several times as long."""
    return a[..., _YZX] * b[..., _ZXY] - a[..., _ZXY] * b[..., _YZX]


def apply_homographies(matrices: FloatArray, points: FloatArray) -> FloatArray:
    """Apply homographies [N, 3, 3] to points [N, J, 2]."""
    mapped = points @ matrices[:, :2, :2].swapaxes(1, 2) + matrices[:, None, :2, 2]
    depth = points @ matrices[:, 2, :2, None] + matrices[:, 2, None, 2:]
    return mapped / depth


def project_rays(matrices: FloatArray, rays: FloatArray) -> FloatArray:
    """Project rays [N, K, 3] by matrices [N, 3, 3], to [N, K, 2]."""
    projected = rays @ matrices.swapaxes(1, 2)
    return projected[..., :2] / np.maximum(projected[..., 2:], 1e-6)
