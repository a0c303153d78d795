"""From CameraInfo messages to cameras."""

from __future__ import annotations

from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.crop.light import corner_aligned_scaling
from metrabs_ros.messages.unusable import UnusableInput

PINHOLE_LENSES = ('', 'plumb_bob', 'rational_polynomial', 'none')
FISHEYE_LENSES = ('equidistant', 'fisheye')
TILTED_LENGTH = 14


def to_camera(info: Any, image_shape: tuple[int, ...], rectified: bool = False) -> Camera:
    """
    Return the camera that a message describes, for an image that came with it.

    Region of interest and binning are taken into account.  An image of another size but the same
    aspect was resized: the intrinsics are scaled.

    Parameters
    ----------
    info
        The calibration.
    image_shape
        Height and width of the image, further entries are ignored.
    rectified
        Whether the image was rectified: P then holds, and there is no distortion.

    Raises
    ------
    UnusableInput
        If the camera is not calibrated, or not for such images, or its lens model is not known.
    """
    matrix = np.array(info.p if rectified else info.k, np.float64).reshape(3, -1)[:, :3]
    if not matrix.any():
        raise UnusableInput(
            'camera not calibrated',
            f"the camera_info's {'P' if rectified else 'K'} is all zeros, so the camera is not "
            'calibrated; calibrate it, for example with the package camera_calibration, or set '
            'default_fov_degrees for a guess',
        )
    fisheye = not rectified and info.distortion_model in FISHEYE_LENSES
    if not (rectified or fisheye or info.distortion_model in PINHOLE_LENSES):
        raise UnusableInput(
            'lens model',
            f'the camera_info has lens model {info.distortion_model!r}; known are plumb_bob, '
            'rational_polynomial and equidistant',
        )
    coeffs = np.zeros(0) if rectified else np.array(info.d, np.float64)
    if len(coeffs) == TILTED_LENGTH:
        if coeffs[12:].any():
            raise UnusableInput(
                'lens model',
                f'the camera_info has a tilted sensor (D ends in {coeffs[12:].tolist()}), which '
                'is not known here; calibrate without it',
            )
        coeffs = coeffs[:12]
    with np.errstate(invalid='ignore'):
        intrinsics = _to_image(info, image_shape) @ matrix
    try:
        return Camera(intrinsics, coeffs, fisheye=fisheye)
    except ValueError as error:
        raise UnusableInput(
            'camera_info', f'the camera_info cannot be a camera: {error}'
        ) from error


def _to_image(info: Any, image_shape: tuple[int, ...]) -> FloatArray:
    """Return what takes pixels of the whole sensor to those of the image, [3, 3]."""
    height, width = image_shape[:2]
    binning = np.maximum((info.binning_x, info.binning_y), 1)
    roi = info.roi
    has_roi = roi.width > 0 and roi.height > 0
    # A region of interest may cover the sensor and yet start at 0, 0.
    size = (roi.width, roi.height) if has_roi else (info.width, info.height)
    shift = np.eye(3)
    if has_roi:
        shift[:2, 2] = -roi.x_offset, -roi.y_offset
    expected_px = np.array(size) / binning
    if not all(size):
        return scaling_about_corner(1 / binning) @ shift
    # Of the same aspect up to a rounded pixel.
    if abs(width * expected_px[1] - height * expected_px[0]) > 1.01 * max(expected_px):
        raise UnusableInput(
            'camera_info size',
            f'the image is {width} x {height} pixels, but its camera_info is for '
            f'{expected_px[0]:g} x {expected_px[1]:g}; they must come from the same stage of the '
            'camera driver',
        )
    return scaling_about_corner(np.array([width, height]) / np.array(size)) @ shift


def scaling_about_corner(factors: FloatArray) -> FloatArray:
    """Return the [3, 3] pixel transform of a resize in x and y that keeps the outer edges."""
    scaling = np.eye(3)
    for axis, factor in enumerate(factors):
        scaling[axis, [axis, 2]] = corner_aligned_scaling(float(factor))[0, [0, 2]]
    return scaling
