"""Virtual cameras for person boxes."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera, undistort, undistort_by_fixed_point
from metrabs_ros.virtual_cameras import VirtualCameras, look_at, project_rays

MIN_SIDE_COSINE = 0.1
"""Minimum cosine of the angle between the rays to the centre and to the side of a box."""


def virtual_cameras_for_boxes(
    boxes_px: FloatArray, camera: Camera, side_px: int
) -> VirtualCameras:
    """
    Return upright virtual cameras that point at box centres, with the boxes filling the crops.

    Parameters
    ----------
    boxes_px
        [N, 4] or more columns: left, top, width, height in pixels.
    camera
        The real camera.
    side_px
        Height and width of the crops.

    Returns
    -------
    N virtual cameras; those of boxes outside the field of view of the lens are not `usable`.
    """
    # Values that overflow result in cameras that are not usable.
    with np.errstate(all='ignore'):
        rays = _box_rays(boxes_px, camera)
        rotation = look_at(rays[:, 0], camera.up)
        projection = camera.intrinsic_matrix @ rotation
        # Height: top minus bottom.  Width: right minus left.
        sides_px = project_rays(projection, rays[:, 1:])
        extent_px = np.linalg.norm(sides_px[:, :2] - sides_px[:, 2:], axis=-1)
        scale = side_px / extent_px.max(axis=1)
        intrinsics = np.tile(np.eye(3), (len(scale), 1, 1))
        intrinsics[:, :2, :2] = camera.intrinsic_matrix[:2, :2] * scale[:, None, None]
    intrinsics[:, :2, 2] = side_px / 2
    return VirtualCameras(rotation, intrinsics, side_px, scale)


def _box_rays(boxes_px: FloatArray, camera: Camera) -> FloatArray:
    """
    Return rays [N, 5, 3] to the centre of each box and to the midpoints of its sides.

    The order of the sides is top, right, bottom, left.
    """
    offsets = np.array([[0.5, 0.5], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]])
    points_px = boxes_px[:, None, :2] + offsets * boxes_px[:, None, 2:4]
    if camera.fisheye:
        return camera.unproject(points_px)
    inverse = np.linalg.inv(camera.intrinsic_matrix)
    distorted = points_px @ inverse[:2, :2].T + inverse[:2, 2]
    points = undistort_by_fixed_point(distorted, camera.distortion_coeffs)
    rays = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    # Near the edge of a strong lens, the iteration diverges for some sides, so that the crop would
    # show all directions.
    unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    is_wrong = (unit * unit[:, :1]).sum(axis=-1) < MIN_SIDE_COSINE
    if is_wrong.any():
        rays[is_wrong, :2] = undistort(distorted[is_wrong], camera.distortion_coeffs)
    return rays
