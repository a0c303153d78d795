"""From sensor_msgs/Image and CompressedImage to arrays."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import ImageArray
from metrabs_ros.messages.unusable import UnusableInput

LARGEST_SIDE_PX = 16384

# What drivers call by its type only is in OpenCV's order.
_MEANT_BY = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC1': 'mono16'}
_CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Of the encodings that need no copy."""
_ROWS = {'nv21': 1.5, 'nv24': 3.0}
"""Rows of data to a row of pixels where colours have a plane of their own."""
_CONVERTED: dict[str, tuple[type, int, int]] = {
    'mono16': (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (np.uint16, 3, cv2.COLOR_RGB2RGBA),
    'bgr16': (np.uint16, 3, cv2.COLOR_BGR2RGBA),
    'rgba16': (np.uint16, 4, cv2.COLOR_RGBA2RGB),
    'bgra16': (np.uint16, 4, cv2.COLOR_BGRA2RGB),
    'yuv422': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    **{
        f'bayer_{first_rows}{bits}': (kind, 1, code)
        for bits, kind in ((8, np.uint8), (16, np.uint16))
        # OpenCV names them by the second row's second and third pixel.
        for first_rows, code in (
            ('rggb', cv2.COLOR_BayerBG2RGB),
            ('bggr', cv2.COLOR_BayerRG2RGB),
            ('gbrg', cv2.COLOR_BayerGR2RGB),
            ('grbg', cv2.COLOR_BayerGB2RGB),
        )
    },
}
"""Of what OpenCV converts: the type of its numbers, how many make a pixel, and how."""


def to_rgb(message: Any) -> ImageArray:
    """
    Return a message's image as RGB.

    Parameters
    ----------
    message
        In any encoding that has colours or grey.

    Returns
    -------
    [H, W, 3], uint8.  For the common 8-bit encodings it is a view of the message's data.

    Raises
    ------
    UnusableInput
        If the message does not hold what it says, or its encoding is not known.
    """
    height, width, step = message.height, message.width, message.step
    _refuse_odd_sizes(height, width)
    encoding = _MEANT_BY.get(message.encoding, message.encoding)
    rows = _ROWS.get(encoding, 1.0) * height
    if len(message.data) < rows * step:
        raise UnusableInput(
            'image data',
            f'the image has {len(message.data)} bytes of data, but {rows:g} rows of {step} bytes '
            f'make {rows * step:g}; the camera driver sends broken messages',
        )
    if encoding in _CHANNELS:
        return _view(message, _CHANNELS[encoding], blue_first=encoding.startswith('bgr'))
    if encoding in _ROWS:
        return _from_semi_planar(message, encoding)
    if encoding in _CONVERTED:
        return _converted(message, encoding)
    raise UnusableInput(
        f'image encoding {message.encoding[:32]}',
        f'an image in encoding {message.encoding[:32]!r} cannot be turned into rgb8; known are '
        f'{", ".join([*_CHANNELS, *_ROWS, *_CONVERTED])}',
    )


def decompressed(message: Any) -> ImageArray:
    """
    Return a jpeg's or png's image as RGB, [H, W, 3], uint8.

    Raises
    ------
    UnusableInput
        If the data is no picture.
    """
    # A calibration is of the pixels as they were taken, whatever the file says of their turn.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    data = np.frombuffer(message.data, np.uint8)
    try:
        image = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise UnusableInput(
            'compressed image',
            f'{len(data)} bytes of format {message.format[:32]!r} are no jpeg and no png picture',
        )
    _refuse_odd_sizes(*image.shape[:2])
    return np.asarray(image[..., ::-1], np.uint8)


def _refuse_odd_sizes(height: int, width: int) -> None:
    if not 0 < height <= LARGEST_SIDE_PX or not 0 < width <= LARGEST_SIDE_PX:
        raise UnusableInput(
            'image size',
            f'the image is {width} x {height} pixels; from 1 to {LARGEST_SIDE_PX} a side can be '
            'worked on',
        )


def _view(message: Any, channels: int, blue_first: bool) -> ImageArray:
    """View the message's data as RGB, whatever the order of its channels."""
    height, width, step = message.height, message.width, message.step
    if step < channels * width:
        raise _too_narrow(message, channels * width)
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    pixels = data[:, : channels * width].reshape(height, width, channels)
    if channels == 1:
        return np.broadcast_to(pixels, (height, width, 3))
    return pixels[..., 2::-1] if blue_first else pixels[..., :3]


def _from_semi_planar(message: Any, encoding: str) -> ImageArray:
    """Convert a plane of brightness followed by one of interleaved V and U (NV21) or U and V."""
    height, width, step = message.height, message.width, message.step
    if step < width or (encoding == 'nv21' and (height % 2 or width % 2)):
        raise UnusableInput(
            'image data',
            f'an image in encoding {encoding} cannot be {width} x {height} pixels with rows of '
            f'{step} bytes',
        )
    data = np.frombuffer(message.data, np.uint8)
    if encoding == 'nv21':
        planes = data[: 3 * height // 2 * step].reshape(-1, step)[:, :width]
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(planes), cv2.COLOR_YUV2RGB_NV21))
    brightness = data[: height * step].reshape(height, step)[:, :width]
    colours = data[height * step : 3 * height * step].reshape(height, 2 * step)[:, : 2 * width]
    u, v = colours[:, 0::2].astype(np.int32) - 128, colours[:, 1::2].astype(np.int32) - 128
    # BT.601 with a limited range, as OpenCV converts the packed and subsampled formats.
    level = 1.164 * (np.maximum(brightness.astype(np.int32), 16) - 16)
    rgb = np.stack([level + 1.596 * v, level - 0.813 * v - 0.391 * u, level + 2.018 * u], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _converted(message: Any, encoding: str) -> ImageArray:
    """Convert with OpenCV, 16 bits to the upper 8 of them."""
    kind, channels, code = _CONVERTED[encoding]
    height, width, step = message.height, message.width, message.step
    used = channels * width * np.dtype(kind).itemsize
    if step < used:
        raise _too_narrow(message, used)
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    pixels: NDArray[Any] = (
        np.ascontiguousarray(data[:, :used]).view(kind).reshape(height, width, channels)
    )
    if kind is np.uint16:
        pixels = cv2.convertScaleAbs(_in_own_order(message, pixels), alpha=1 / 257)
    try:
        image = cv2.cvtColor(pixels.reshape(height, width, channels), code)
    except cv2.error as error:
        raise UnusableInput(
            'image data',
            f'an image in encoding {encoding} cannot be {width} x {height} pixels ({error.err})',
        ) from error
    return np.asarray(image[..., :3], np.uint8)


def _in_own_order(message: Any, pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return 16-bit numbers in this machine's order of bytes."""
    is_own = bool(message.is_bigendian) == (sys.byteorder == 'big')
    return pixels if is_own else pixels.byteswap()


def _too_narrow(message: Any, used: int) -> UnusableInput:
    return UnusableInput(
        'image data',
        f'the image has rows of {message.step} bytes, but {message.width} pixels of '
        f'{used // message.width} bytes make {used}; the camera driver sends broken messages',
    )
