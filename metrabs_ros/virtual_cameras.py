"""Virtual pinhole cameras for perspective-corrected crops."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays
from metrabs_ros.camera import Camera

MIN_SCALE = 1e-12
"""Minimum `scale` of a usable camera with crops of one pixel; smaller values can underflow."""
RAY_DEPTH_MM = 1000.0
"""Depth of points that are projected for their rays; `Camera.project` limits the depth."""

_YZX, _ZXY = np.array([1, 2, 0]), np.array([2, 0, 1])


@dataclasses.dataclass(frozen=True)
class VirtualCameras(StructOfArrays):
    """
    N virtual pinhole cameras, one for each crop.

    Parameters
    ----------
    rotation
        [N, 3, 3], rotates the real camera's coordinates to the virtual camera's.
    intrinsic_matrix
        [N, 3, 3], crop pixels.
    side_px
        Height and width of all crops.
    scale
        [N], crop pixels for each image pixel, at the centre of the crop.
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
        """Whether each camera's rotation and scale are finite and in range, [N]."""
        in_range = (self.scale > self.side_px * MIN_SCALE) & np.isfinite(self.scale)
        return in_range & np.isfinite(self.rotation).all(axis=(1, 2))

    def mirrored(self, which: BoolArray) -> VirtualCameras:
        """Negate the x axes of the cameras that a mask [N] selects, so that crops are mirrored."""
        signs = np.where(which[:, None], (-1.0, 1.0, 1.0), 1.0)
        return dataclasses.replace(self, rotation=signs[..., None] * self.rotation)

    def normalise(self, points_px: FloatArray) -> FloatArray:
        """Map crop pixels [N, J, 2] to the plane at depth 1 of the virtual cameras."""
        return apply_homographies(np.linalg.inv(self.intrinsic_matrix), points_px)

    def to_camera(self, points: FloatArray) -> FloatArray:
        """Rotate points [N, J, 3] from the virtual cameras' frames to the real camera's frame."""
        return points @ self.rotation

    def is_inside(self, points_px: FloatArray) -> BoolArray:
        """Return which crop pixels [N, J, 2] lie within the crop, [N, J]."""
        return np.all((points_px >= 0) & (points_px <= self.side_px - 1), axis=-1)

    def to_image(self, points_px: FloatArray, camera: Camera) -> FloatArray:
        """Map crop pixels [N, J, 2] to pixels of the real camera's image."""
        normalised = self.normalise(points_px)
        rays = np.concatenate([normalised, np.ones_like(normalised[..., :1])], axis=-1)
        return camera.project(RAY_DEPTH_MM * self.to_camera(rays))


def look_at(forward: FloatArray, up: FloatArray) -> FloatArray:
    """
    Return rotations of cameras that look in given directions, upright in the image.

    Parameters
    ----------
    forward
        [N, 3], direction of the camera's z axis, any length.
    up
        [N, 3] or [3], up direction in the same frame, any length.  Where it is parallel to
        `forward`, the negative y axis of the given frame is used.

    Returns
    -------
    [N, 3, 3], from the given frame to the rotated cameras' frames.
    """
    z = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    x = cross(z, up)
    is_parallel = np.linalg.norm(x, axis=-1) < 1e-9
    if is_parallel.any():
        x[is_parallel] = cross(z[is_parallel], np.array([0.0, -1.0, 1e-3]))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, cross(z, x), z], axis=-2)


def cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return cross products [..., 3]; several times faster than `numpy.cross` for few vectors."""
    return a[..., _YZX] * b[..., _ZXY] - a[..., _ZXY] * b[..., _YZX]


def apply_homographies(matrices: FloatArray, points: FloatArray) -> FloatArray:
    """Apply homographies [N, 3, 3] to points [N, J, 2]."""
    mapped = points @ matrices[:, :2, :2].swapaxes(1, 2) + matrices[:, None, :2, 2]
    depth = points @ matrices[:, 2, :2, None] + matrices[:, 2, None, 2:]
    return mapped / depth


def project_rays(matrices: FloatArray, rays: FloatArray) -> FloatArray:
    """Project rays [N, K, 3] with matrices [N, 3, 3] to points [N, K, 2]."""
    projected = rays @ matrices.swapaxes(1, 2)
    return projected[..., :2] / np.maximum(projected[..., 2:], 1e-6)
