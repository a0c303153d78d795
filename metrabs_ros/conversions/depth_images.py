"""
Convert depth images: sensor_msgs/Image (REP 118) and compressed_depth_image_transport.

Message data of the common encoding 16UC1 is not copied.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.images import MAX_PIXELS, MAX_SIDE_PX, is_complete_file
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import PNG_SIGNATURE, check_image_size, image_size
from metrabs_ros.people import MM_PER_M

MILLIMETRES, METRES = '16UC1', '32FC1'
"""Encodings of depth images: unsigned 16-bit integers in millimetres, floats in metres."""
ENCODING, DATA = 'depth encoding', 'depth data'
SIZE, CALIBRATION = 'depth size', 'depth camera_info'
"""Causes of depth images that are not used."""
MAX_OFFSET_NS = 50_000_000
"""Maximum difference between the stamps of an image and its depth image."""
CONFIG_HEADER = struct.Struct('<iff')
"""Header of compressedDepth data: format, and the parameters of the inverse depth."""
PNG_TYPE_OFFSET, PNG_GRAY_16 = 24, b'\x10\x00'
"""Position and value of bit depth and colour type in a PNG file with 16-bit gray values."""

DepthArray = NDArray[np.generic]


def is_registered(depth_frame: str, image_frame: str) -> bool:
    """
    Return whether depth images are registered to images, which have the same TF frame (REP 118).

    A leading slash, as in ROS 1, is ignored.  Images without a frame are assumed to be registered.
    """
    frames = depth_frame.lstrip('/'), image_frame.lstrip('/')
    return frames[0] == frames[1] or not all(frames)


def depth_camera(
    shape: tuple[int, ...],
    image_shape: tuple[int, ...],
    camera: Camera,
    info: Any = None,
    is_rectified: bool = False,
) -> Camera:
    """
    Return the camera of a registered depth image: its own, or that of an image of the same size.

    Parameters
    ----------
    shape, image_shape
        Height and width of the depth image and of the image; further entries are ignored.
    camera
        Camera of the image.
    info
        CameraInfo of the depth image, or None.
    is_rectified
        Whether the depth image is rectified.

    Raises
    ------
    UnusableInput
        If the sizes differ and there is no CameraInfo, or the CameraInfo is not valid.
    """
    (height, width), (image_height, image_width) = shape[:2], image_shape[:2]
    if info is not None:
        try:
            return to_camera(info, shape, is_rectified)
        except UnusableInput as error:
            raise UnusableInput(CALIBRATION, f'camera_info of depth: {error}') from error
    if (height, width) == (image_height, image_width):
        return camera
    raise UnusableInput(
        SIZE,
        f'depth is {width} x {height}, image is {image_width} x {image_height}, no CameraInfo for '
        'depth; publish it next to the depth images',
    )


def to_depth(message: Any, max_pixels: int = MAX_PIXELS) -> DepthArray:
    """
    Convert a sensor_msgs/Image to a depth array.

    Parameters
    ----------
    message
        A sensor_msgs/Image in encoding 16UC1 or 32FC1.
    max_pixels
        Maximum number of pixels.

    Returns
    -------
    [H, W], millimetres, unsigned integers or float32; 0, NaN or infinite for invalid pixels.  With
    16UC1 it is a view of the message data.

    Raises
    ------
    UnusableInput
        If the encoding is not one of depth images, the message is inconsistent or the image is
        too large.
    """
    if message.encoding not in (MILLIMETRES, METRES):
        raise UnusableInput(
            ENCODING,
            f"the depth image has encoding '{printable(message.encoding, 32)}'; supported are "
            f'{MILLIMETRES} in millimetres and {METRES} in metres (REP 118)',
        )
    height, width = message.height, message.width
    _check_size(height, width, max_pixels)
    dtype = np.dtype(np.uint16 if message.encoding == MILLIMETRES else np.float32)
    dtype = dtype.newbyteorder('>' if message.is_bigendian else '<')
    step, size_bytes = message.step, len(message.data)
    if step < width * dtype.itemsize or size_bytes < height * step:
        raise UnusableInput(
            DATA,
            f'the depth image of {width} x {height} pixels in encoding {message.encoding} has '
            f'rows of {step} bytes and {size_bytes} bytes of data; it needs at least '
            f'{width * dtype.itemsize} and {height * width * dtype.itemsize}; correct its '
            'publisher',
        )
    depth: DepthArray = np.ndarray(
        (height, width), dtype, message.data, strides=(step, dtype.itemsize)
    )
    return depth if message.encoding == MILLIMETRES else _metres_to_mm(depth)


def decompress_depth(message: Any, max_pixels: int = MAX_PIXELS) -> DepthArray:
    """
    Decode a sensor_msgs/CompressedImage of compressed_depth_image_transport.

    Parameters
    ----------
    message
        A CompressedImage with the format ``16UC1; compressedDepth png``, or the same with 32FC1.
    max_pixels
        Maximum number of pixels.

    Returns
    -------
    [H, W], millimetres, uint16 or float32; 0 for invalid pixels.

    Raises
    ------
    UnusableInput
        If the format or the codec is not supported, the data is damaged or the image is too large.
    """
    encoding, _, transport = (part.strip() for part in message.format.partition(';'))
    if encoding not in (MILLIMETRES, METRES) or not transport.startswith('compressedDepth'):
        raise UnusableInput(
            ENCODING,
            f"the depth image has format '{printable(message.format, 64)}'; supported are "
            f"'{MILLIMETRES}; compressedDepth png' and '{METRES}; compressedDepth png'",
        )
    if transport.endswith('rvl'):
        raise UnusableInput(
            ENCODING,
            f"the depth image has format '{printable(message.format, 64)}'; RVL is not supported; "
            'set the format of the publisher to png (parameter <topic>.compressedDepth.format), '
            'or set depth_transport to raw',
        )
    data = bytes(message.data)
    shape = _png_shape(data[CONFIG_HEADER.size :], max_pixels)
    values = _decode_png(data[CONFIG_HEADER.size :], shape)
    if encoding == MILLIMETRES:
        return values
    _, scale_m, offset = CONFIG_HEADER.unpack_from(data)
    if not (np.isfinite(scale_m) and np.isfinite(offset)):
        raise UnusableInput(
            DATA, f'the depth image has the depth parameters {scale_m} and {offset}, not finite'
        )
    return _from_inverse_depth(values, scale_m, offset)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if not 0 < height <= MAX_SIDE_PX or not 0 < width <= MAX_SIDE_PX:
        raise UnusableInput(
            DATA,
            f'the depth image is {width} x {height} pixels; each side must be from 1 to '
            f'{MAX_SIDE_PX} pixels',
        )
    try:
        check_image_size(width, height, max_pixels)
    except ValueError as error:
        raise UnusableInput(
            DATA, f'depth: {error} (parameter max_image_pixels of the node)'
        ) from error


def _metres_to_mm(depth_m: DepthArray) -> NDArray[np.float32]:
    """Convert float32 values in any byte order, which may be NaN or infinite."""
    with np.errstate(all='ignore'):
        depth_mm: NDArray[np.float32] = np.multiply(depth_m, MM_PER_M, dtype=np.float32)
    return depth_mm


def _from_inverse_depth(
    values: NDArray[np.uint16], scale_m: float, offset: float
) -> NDArray[np.float32]:
    """Return depth in millimetres: scale / (value - offset), or 0 for the invalid value 0."""
    # The number of different values is limited, so that a table is faster than a division.
    table_mm = np.zeros(2**16, np.float32)
    with np.errstate(all='ignore'):
        inverse = np.arange(1, len(table_mm)) - offset
        depth_mm = MM_PER_M * scale_m / inverse
        is_valid = (depth_mm > 0) & (depth_mm < np.finfo(np.float32).max)
    table_mm[1:][is_valid] = depth_mm[is_valid]
    return table_mm[values]


def _png_shape(png: bytes, max_pixels: int) -> tuple[int, int]:
    """
    Return height and width of a PNG file with 16-bit gray values.

    Raises
    ------
    UnusableInput
        If it is another file, or the image is too large.
    """
    size = image_size(png) if png.startswith(PNG_SIGNATURE) else None
    if size is None or png[PNG_TYPE_OFFSET : PNG_TYPE_OFFSET + 2] != PNG_GRAY_16:
        raise UnusableInput(
            DATA,
            f'{len(png)} bytes of the compressed depth image are not a PNG image with 16 bits per '
            'pixel; set the format of the publisher to png, or set depth_transport to raw',
        )
    width, height = size
    _check_size(height, width, max_pixels)
    return height, width


def _decode_png(png: bytes, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """
    Decode a PNG file with 16-bit gray values, [H, W].

    Raises
    ------
    UnusableInput
        If the file is damaged.
    """
    values = None
    # For damaged files, the decoding library would print a line to stderr.
    if is_complete_file(png):
        try:
            values = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            values = None
    if values is None or values.shape != shape or values.dtype != np.uint16:
        raise UnusableInput(
            DATA, f'{len(png)} bytes of the compressed depth image are truncated or damaged'
        )
    return np.asarray(values, np.uint16)
