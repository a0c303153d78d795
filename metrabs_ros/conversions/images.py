"""Convert sensor_msgs/Image and CompressedImage messages to RGB arrays."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import JPEG_START, PNG_SIGNATURE, check_image_size, image_size

MAX_SIDE_PX = 16384
MAX_PIXELS = 50_000_000
"""Default of the maximum number of pixels: three 16-megapixel images, 150 MB as RGB."""
JPEG_SCAN, JPEG_END = b'\xff\xda', b'\xff\xd9'
PNG_END = b'IEND'
MAX_PNG_CHUNKS = 10_000
MAX_JPEG_SCANS = 64
MAX_SCANS_AT_MAX_PIXELS = 12
"""Maximum number of scans of an image with the maximum number of pixels.  A typical progressive
JPEG has about ten.  The decoder processes the whole image once per scan, independent of the size
of the scan, so that the product of scans and pixels is limited: smaller images may have more."""
CHUNK_ROWS = 64
"""Number of rows that are converted at once.  The floating-point intermediates are ten times as
large as the image."""

# Encodings that state only the type use the channel order of OpenCV.
_ENCODING_ALIASES = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC1': 'mono16'}
_CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Number of channels of the encodings that are converted without a copy."""
_ROWS = {'nv21': 1.5, 'nv24': 3.0}
"""Rows of data per row of pixels of the encodings with a separate chroma plane."""
_CONVERSIONS: dict[str, tuple[type, int, int]] = {
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
        # OpenCV names Bayer patterns by the second and third pixel of the second row.
        for first_rows, code in (
            ('rggb', cv2.COLOR_BayerBG2RGB),
            ('bggr', cv2.COLOR_BayerRG2RGB),
            ('gbrg', cv2.COLOR_BayerGR2RGB),
            ('grbg', cv2.COLOR_BayerGB2RGB),
        )
    },
}
"""Element type, elements per pixel and OpenCV conversion code of the other encodings."""


def declared_shape(message: Any, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """
    Return the height and width that a sensor_msgs/Image declares.

    Raises
    ------
    UnusableInput
        If the image is empty or too large.
    """
    _check_size(message.height, message.width, max_pixels)
    return message.height, message.width


def compressed_shape(message: Any, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """
    Return the height and width in the header of the data of a CompressedImage.

    The image is not decoded, because a file of 1 kB can declare an image of several gigabytes.

    Raises
    ------
    UnusableInput
        If the data is not JPEG or PNG, or the image is empty or too large.
    """
    data = bytes(message.data)
    # OpenCV decodes further formats, which compressed_image_transport does not use.
    is_known = data.startswith((JPEG_START, PNG_SIGNATURE))
    size = image_size(data) if is_known else None
    if size is None:
        raise _decoding_error(message)
    width, height = size
    _check_size(height, width, max_pixels)
    scans = data.count(JPEG_SCAN) if data.startswith(JPEG_START) else 0
    limit = min(MAX_JPEG_SCANS, MAX_SCANS_AT_MAX_PIXELS * max_pixels // (width * height))
    if scans > limit:
        raise UnusableInput(
            'compressed image',
            f'the JPEG image of {width} x {height} pixels has {scans} scans, more than the limit '
            f'of {limit} for this size',
        )
    return height, width


def convert_with_opencv(message: Any, encoding: str) -> ImageArray:
    """
    Convert an image in an encoding that is not a view of RGB; 16 bits are scaled to 8 bits.

    Parameters
    ----------
    message
        A sensor_msgs/Image with sufficient data and rows of sufficient length.
    encoding
        Its encoding, with the channel order.

    Returns
    -------
    [H, W, 3], uint8.

    Raises
    ------
    UnusableInput
        If the encoding does not allow images of this size.
    """
    dtype, channels, code = _CONVERSIONS[encoding]
    height, width, step = message.height, message.width, message.step
    row_bytes = _row_bytes(encoding, width)
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    pixels: NDArray[Any] = (
        np.ascontiguousarray(data[:, :row_bytes]).view(dtype).reshape(height, width, channels)
    )
    if dtype is np.uint16:
        pixels = cv2.convertScaleAbs(_to_native_byte_order(message, pixels), alpha=1 / 257)
    try:
        image = cv2.cvtColor(pixels.reshape(height, width, channels), code)
    except cv2.error as error:
        raise UnusableInput(
            'image data',
            f'an image in encoding {encoding} cannot be {width} x {height} pixels ({error.err})',
        ) from error
    return np.asarray(image[..., :3], np.uint8)


def to_rgb(
    message: Any,
    max_pixels: int = MAX_PIXELS,
    convert: Callable[[Any, str], ImageArray] = convert_with_opencv,
) -> ImageArray:
    """
    Convert a sensor_msgs/Image to RGB.

    Parameters
    ----------
    message
        A sensor_msgs/Image in a color or grayscale encoding.
    max_pixels
        Maximum number of pixels.
    convert
        Converts images that are not a view of RGB; see `convert_with_opencv`.

    Returns
    -------
    ImageArray
        [H, W, 3], uint8.  For the common 8-bit encodings it is a view of the message data.

    Raises
    ------
    UnusableInput
        If the message is inconsistent, the encoding is not supported or the image is too large.
    """
    height, _ = declared_shape(message, max_pixels)
    step = message.step
    encoding = _ENCODING_ALIASES.get(message.encoding, message.encoding)
    rows = _ROWS.get(encoding, 1.0) * height
    if len(message.data) < rows * step:
        raise UnusableInput(
            'image data',
            f'the image has {len(message.data)} bytes of data, but {rows:g} rows of {step} bytes '
            f'need {rows * step:g}; correct the camera driver',
        )
    if encoding in _CHANNELS:
        return _view_as_rgb(message, _CHANNELS[encoding], blue_first=encoding.startswith('bgr'))
    if encoding in _ROWS:
        return _from_semi_planar(message, encoding)
    if encoding in _CONVERSIONS:
        row_bytes = _row_bytes(encoding, message.width)
        if step < row_bytes:
            raise _step_error(message, row_bytes)
        return convert(message, encoding)
    raise UnusableInput(
        'image encoding',
        f"an image in encoding '{printable(message.encoding, 32)}' cannot be converted to rgb8; "
        f'supported are {", ".join([*_CHANNELS, *_ROWS, *_CONVERSIONS])}',
    )


def decompress(message: Any, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """
    Decode a CompressedImage to RGB, [H, W, 3], uint8.

    Raises
    ------
    UnusableInput
        If the data is not a valid JPEG or PNG image, or the image is too large.
    """
    shape = compressed_shape(message, max_pixels)
    # For damaged images, the decoding libraries would print a line to stderr and fill the missing
    # part with gray.
    if not is_complete_file(bytes(message.data)):
        raise UnusableInput(
            'compressed image',
            f'the compressed image of {len(message.data)} bytes is truncated or damaged',
        )
    # The calibration applies to the original pixel positions, so that the orientation in the
    # metadata must not rotate the image.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != shape:
        raise _decoding_error(message)
    return np.asarray(image[..., ::-1], np.uint8)


def is_complete_file(data: bytes) -> bool:
    """Return whether a JPEG has an end marker, or a PNG has all chunks with valid checksums."""
    if data.startswith(JPEG_START):
        return data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(data):
            return False
        (length,) = struct.unpack_from('>I', data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return False
        chunk = memoryview(data)[position + 4 : end]
        if zlib.crc32(chunk) != struct.unpack_from('>I', data, end)[0]:
            return False
        if chunk[:4] == PNG_END:
            return True
        position = end + 4
    return False


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if not 0 < height <= MAX_SIDE_PX or not 0 < width <= MAX_SIDE_PX:
        raise UnusableInput(
            'image size',
            f'the image is {width} x {height} pixels; each side must be from 1 to '
            f'{MAX_SIDE_PX} pixels',
        )
    try:
        check_image_size(width, height, max_pixels)
    except ValueError as error:
        explanation = f'{error} (parameter max_image_pixels of the node)'
        raise UnusableInput('image size', explanation) from error


def _decoding_error(message: Any) -> UnusableInput:
    return UnusableInput(
        'compressed image',
        f"{len(message.data)} bytes of format '{printable(message.format, 32)}' are not a valid "
        'JPEG or PNG image',
    )


def _view_as_rgb(message: Any, channels: int, blue_first: bool) -> ImageArray:
    """Return the message data as an RGB view, for any order of the channels."""
    height, width, step = message.height, message.width, message.step
    if step < channels * width:
        raise _step_error(message, channels * width)
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    pixels = data[:, : channels * width].reshape(height, width, channels)
    if channels == 1:
        return np.broadcast_to(pixels, (height, width, 3))
    return pixels[..., 2::-1] if blue_first else pixels[..., :3]


def _from_semi_planar(message: Any, encoding: str) -> ImageArray:
    """Convert a luma plane and a plane of interleaved V and U (NV21) or U and V (NV24)."""
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
    luma = data[: height * step].reshape(height, step)[:, :width]
    chroma = data[height * step : 3 * height * step].reshape(height, 2 * step)[:, : 2 * width]
    rgb = np.empty((height, width, 3), np.uint8)
    for row in range(0, height, CHUNK_ROWS):
        rows = slice(row, row + CHUNK_ROWS)
        rgb[rows] = _from_luma_and_chroma(luma[rows], chroma[rows])
    return rgb


def _from_luma_and_chroma(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert Y [H, W] and interleaved U and V [H, 2 W] to RGB [H, W, 3]."""
    u, v = chroma[:, 0::2].astype(np.int32) - 128, chroma[:, 1::2].astype(np.int32) - 128
    # BT.601 with limited range, the same as in OpenCV's conversions of the other YUV formats.
    level = 1.164 * (np.maximum(luma.astype(np.int32), 16) - 16)
    rgb = np.stack([level + 1.596 * v, level - 0.813 * v - 0.391 * u, level + 2.018 * u], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _row_bytes(encoding: str, width: int) -> int:
    """Return the size of a row of pixels without padding."""
    dtype, channels, _ = _CONVERSIONS[encoding]
    return channels * width * np.dtype(dtype).itemsize


def _to_native_byte_order(message: Any, pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert 16-bit elements to the byte order of this machine."""
    is_native = bool(message.is_bigendian) == (sys.byteorder == 'big')
    return pixels if is_native else pixels.byteswap()


def _step_error(message: Any, row_bytes: int) -> UnusableInput:
    return UnusableInput(
        'image data',
        f'the image has rows of {message.step} bytes, but {message.width} pixels of '
        f'{row_bytes // message.width} bytes need {row_bytes}; correct the camera driver',
    )
