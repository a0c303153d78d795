"""Sampling what virtual cameras see, by OpenCV: quick, to a 32nd of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.crop.light import (
    GAMMA,
    THREADS,
    corner_aligned_scaling,
    decoded_region,
    pyramid_level,
)
from metrabs_ros.crop.virtual import VirtualCameras, apply_homographies

_NO_MAP = np.zeros(0, np.float32)


def sample_crops(
    image: ImageArray, camera: Camera, virtual: VirtualCameras, antialias_factor: int = 1
) -> NDArray[np.float32]:
    """
    Sample what virtual cameras see from the image of the real one.

    Light is averaged, not code values: the image is gamma-decoded before it is sampled and
    encoded again after.  Small crops of large people are sampled from a pyramid of halved images.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    camera
        The real camera.
    virtual
        The N virtual ones.
    antialias_factor
        Crops are sampled this many times as large and averaged down.

    Returns
    -------
    [N, side, side, 3], from 0 to 1, black where the image has nothing.
    """
    crops = np.zeros((len(virtual.scale), virtual.side_px, virtual.side_px, 3), np.float32)

    def sample(i: int) -> None:
        linear = _sample_crop(
            image,
            camera,
            virtual.rotation[i],
            virtual.intrinsic_matrix[i],
            virtual.side_px,
            virtual.scale[i],
            antialias_factor,
        )
        # Rounding in the averages can leave a value just below 0, which has no power.
        cv2.pow(np.maximum(linear, 0), 1 / GAMMA, dst=crops[i])

    # The work is done in OpenCV, which lets other threads run meanwhile.
    list(THREADS.map(sample, range(len(crops))))
    return crops


def _sample_crop(
    image: ImageArray,
    camera: Camera,
    rotation: FloatArray,
    intrinsics: FloatArray,
    side_px: int,
    scale: float,
    antialias_factor: int,
) -> NDArray[np.float32]:
    """Sample one crop in linear light, [side, side, 3]."""
    level = int(pyramid_level(np.array(scale * antialias_factor)))
    large_px = side_px * antialias_factor
    to_large = corner_aligned_scaling(antialias_factor)
    to_level = corner_aligned_scaling(0.5**level)
    to_camera = np.linalg.inv(to_large @ intrinsics @ rotation)
    if len(camera.distortion_coeffs):
        source = _distorted_map(to_camera, camera, to_level, large_px)
        corners = source.reshape(-1, 2)
    else:
        homography = to_level @ camera.intrinsic_matrix @ to_camera
        corners = apply_homographies(homography[None], _corners(large_px)[None])[0]
    origin, region = decoded_region(image, corners, level)
    if not region.size:
        return np.zeros((side_px, side_px, 3), np.float32)
    if len(camera.distortion_coeffs):
        shifted = (source - origin).astype(np.float32)
        large = cv2.remap(region, shifted, _NO_MAP, cv2.INTER_LINEAR)
    else:
        shift = np.array([[1, 0, -origin[0]], [0, 1, -origin[1]], [0, 0, 1]])
        large = cv2.warpPerspective(
            region,
            shift @ homography,
            (large_px, large_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
    if antialias_factor > 1:
        large = cv2.resize(large, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(large, np.float32)


def _distorted_map(
    to_camera: FloatArray, camera: Camera, to_level: FloatArray, side_px: int
) -> FloatArray:
    """Return the image pixel [side, side, 2] of each crop pixel, lens distortion applied."""
    make_map = (
        cv2.fisheye.initUndistortRectifyMap if camera.fisheye else cv2.initUndistortRectifyMap
    )
    normalised = make_map(
        np.eye(3),
        camera.distortion_coeffs,
        np.eye(3),
        np.linalg.inv(to_camera),
        (side_px, side_px),
        cv2.CV_32FC1,
    )
    to_pixels = to_level @ camera.intrinsic_matrix
    return np.stack(normalised, axis=-1) @ to_pixels[:2, :2].T + to_pixels[:2, 2]


def _corners(side_px: int) -> FloatArray:
    last = side_px - 1.0
    return np.array([[0, 0], [last, 0], [last, last], [0, last]])
