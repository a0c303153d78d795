"""Images as light: gamma, and the pyramid of halved images."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray

GAMMA = 2.2
PYRAMID_LEVELS = 3
FAR_OUTSIDE_PX = 1e6
"""Nothing is looked at farther from the image than this."""
THREADS = concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'crops')
"""For work on one person each, most of it in libraries that let other threads run."""

_DECODED = (np.arange(256, dtype=np.float32) / 255) ** GAMMA


def corner_aligned_scaling(factor: float) -> FloatArray:
    """Return the [3, 3] pixel transform of a resize that keeps the image's outer edges."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])


def pyramid_level(scale: FloatArray) -> NDArray[np.int64]:
    """Return from which level to sample, [N], for so many crop pixels to an image pixel, [N]."""
    return np.clip(np.floor(-np.log2(scale)), 0, PYRAMID_LEVELS - 1).astype(np.int64)


def cut_out(
    image: ImageArray, low: NDArray[np.int64], high: NDArray[np.int64], level: int
) -> ImageArray:
    """Return a part of an image, [h, w, 3], uint8, given as for `decoded`."""
    (left, top), (right, bottom) = (low << level).tolist(), (high << level).tolist()
    part = image[top:bottom, left:right]
    if part.strides[2] < 0:
        import cv2

        # A message's channels in reverse: a copy of such a view takes several times as long.
        return np.asarray(cv2.cvtColor(part[..., ::-1], cv2.COLOR_BGR2RGB), np.uint8)
    return part


def decoded(
    image: ImageArray, low: NDArray[np.int64], high: NDArray[np.int64], level: int
) -> NDArray[np.float32]:
    """
    Gamma-decode a part of an image at a level of its pyramid.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    low, high
        [2], the part's upper left pixel at that level, and its end beyond the lower right one.
    level
        How often the image is halved.

    Returns
    -------
    [h, w, 3], from 0 to 1.
    """
    import cv2

    linear_rgb = cv2.LUT(cut_out(image, low, high, level), _DECODED)
    for _ in range(level):
        half = (linear_rgb.shape[1] // 2, linear_rgb.shape[0] // 2)
        # Of just half the size, that is the mean of four, and quicker than INTER_AREA.
        linear_rgb = cv2.resize(linear_rgb, half, interpolation=cv2.INTER_LINEAR)
    return np.asarray(linear_rgb, np.float32)
