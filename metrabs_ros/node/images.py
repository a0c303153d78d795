"""From image messages to arrays."""

from __future__ import annotations

import cv2
import numpy as np
from cv_bridge import CvBridge
from sensor_msgs.msg import CompressedImage, Image

from metrabs_ros.arrays import ImageArray
from metrabs_ros.node.drops import UnusableInput

LARGEST_SIDE_PX = 16384

_BRIDGE = CvBridge()
# What drivers call by its type only is in OpenCV's order.
_MEANT_BY = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC1': 'mono16'}
_CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Of the encodings that need no copy."""
_ROWS = {'nv21': 1.5, 'nv24': 3.0}
"""Rows of data to a row of pixels where colours have a plane of their own."""


def to_rgb(message: Image) -> ImageArray:
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
    try:
        return _BRIDGE.imgmsg_to_cv2(_renamed(message, encoding), 'rgb8')
    # A CvBridgeError is a TypeError, and the compiled cv_bridge raises other kinds, too.
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(
            f'image encoding {message.encoding[:32]}',
            f'an image in encoding {message.encoding[:32]!r} cannot be turned into rgb8: {error}',
        ) from error


def decompressed(message: CompressedImage) -> ImageArray:
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


def _view(message: Image, channels: int, blue_first: bool) -> ImageArray:
    """View the message's data as RGB, whatever the order of its channels."""
    height, width, step = message.height, message.width, message.step
    if step < channels * width:
        raise UnusableInput(
            'image data',
            f'the image has rows of {step} bytes, but {width} pixels of {channels} bytes make '
            f'{channels * width}; the camera driver sends broken messages',
        )
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    pixels = data[:, : channels * width].reshape(height, width, channels)
    if channels == 1:
        return np.broadcast_to(pixels, (height, width, 3))
    return pixels[..., 2::-1] if blue_first else pixels[..., :3]


def _from_semi_planar(message: Image, encoding: str) -> ImageArray:
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


def _renamed(message: Image, encoding: str) -> Image:
    """Return the same image under another encoding's name; the data is shared."""
    renamed = Image()
    renamed.header = message.header
    renamed.height, renamed.width, renamed.step = message.height, message.width, message.step
    renamed.is_bigendian = message.is_bigendian
    renamed.encoding = encoding
    renamed.data = message.data
    return renamed
