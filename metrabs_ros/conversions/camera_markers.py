"""Markers of cameras: view frustums, and rays to the people that they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.markers import LINE_LIST
from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.conversions.people import to_metres

FRUSTUM_DEPTH_MM = 400.0
LINE_WIDTH_M, RAY_WIDTH_M = 0.01, 0.005
COLOR, RAY_COLOR = (0.2, 0.6, 1.0, 1.0), (1.0, 0.8, 0.2, 0.4)
"""Red, green, blue and opacity."""
FRUSTUM_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))
"""Pairs of the camera centre (0) and the corners of the image (1 to 4)."""


def frustum_mm(camera: Camera, image_shape: tuple[int, ...]) -> FloatArray:
    """Return the camera centre and the corners of its image at some depth, [5, 3], world frame."""
    height, width = image_shape[:2]
    corners_px = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
    corners_mm = FRUSTUM_DEPTH_MM * camera.unproject(corners_px)
    in_camera_mm = np.concatenate([np.zeros((1, 3)), corners_mm])
    return camera.to_world(in_camera_mm)


def frustum_marker(
    cameras: Mapping[str, tuple[Camera, tuple[int, ...]]], header: Any, types: MessageTypes
) -> Any:
    """
    Return a marker with the frustums of cameras.

    Parameters
    ----------
    cameras
        Cameras with their poses in the frame of the header, and shapes of their images, by name.
    header
        Header of the marker.
    types
        Constructors of the message types.
    """
    points_mm = [
        frustum_mm(camera, shape)[list(edge)]
        for camera, shape in cameras.values()
        for edge in FRUSTUM_EDGES
    ]
    return _lines(points_mm, 'cameras', LINE_WIDTH_M, COLOR, header, types)


def ray_marker(
    centres_mm: FloatArray,
    positions_mm: FloatArray,
    seen_by: BoolArray,
    header: Any,
    types: MessageTypes,
) -> Any:
    """
    Return a marker with lines from cameras to people.

    Parameters
    ----------
    centres_mm
        [C, 3], centres of the cameras; those that are not finite have no lines.
    positions_mm
        [N, 3], positions of the people.
    seen_by
        [N, C], which cameras see which people.
    header
        Header of the marker.
    types
        Constructors of the message types.
    """
    points_mm = [np.stack([centres_mm[c], positions_mm[n]]) for n, c in np.argwhere(seen_by)]
    return _lines(points_mm, 'rays', RAY_WIDTH_M, RAY_COLOR, header, types)


def _lines(
    pairs_mm: Sequence[FloatArray],
    namespace: str,
    width_m: float,
    color: tuple[float, ...],
    header: Any,
    types: MessageTypes,
) -> Any:
    """Return a marker with lines between pairs [2, 3] of points that are finite."""
    finite = [pair_mm for pair_mm in pairs_mm if np.isfinite(pair_mm).all()]
    points_m = to_metres(np.array(finite).reshape(-1, 3)).tolist()
    red, green, blue, opacity = color
    marker = types.Marker(
        header=header,
        ns=namespace,
        type=LINE_LIST,
        points=[types.Point(x=x, y=y, z=z) for x, y, z in points_m],
        color=types.ColorRGBA(r=red, g=green, b=blue, a=opacity),
    )
    marker.scale.x = width_m
    marker.pose.orientation.w = 1.0
    return marker
