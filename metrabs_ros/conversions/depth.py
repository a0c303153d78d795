"""Convert depth messages to depth images with their camera."""

from __future__ import annotations

from typing import Any

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.depth_images import decompress_depth, to_depth
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.placement.depth_image import DepthImage


def to_depth_image(
    message: Any, image_shape: tuple[int, ...], camera: Camera, info: Any = None
) -> DepthImage:
    """
    Convert a depth message that is registered to a colour image.

    Parameters
    ----------
    message
        A sensor_msgs/Image, or a CompressedImage of compressed_depth_image_transport.
    image_shape
        Height and width of the colour image; further entries are ignored.
    camera
        Camera of the colour image.
    info
        CameraInfo of the depth image; needed only if its size differs from that of the colour
        image.

    Raises
    ------
    UnusableInput
        If the message is not a valid depth image, its CameraInfo is not valid, or the size
        differs and there is no CameraInfo.
    """
    depth_mm = to_depth(message) if hasattr(message, 'encoding') else decompress_depth(message)
    if depth_mm.shape == tuple(image_shape[:2]):
        return DepthImage(depth_mm, camera)
    if info is None:
        (height, width), (image_height, image_width) = depth_mm.shape, image_shape[:2]
        raise UnusableInput(
            'depth size',
            f'depth is {width} x {height}, image is {image_width} x {image_height}, no '
            'CameraInfo for depth',
        )
    return DepthImage(depth_mm, to_camera(info, depth_mm.shape))
