"""Convert depth images to distances along the optical axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.placement.depth_image import DepthImage


def to_depth_image(
    message: Any, image_shape: tuple[int, ...], camera: Camera, info: Any = None
) -> DepthImage:
    """
    Convert a sensor_msgs/Image in encoding 16UC1 or 32FC1.

    Parameters
    ----------
    message
        The depth image, registered to the colour image.
    image_shape
        Height and width of the colour image.
    camera
        Camera of the colour image.
    info
        CameraInfo of the depth image; needed if its size differs from that of the colour image.

    Raises
    ------
    UnusableInput
        If the message is not a valid depth image, or the size differs and there is no CameraInfo.
    """
    kinds = {'16UC1': np.uint16, '32FC1': np.float32}
    kind = kinds.get(getattr(message, 'encoding', ''))
    if kind is None:
        raise UnusableInput(
            'depth encoding', f'the depth image has encoding {printable(message.encoding)}'
        )
    height, width, step = message.height, message.width, message.step
    row_bytes = width * np.dtype(kind).itemsize
    if not height or not width or step < row_bytes or len(message.data) < height * step:
        raise UnusableInput('depth data', f'a depth image of {width} x {height} lacks data')
    data = np.frombuffer(message.data, np.uint8, count=height * step).reshape(height, step)
    values = np.ascontiguousarray(data[:, :row_bytes]).view(kind)
    depth_mm = values if kind is np.uint16 else 1000 * values
    if (height, width) != image_shape[:2]:
        if info is None:
            raise UnusableInput(
                'depth size',
                f'depth is {width} x {height}, image is {image_shape[1]} x {image_shape[0]}, no '
                'CameraInfo for depth',
            )
        camera = to_camera(info, (height, width))
    return DepthImage(depth_mm, camera)
