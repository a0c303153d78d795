"""Sampling what virtual cameras see, by OpenCV: quick, to a 32nd of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.image_pyramid import (
    FAR_OUTSIDE_PX,
    THREADS,
    corner_aligned_scaling,
    cut_out,
    pyramid_level,
)
from metrabs_ros.virtual_cameras import VirtualCameras

BLOCK_PX = 8
"""It is computed once in so many pixels of a crop, each way, what they show."""
_NO_MAP = np.zeros(0, np.float32)
_BLACK = np.zeros((1, 1, 3), np.uint8)


def sample_crops(
    image: ImageArray, camera: Camera, virtual: VirtualCameras, antialias_factor: int = 1
) -> NDArray[np.float32]:
    """
    Sample what virtual cameras see from the image of the real one.

    Small crops of large people are sampled from a pyramid of halved images.  Code values are
    averaged and not light: so are the crops that BlazePose was trained with.

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
    side_px = virtual.side_px
    large_px = side_px * antialias_factor
    crops = np.zeros((len(virtual), side_px, side_px, 3), np.float32)
    levels = pyramid_level(virtual.scale * antialias_factor)
    middles_px = source_of_blocks(camera, virtual, large_px)

    def sample(i: int) -> None:
        low_px, part = halved_part(image, middles_px[i].reshape(-1, 2), int(levels[i]))
        at_level_px = (middles_px[i] + 0.5) * 0.5 ** levels[i] - 0.5
        source_px = between_blocks((at_level_px - low_px).astype(np.float32), large_px)
        crop = cv2.remap(part, source_px, _NO_MAP, cv2.INTER_LINEAR)
        if antialias_factor > 1:
            crop = cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA)
        np.multiply(crop, np.float32(1 / 255), out=crops[i])

    # The work is done in OpenCV, which lets other threads run meanwhile.
    list(THREADS.map(sample, range(len(crops))))
    return crops


def source_of_blocks(camera: Camera, virtual: VirtualCameras, side_px: int) -> FloatArray:
    """
    Return which pixels of a camera's image crops show in the middles of their blocks.

    Parameters
    ----------
    camera
        The real camera.
    virtual
        The N virtual ones.
    side_px
        With how many pixels a side their crops are sampled.

    Returns
    -------
    [N, B, B, 2], x and y.  There is a block more all around the crop, so that each of its pixels
    is between the middles of blocks.
    """
    count = -(-side_px // BLOCK_PX) + 2
    middles_px = (np.arange(count) - 0.5) * BLOCK_PX - 0.5
    points = np.stack([*np.meshgrid(middles_px, middles_px), np.ones((count, count))], axis=-1)
    to_sampled = corner_aligned_scaling(side_px / virtual.side_px)
    to_ray = np.linalg.inv(to_sampled @ virtual.intrinsic_matrix @ virtual.rotation)
    rays = points @ to_ray[:, None].swapaxes(-1, -2)
    return np.clip(camera.project(1000 * rays), -FAR_OUTSIDE_PX, FAR_OUTSIDE_PX)


def between_blocks(middles: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Interpolate what is known in the middles of blocks, [B, B, 2], to pixels [side, side, 2]."""
    full_px = BLOCK_PX * len(middles)
    full = cv2.resize(middles, (full_px, full_px), interpolation=cv2.INTER_LINEAR)
    inner = slice(BLOCK_PX, BLOCK_PX + side_px)
    return np.asarray(full[inner, inner], np.float32)


def halved_part(
    image: ImageArray, between_px: FloatArray, level: int
) -> tuple[NDArray[np.int64], ImageArray]:
    """
    Cut out of an image what is needed of it, and halve that.

    Parameters
    ----------
    image
        [H, W, 3].
    between_px
        [N, 2], pixels of the image: all that lies between them is needed.
    level
        How often to halve it.

    Returns
    -------
    The part's upper left pixel [2] in the halved image, and the part [h, w, 3]; a black pixel
    where the image has nothing.
    """
    limit_px = np.array(image.shape[1::-1]) >> level
    low_px = np.floor(between_px.min(axis=0) * 0.5**level).astype(np.int64) - 1
    high_px = np.ceil(between_px.max(axis=0) * 0.5**level).astype(np.int64) + 2
    low_px, high_px = np.clip(low_px, 0, limit_px), np.clip(high_px, 0, limit_px)
    if (high_px <= low_px).any():
        return low_px, _BLACK
    part = cut_out(image, low_px, high_px, level)
    for _ in range(level):
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = np.asarray(cv2.resize(part, half, interpolation=cv2.INTER_AREA), np.uint8)
    return low_px, part
