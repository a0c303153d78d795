"""Image pyramid in linear RGB: gamma decoding and repeated halving."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray

GAMMA = 2.2
"""Assumed exponent between linear RGB and pixel values."""
PYRAMID_LEVELS = 3
MAX_COORDINATE_PX = 1e6
"""Limit of the image coordinates that crops are sampled at."""
THREAD_POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'crops')
"""Thread pool for tasks of one person each, most of them in libraries that release the GIL."""

_LINEAR_RGB_LUT = (np.arange(256, dtype=np.float32) / 255) ** GAMMA


def corner_aligned_scaling(factor: float) -> FloatArray:
    """Return the [3, 3] pixel transform of a resize that keeps the outer edges of the image."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])


def pyramid_level(scale: FloatArray) -> NDArray[np.int64]:
    """Return the pyramid level [N] to sample from, for crop pixels per image pixel [N]."""
    return np.clip(np.floor(-np.log2(scale)), 0, PYRAMID_LEVELS - 1).astype(np.int64)


def extract_part(
    image: ImageArray, low: NDArray[np.int64], high: NDArray[np.int64], level: int
) -> ImageArray:
    """Return a part of an image, [h, w, 3], uint8; parameters as in `decode_part`."""
    (left, top), (right, bottom) = (low << level).tolist(), (high << level).tolist()
    part = image[top:bottom, left:right]
    if part.strides[2] < 0:
        import cv2

        # A view of a BGR image: NumPy takes several times as long to copy it.
        return np.asarray(cv2.cvtColor(part[..., ::-1], cv2.COLOR_BGR2RGB), np.uint8)
    return part


def decode_part(
    image: ImageArray, low: NDArray[np.int64], high: NDArray[np.int64], level: int
) -> NDArray[np.float32]:
    """
    Convert a part of an image to linear RGB at a level of its pyramid.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    low, high
        [2], upper left pixel of the part at that level, and exclusive end at the lower right.
    level
        Number of times that the image is halved.

    Returns
    -------
    [h, w, 3], linear RGB from 0 to 1.
    """
    import cv2

    linear_rgb = cv2.LUT(extract_part(image, low, high, level), _LINEAR_RGB_LUT)
    for _ in range(level):
        half = (linear_rgb.shape[1] // 2, linear_rgb.shape[0] // 2)
        # At exactly half the size this is the mean of four pixels, and faster than INTER_AREA.
        linear_rgb = cv2.resize(linear_rgb, half, interpolation=cv2.INTER_LINEAR)
    return np.asarray(linear_rgb, np.float32)
