"""Convert CameraInfo messages to cameras."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_pyramid import corner_aligned_scaling

UNCALIBRATED = 'camera not calibrated'
"""Cause of images of cameras whose camera_info has no intrinsics."""
PINHOLE_LENSES = ('', 'plumb_bob', 'rational_polynomial', 'none')
FISHEYE_LENSES = ('equidistant', 'fisheye')
MAX_COEFFICIENTS = 14
"""Maximum number of coefficients of a supported lens model (with a tilted sensor)."""
MAX_UPSCALING = 4
"""Maximum ratio of the width of an image to the width in its camera_info."""
MIN_FOCAL_RATIO, MAX_FOCAL_RATIO = 0.003, 1e4
"""Range of the focal length relative to the longer side of the image.  It corresponds to fields of
view of 179.3 degrees and 0.006 degrees."""
MAX_CENTRE_RATIO = 1000
"""Maximum coordinate of the principal point relative to the longer side of the image.  The
principal point can be outside of the image if that is a small region of interest."""
GRID_SIZE = 9
"""Number of test points per axis at which the lens model is inverted."""
MIN_INVERTIBLE_FRACTION = 0.1
"""Minimum fraction of pixels with a viewing ray.  For a circular fisheye image in a wide frame,
it is less than one half."""
MAX_REPROJECTION_RATIO = 1e-3
"""Maximum reprojection error relative to the longer side of the image."""
CACHED_CAMERAS = 32
"""Number of cameras in the cache of validated cameras."""


def to_camera(info: Any, image_shape: tuple[int, ...], rectified: bool = False) -> Camera:
    """
    Create a camera from a CameraInfo message, for an image of the same stamp.

    The region of interest and the binning are applied.  If the image has another size with the
    same aspect ratio, the intrinsics are scaled.

    Parameters
    ----------
    info
        A sensor_msgs/CameraInfo.
    image_shape
        Height and width of the image; further entries are ignored.
    rectified
        Whether the image is rectified.  Then P is used instead of K, and there is no distortion.

    Returns
    -------
    Camera
        The camera, with the optical frame as world frame.

    Raises
    ------
    UnusableInput
        If the camera is not calibrated or calibrated for another image size, the lens model is
        unknown, or the values are not valid for a camera.
    """
    height, width = image_shape[:2]
    check_size(info, height, width)
    matrix = np.array(info.p if rectified else info.k, np.float64).reshape(3, -1)[:, :3]
    if not matrix.any():
        raise UnusableInput(
            UNCALIBRATED,
            f"the camera_info's {'P' if rectified else 'K'} is all zeros, so the camera is not "
            'calibrated; calibrate it, for example with the package camera_calibration',
        )
    fisheye = not rectified and info.distortion_model in FISHEYE_LENSES
    if not (rectified or fisheye or info.distortion_model in PINHOLE_LENSES):
        raise UnusableInput(
            'lens model',
            f"the camera_info has lens model '{printable(info.distortion_model)}'; supported are "
            'plumb_bob, rational_polynomial and equidistant',
        )
    coeffs = np.zeros(0) if rectified else _coeffs(info)
    # Huge values overflow to infinity, which the constructor of Camera rejects.
    with np.errstate(all='ignore'):
        intrinsics = _to_image(info, height, width) @ matrix
    try:
        return _checked_camera(intrinsics.tobytes(), coeffs.tobytes(), fisheye, height, width)
    except ValueError as error:
        raise UnusableInput(
            'camera_info', f'the camera_info is not valid for a camera: {error}'
        ) from error


def check_size(info: Any, height: int, width: int) -> None:
    """
    Check that the size of an image matches a CameraInfo message.

    The image does not have to be decoded for this check.

    Raises
    ------
    UnusableInput
        If the image has another aspect ratio, or is more than `MAX_UPSCALING` times larger.
    """
    size = _region_px(info)
    if not all(size):
        return
    expected_px = np.array(size) / _binning(info)
    # The aspect ratios may differ by the rounding of one pixel.
    is_same_aspect = abs(width * expected_px[1] - height * expected_px[0]) <= 1.01 * max(
        expected_px
    )
    if is_same_aspect and width <= MAX_UPSCALING * np.ceil(expected_px[0]):
        return
    raise UnusableInput(
        'camera_info size',
        f'the image is {width} x {height} pixels, but its camera_info is for '
        f'{expected_px[0]:g} x {expected_px[1]:g}; they must come from the same stage of the '
        'camera driver',
    )


def _coeffs(info: Any) -> FloatArray:
    """
    Return the distortion coefficients of a message, without zeros for the sensor tilt.

    Raises
    ------
    UnusableInput
        If there are more than `MAX_COEFFICIENTS`, or the sensor is tilted.
    """
    # Checked first, because the conversion of a huge D takes time and memory.
    if len(info.d) > MAX_COEFFICIENTS:
        raise UnusableInput(
            'lens model',
            f'the camera_info has {len(info.d)} distortion coefficients (D), more than the limit '
            f'of {MAX_COEFFICIENTS}; calibrate the camera again or correct the camera driver',
        )
    coeffs = np.array(info.d, np.float64)
    if len(coeffs) != MAX_COEFFICIENTS:
        return coeffs
    if coeffs[12:].any():
        raise UnusableInput(
            'lens model',
            f'the camera_info has a tilted sensor (D ends in {coeffs[12:].tolist()}), which is '
            'not supported; calibrate without it',
        )
    return coeffs[:12]


@functools.lru_cache(CACHED_CAMERAS)
def _checked_camera(
    intrinsics: bytes, coeffs: bytes, fisheye: bool, height: int, width: int
) -> Camera:
    """
    Create and validate a camera for images of a given size.

    The messages of a camera are usually identical, so that the result is cached.

    Raises
    ------
    ValueError
        If the values are not valid for a camera with such images.
    """
    # The arrays are copied because torch warns about read-only memory.
    matrix = np.frombuffer(intrinsics, np.float64).reshape(3, 3).copy()
    camera = Camera(matrix, np.frombuffer(coeffs, np.float64).copy(), fisheye=fisheye)
    ((fx, _, cx), (_, fy, cy), _) = camera.intrinsic_matrix.tolist()
    side_px = max(height, width)
    if min(fx, fy) < MIN_FOCAL_RATIO * side_px or max(fx, fy) > MAX_FOCAL_RATIO * side_px:
        raise ValueError(
            f'its focal lengths are {fx:g} and {fy:g} pixels in an image of {width} x {height}'
        )
    if max(abs(cx), abs(cy)) > MAX_CENTRE_RATIO * side_px:
        raise ValueError(
            f'its principal point is {cx:g}, {cy:g} in an image of {width} x {height} pixels'
        )
    invertible = _invertible_fraction(camera, height, width)
    if invertible < MIN_INVERTIBLE_FRACTION:
        raise ValueError(
            f'its distortion coefficients {camera.distortion_coeffs.tolist()} cannot be inverted '
            f'in {1 - invertible:.0%} of the image'
        )
    return camera


def _invertible_fraction(camera: Camera, height: int, width: int) -> float:
    """Return the fraction of image pixels with a viewing ray, from 0 to 1."""
    x, y = np.meshgrid(np.linspace(0, width - 1, GRID_SIZE), np.linspace(0, height - 1, GRID_SIZE))
    points_px = np.stack([x, y], axis=-1).reshape(-1, 2)
    error_px = np.abs(camera.project(1000 * camera.unproject(points_px)) - points_px).max(axis=1)
    return float(np.mean(error_px <= 0.01 + MAX_REPROJECTION_RATIO * max(height, width)))


def image_shape_of(info: Any) -> tuple[int, int]:
    """
    Return height and width of the images of a CameraInfo message.

    Raises
    ------
    UnusableInput
        If the message does not state them.
    """
    width, height = np.ceil(np.array(_region_px(info)) / _binning(info)).astype(int).tolist()
    if width <= 0 or height <= 0:
        raise UnusableInput(
            'camera_info size',
            f'the camera_info is for images of {width} x {height} pixels; the camera driver must '
            'set width and height',
        )
    return height, width


def _region_px(info: Any) -> tuple[int, int]:
    """Return width and height of the sensor region of the image; 0, 0 if they are unknown."""
    roi = info.roi
    # A region of interest of the whole sensor also has offsets of 0.
    if roi.width > 0 and roi.height > 0:
        return roi.width, roi.height
    return info.width, info.height


def _binning(info: Any) -> FloatArray:
    return np.maximum((info.binning_x, info.binning_y), 1).astype(np.float64)


def _to_image(info: Any, height: int, width: int) -> FloatArray:
    """Return the transform [3, 3] from pixels of the whole sensor to pixels of the image."""
    size = _region_px(info)
    shift = np.eye(3)
    if info.roi.width > 0 and info.roi.height > 0:
        shift[:2, 2] = -float(info.roi.x_offset), -float(info.roi.y_offset)
    if not all(size):
        return scaling_about_corner(1 / _binning(info)) @ shift
    return scaling_about_corner(np.array([width, height]) / np.array(size)) @ shift


def scaling_about_corner(factors: FloatArray) -> FloatArray:
    """Return the pixel transform [3, 3] of a resize in x and y that keeps the outer edges."""
    scaling = np.eye(3)
    for axis, factor in enumerate(factors):
        scaling[axis, [axis, 2]] = corner_aligned_scaling(float(factor))[0, [0, 2]]
    return scaling
