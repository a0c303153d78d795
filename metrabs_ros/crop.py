"""
Upright, perspective-corrected crops of people.

Each crop is what a virtual camera would see that stands where the real one stands, looks
straight at the person, has no lens distortion and zooms so that the person fills its square
image (MeTRAbs, T-BIOM 2021, section III-F).  Poses found in a crop are true in the virtual
camera's frame; a rotation takes them back.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera

GAMMA = 2.2
PYRAMID_LEVELS = 3
_THREADS = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'crops')
_NO_MAP = np.zeros(0, np.float32)
_DECODED = (np.arange(256, dtype=np.float32) / 255) ** GAMMA


@dataclasses.dataclass(frozen=True)
class Circles:
    """
    Where people are, each as a circle around the body with an upright direction.

    Parameters
    ----------
    centre_px
        [N, 2], image pixels, between the hips.
    rim_px
        [N, 2], image pixels, the circle's uppermost point as the person sees it.
    """

    centre_px: FloatArray
    rim_px: FloatArray

    def __len__(self) -> int:
        """Return the number of circles."""
        return len(self.centre_px)

    @property
    def radius_px(self) -> FloatArray:
        """The circles' radii, [N], image pixels."""
        return np.linalg.norm(self.rim_px - self.centre_px, axis=-1)

    def select(self, which: NDArray[Any]) -> Circles:
        """Return the circles at an index array or mask."""
        return Circles(self.centre_px[which], self.rim_px[which])

    @classmethod
    def concatenate(cls, *several: Circles) -> Circles:
        """Join several sets of circles into one."""
        return cls(
            np.concatenate([circles.centre_px for circles in several]),
            np.concatenate([circles.rim_px for circles in several]),
        )

    @classmethod
    def mean(cls, several: Sequence[Circles]) -> Circles:
        """Return the mean of several circles around each person."""
        return cls(
            np.mean([circles.centre_px for circles in several], axis=0),
            np.mean([circles.rim_px for circles in several], axis=0),
        )

    @classmethod
    def around_boxes(cls, boxes: FloatArray, camera: Camera) -> Circles:
        """
        Draw circles around people of whom only boxes are known.

        Parameters
        ----------
        boxes
            [N, 4] or more columns: left, top, width, height in pixels.
        camera
            Its up direction is taken for the people's.
        """
        boxes = np.asarray(boxes, np.float64)
        centre_px = boxes[:, :2] + boxes[:, 2:4] / 2
        radius_px = boxes[:, 2:4].max(axis=1, keepdims=True) / 2
        return cls(centre_px, centre_px + radius_px * up_in_image(centre_px, camera))

    def tilt_degrees(self, camera: Camera) -> FloatArray:
        """Return how far each person leans from the world's up as seen there, [N], 0 to 180."""
        own = self.rim_px - self.centre_px
        up = up_in_image(self.centre_px, camera)
        cross = own[:, 0] * up[:, 1] - own[:, 1] * up[:, 0]
        return np.degrees(np.abs(np.arctan2(cross, (own * up).sum(axis=-1))))


def up_in_image(points_px: FloatArray, camera: Camera) -> FloatArray:
    """
    Return the direction in the image of the world's up, at pixels [N, 2].

    Returns
    -------
    [N, 2], unit vectors; straight up in the image where the camera looks along the up direction.
    """
    rays = camera.unproject(points_px)
    direction = camera.project(1000 * (rays + 1e-3 * camera.up)) - points_px
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.where(length > 1e-6, direction / np.maximum(length, 1e-6), (0.0, -1.0))


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

    def mirrored(self) -> VirtualCameras:
        """Return cameras that see the same in a mirror: their x axes point the other way."""
        return dataclasses.replace(self, rotation=np.diag([-1.0, 1.0, 1.0]) @ self.rotation)

    def normalise(self, points_px: FloatArray) -> FloatArray:
        """Take crop pixels [N, J, 2] to the plane at depth 1 of the virtual camera."""
        return _apply(np.linalg.inv(self.intrinsic_matrix), points_px)

    def to_camera(self, points: FloatArray) -> FloatArray:
        """Rotate points [N, J, 3] of the virtual camera's frame to the real camera's."""
        return points @ self.rotation

    def inside(self, points_px: FloatArray) -> NDArray[np.bool_]:
        """Tell which crop pixels [N, J, 2] lie within the crop, [N, J]."""
        return np.all((points_px >= 0) & (points_px <= self.side_px - 1), axis=-1)

    def circles_in_image(self, circles: Circles, camera: Camera) -> Circles:
        """Take circles in crop pixels, one a crop, to pixels of the real camera's image."""
        points_px = np.stack([circles.centre_px, circles.rim_px], axis=1)
        normalised = self.normalise(points_px)
        rays = np.concatenate([normalised, np.ones_like(normalised[..., :1])], axis=-1)
        centre_px, rim_px = camera.project(1000 * self.to_camera(rays)).swapaxes(0, 1)
        return Circles(centre_px, rim_px)


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
    x = np.cross(z, np.broadcast_to(up, z.shape))
    unclear = np.linalg.norm(x, axis=-1, keepdims=True) < 1e-9
    x = np.where(unclear, np.cross(z, np.broadcast_to((0.0, -1.0, 1e-3), z.shape)), x)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=-2)


def virtual_cameras_on_circles(
    circles: Circles, camera: Camera, side_px: int, margin: float
) -> VirtualCameras:
    """
    Point a virtual camera at each circle.

    Parameters
    ----------
    circles
        N of them.
    camera
        The real camera.
    side_px
        Height and width of the crops.
    margin
        How many times its diameter is visible around a circle.
    """
    centre_ray = camera.unproject(circles.centre_px)
    rim_ray = camera.unproject(circles.rim_px)
    rotation = look_at(centre_ray, rim_ray - centre_ray)
    turned = camera.intrinsic_matrix @ rotation
    centre_px = _apply_to_rays(turned, centre_ray)
    rim_px = _apply_to_rays(turned, rim_ray)
    diameter_px = 2 * np.linalg.norm(rim_px - centre_px, axis=-1)
    scale = side_px / np.maximum(margin * diameter_px, 1e-6)
    intrinsics = np.tile(np.eye(3), (len(circles), 1, 1))
    intrinsics[:, :2, :2] = camera.intrinsic_matrix[:2, :2] * scale[:, None, None]
    intrinsics[:, :2, 2] = side_px / 2
    return VirtualCameras(rotation, intrinsics, side_px, scale)


def sample_crops(
    image: ImageArray, camera: Camera, virtual: VirtualCameras, antialias_factor: int = 1
) -> NDArray[np.float32]:
    """
    Sample what virtual cameras see from the image of the real one.

    Light is averaged, not code values: the image is gamma-decoded before it is sampled and
    encoded again after.  Small crops of large people are sampled from a pyramid of halved images.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    camera
        The real camera.
    virtual
        The N virtual ones.
    antialias_factor
        Crops are sampled this many times as large and averaged down.

    Returns
    -------
    [N, side, side, 3], from 0 to 1, black where the image has nothing.
    """
    crops = np.zeros((len(virtual.scale), virtual.side_px, virtual.side_px, 3), np.float32)

    def sample(i: int) -> None:
        linear = _sample_crop(
            image,
            camera,
            virtual.rotation[i],
            virtual.intrinsic_matrix[i],
            virtual.side_px,
            virtual.scale[i],
            antialias_factor,
        )
        # Rounding in the averages can leave a value just below 0, which has no power.
        cv2.pow(np.maximum(linear, 0), 1 / GAMMA, dst=crops[i])

    # The work is done in OpenCV, which lets other threads run meanwhile.
    list(_THREADS.map(sample, range(len(crops))))
    return crops


def _sample_crop(
    image: ImageArray,
    camera: Camera,
    rotation: FloatArray,
    intrinsics: FloatArray,
    side_px: int,
    scale: float,
    antialias_factor: int,
) -> NDArray[np.float32]:
    """Sample one crop in linear light, [side, side, 3]."""
    level = int(np.clip(np.floor(-np.log2(scale * antialias_factor)), 0, PYRAMID_LEVELS - 1))
    large_px = side_px * antialias_factor
    to_large = corner_aligned_scaling(antialias_factor)
    to_level = corner_aligned_scaling(0.5**level)
    to_camera = np.linalg.inv(to_large @ intrinsics @ rotation)
    if len(camera.distortion_coeffs):
        source = _distorted_map(to_camera, camera, to_level, large_px)
        corners = source.reshape(-1, 2)
    else:
        homography = to_level @ camera.intrinsic_matrix @ to_camera
        corners = _apply(homography[None], _corners(large_px)[None])[0]
    origin, region = _decoded_region(image, corners, level)
    if not region.size:
        return np.zeros((side_px, side_px, 3), np.float32)
    if len(camera.distortion_coeffs):
        shifted = (source - origin).astype(np.float32)
        large = cv2.remap(region, shifted, _NO_MAP, cv2.INTER_LINEAR)
    else:
        shift = np.array([[1, 0, -origin[0]], [0, 1, -origin[1]], [0, 0, 1]])
        large = cv2.warpPerspective(
            region,
            shift @ homography,
            (large_px, large_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
    if antialias_factor > 1:
        large = cv2.resize(large, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(large, np.float32)


def corner_aligned_scaling(factor: float) -> FloatArray:
    """Return the [3, 3] pixel transform of a resize that keeps the image's outer edges."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])


def _distorted_map(
    to_camera: FloatArray, camera: Camera, to_level: FloatArray, side_px: int
) -> FloatArray:
    """Return the image pixel [side, side, 2] of each crop pixel, lens distortion applied."""
    normalised = cv2.initUndistortRectifyMap(
        np.eye(3),
        camera.distortion_coeffs,
        np.linalg.inv(to_camera),
        np.eye(3),
        (side_px, side_px),
        cv2.CV_32FC1,
    )
    to_pixels = to_level @ camera.intrinsic_matrix
    return np.stack(normalised, axis=-1) @ to_pixels[:2, :2].T + to_pixels[:2, 2]


def _decoded_region(
    image: ImageArray, touched_px: FloatArray, level: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """
    Gamma-decode the part of the image that a crop touches, at a level of the pyramid.

    Returns
    -------
    The part's upper left pixel [2] at that level, and the part [h, w, 3] in linear light.
    """
    step = 2**level
    limit = np.array(image.shape[1::-1]) // step
    touched_px = np.nan_to_num(touched_px, posinf=1e9, neginf=-1e9)
    low = np.clip(np.floor(touched_px.min(axis=0)).astype(np.int64) - 1, 0, limit)
    high = np.clip(np.ceil(touched_px.max(axis=0)).astype(np.int64) + 2, 0, limit)
    if (high <= low).any():
        return low, np.zeros((0, 0, 3), np.float32)
    part = image[low[1] * step : high[1] * step, low[0] * step : high[0] * step]
    decoded = np.asarray(cv2.LUT(np.ascontiguousarray(part), _DECODED), np.float32)
    for _ in range(level):
        half = (decoded.shape[1] // 2, decoded.shape[0] // 2)
        decoded = np.asarray(cv2.resize(decoded, half, interpolation=cv2.INTER_AREA), np.float32)
    return low, decoded


def _corners(side_px: int) -> FloatArray:
    last = side_px - 1.0
    return np.array([[0, 0], [last, 0], [last, last], [0, last]])


def _apply(matrices: FloatArray, points: FloatArray) -> FloatArray:
    """Apply homographies [N, 3, 3] to points [N, J, 2]."""
    mapped = points @ matrices[:, :2, :2].swapaxes(1, 2) + matrices[:, None, :2, 2]
    depth = points @ matrices[:, 2, :2, None] + matrices[:, 2, None, 2:]
    return mapped / depth


def _apply_to_rays(matrices: FloatArray, rays: FloatArray) -> FloatArray:
    """Project rays [N, 3] by one matrix [3, 3] each, to [N, 2]."""
    projected = np.einsum('nij,nj->ni', matrices, rays)
    return projected[:, :2] / np.maximum(projected[:, 2:], 1e-6)
