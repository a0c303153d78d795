"""From CameraInfo messages to cameras."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from metrabs_ros.camera import Camera
from metrabs_ros.node.drops import UnusableInput

LENS_MODELS = ('', 'plumb_bob', 'rational_polynomial')
TILTED_LENGTH = 14


def to_camera(info: CameraInfo, image_shape: tuple[int, ...]) -> Camera:
    """
    Return the camera that a message describes.

    Parameters
    ----------
    info
        The calibration.
    image_shape
        Height and width of the image that it came with, further entries are ignored.

    Raises
    ------
    UnusableInput
        If the camera is not calibrated, or not for images of this size, or its lens model is not
        known.
    """
    height, width = image_shape[:2]
    if not any(info.k):
        raise UnusableInput(
            'camera not calibrated',
            "the camera_info's K is all zeros, so the camera is not calibrated; calibrate it, for "
            'example with the package camera_calibration',
        )
    if (info.height, info.width) not in ((height, width), (0, 0)):
        raise UnusableInput(
            'camera_info size',
            f'the image is {width} x {height} pixels, but its camera_info is for '
            f'{info.width} x {info.height}; they must come from the same stage of the camera '
            'driver',
        )
    if info.distortion_model not in LENS_MODELS:
        raise UnusableInput(
            'lens model',
            f'the camera_info has lens model {info.distortion_model!r}; known are plumb_bob and '
            'rational_polynomial',
        )
    coeffs = np.array(info.d, np.float64)
    if len(coeffs) == TILTED_LENGTH and not coeffs[12:].any():
        coeffs = coeffs[:12]
    try:
        return Camera(np.array(info.k, np.float64).reshape(3, 3), coeffs)
    except ValueError as error:
        raise UnusableInput(
            'camera_info', f'the camera_info cannot be a camera: {error}'
        ) from error
