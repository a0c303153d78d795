"""Crop sampling with OpenCV: fast, accurate to a 32nd of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.image_pyramid import (
    MAX_COORDINATE_PX,
    THREAD_POOL,
    corner_aligned_scaling,
    extract_part,
    pyramid_level,
)
from metrabs_ros.virtual_cameras import VirtualCameras

BLOCK_PX = 8
"""Source coordinates are computed once for each block of this side, and interpolated."""
_NO_MAP = np.zeros(0, np.float32)
_BLACK = np.zeros((1, 1, 3), np.uint8)


def sample_crops(
    image: ImageArray, camera: Camera, virtual: VirtualCameras, antialias_factor: int = 1
) -> NDArray[np.float32]:
    """
    Sample the crops of virtual cameras from the image of the real camera.

    Small crops of large people are sampled from an image pyramid.  Pixel values are averaged
    without gamma decoding, as in the crops that BlazePose was trained with.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    camera
        The real camera.
    virtual
        N virtual cameras.
    antialias_factor
        Crops are sampled this many times larger and averaged down.

    Returns
    -------
    [N, side, side, 3], from 0 to 1, black outside the image.
    """
    side_px = virtual.side_px
    large_px = side_px * antialias_factor
    crops = np.zeros((len(virtual), side_px, side_px, 3), np.float32)
    levels = pyramid_level(virtual.scale * antialias_factor)
    centres_px = block_source_pixels(camera, virtual, large_px)

    def sample(i: int) -> None:
        low_px, part = downsample_part(image, centres_px[i].reshape(-1, 2), int(levels[i]))
        at_level_px = (centres_px[i] + 0.5) * 0.5 ** levels[i] - 0.5
        source_px = interpolate_blocks((at_level_px - low_px).astype(np.float32), large_px)
        crop = cv2.remap(part, source_px, _NO_MAP, cv2.INTER_LINEAR)
        if antialias_factor > 1:
            crop = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
        np.multiply(crop, np.float32(1 / 255), out=crops[i])

    # OpenCV releases the GIL.
    list(THREAD_POOL.map(sample, range(len(crops))))
    return crops


def block_source_pixels(camera: Camera, virtual: VirtualCameras, side_px: int) -> FloatArray:
    """
    Return the image pixels that correspond to the centres of the blocks of crops.

    Parameters
    ----------
    camera
        The real camera.
    virtual
        N virtual cameras.
    side_px
        Height and width at which the crops are sampled.

    Returns
    -------
    [N, B, B, 2], x and y.  An additional block on each side ensures that all crop pixels lie
    between block centres.
    """
    count = -(-side_px // BLOCK_PX) + 2
    centres_px = (np.arange(count) - 0.5) * BLOCK_PX - 0.5
    points = np.stack([*np.meshgrid(centres_px, centres_px), np.ones((count, count))], axis=-1)
    to_sampled = corner_aligned_scaling(side_px / virtual.side_px)
    to_ray = np.linalg.inv(to_sampled @ virtual.intrinsic_matrix @ virtual.rotation)
    rays = points @ to_ray[:, None].swapaxes(-1, -2)
    return np.clip(camera.project(1000 * rays), -MAX_COORDINATE_PX, MAX_COORDINATE_PX)


def interpolate_blocks(centres: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Interpolate values at block centres, [B, B, 2], to pixels, [side, side, 2]."""
    full_px = BLOCK_PX * len(centres)
    full = cv2.resize(centres, (full_px, full_px), interpolation=cv2.INTER_LINEAR)
    inner = slice(BLOCK_PX, BLOCK_PX + side_px)
    return np.asarray(full[inner, inner], np.float32)


def downsample_part(
    image: ImageArray, points_px: FloatArray, level: int
) -> tuple[NDArray[np.int64], ImageArray]:
    """
    Extract the part of an image around points, and halve it repeatedly.

    Parameters
    ----------
    image
        [H, W, 3].
    points_px
        [N, 2], image pixels; the part contains their bounding box.
    level
        Number of times that the part is halved.

    Returns
    -------
    The upper left pixel [2] of the part in the halved image, and the part [h, w, 3]; one black
    pixel if the points lie outside the image.
    """
    limit_px = np.array(image.shape[1::-1]) >> level
    low_px = np.floor(points_px.min(axis=0) * 0.5**level).astype(np.int64) - 1
    high_px = np.ceil(points_px.max(axis=0) * 0.5**level).astype(np.int64) + 2
    low_px, high_px = np.clip(low_px, 0, limit_px), np.clip(high_px, 0, limit_px)
    if (high_px <= low_px).any():
        return low_px, _BLACK
    part = extract_part(image, low_px, high_px, level)
    for _ in range(level):
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = np.asarray(cv2.resize(part, half, interpolation=cv2.INTER_AREA), np.uint8)
    return low_px, part
