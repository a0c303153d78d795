"""Detections of a frame set as rays in the world frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, StructOfArrays, masked_median
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.placement.uncertainty import (
    DEPTH_STD,
    LATERAL_STD,
    LOW_CONFIDENCE_FACTOR,
    STATURE_MM,
)

POINT_STD_PX = 1.5
"""Standard deviation of image points that does not depend on the person's size in the image."""
MIN_DISTANCE_MM = 100.0
"""Points nearer to the camera do not count as seen by it."""
MIN_SCALE_STD, MAX_SCALE_STD = 0.02, 0.5
"""Limits of the standard deviation of a monocular pose's distance, as a fraction of it."""


@dataclasses.dataclass(frozen=True)
class Rays(StructOfArrays):
    """
    D detections, with J joints each, of the cameras of a frame set.

    Parameters
    ----------
    camera_index
        [D], index of the camera in the frame set.
    detection_index
        [D], index of the detection in its frame.
    track_ids
        [D], ids of the camera's own tracks.
    time_offset_s
        [D], stamp of the frame minus the common stamp of the set; not positive.
    origins_mm
        [D, 3], positions of the cameras.
    directions
        [D, J, 3], unit vectors towards the joints.
    confidence
        [D, J], 0 for joints that are not seen.
    distances_mm
        [D, J], distances to the joints of the monocular 3D poses; 0 if there are none.
    scale_std
        [D], standard deviations of the monocular poses' scales, as a fraction.
    focal_px
        [D], focal lengths.
    noise
        [D], ratio of the noise of the camera's image points to the expected one.
    """

    camera_index: NDArray[np.intp]
    detection_index: NDArray[np.intp]
    track_ids: NDArray[np.int64]
    time_offset_s: FloatArray
    origins_mm: FloatArray
    directions: FloatArray
    confidence: FloatArray
    distances_mm: FloatArray
    scale_std: FloatArray
    focal_px: FloatArray
    noise: FloatArray

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.camera_index)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which joints are seen, [D, J]."""
        return self.confidence > 0


def rays_of(frames: Sequence[CameraPeople], stamp_s: float, noise: FloatArray) -> Rays:
    """
    Return the detections of a frame set.

    Parameters
    ----------
    frames
        V frames, one or more, in the same skeleton.
    stamp_s
        The common stamp.
    noise
        [V], see `Rays`.
    """
    return Rays.concatenate(
        [_rays_of_frame(i, *own, stamp_s) for i, own in enumerate(zip(frames, noise))]
    )


def _rays_of_frame(index: int, frame: CameraPeople, noise: float, stamp_s: float) -> Rays:
    camera, count = frame.camera, len(frame)
    rays = camera.unproject(frame.points2d_px)
    # The extrinsic matrix may be scaled slightly by rounding; its inverse rotates the rays back.
    to_world = np.linalg.inv(camera.extrinsic_matrix[:3, :3])
    rays = rays @ to_world.T
    directions = rays / np.sqrt((rays * rays).sum(axis=-1, keepdims=True))
    origin_mm = camera.position_mm
    distances_mm, scale_std = _monocular_distances(frame, origin_mm)
    focal_px = np.sqrt(camera.intrinsic_matrix[0, 0] * camera.intrinsic_matrix[1, 1])
    return Rays(
        np.full(count, index),
        np.arange(count),
        frame.track_ids,
        np.full(count, frame.stamp_s - stamp_s),
        np.tile(origin_mm, (count, 1)),
        directions,
        frame.joint_confidence,
        distances_mm,
        scale_std,
        np.full(count, focal_px),
        np.full(count, noise),
    )


def _monocular_distances(
    frame: CameraPeople, origin_mm: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the distances [N, J] to the 3D poses, and the deviations [N] of their scales."""
    relative_mm = frame.poses3d_mm - origin_mm
    distances_mm = np.sqrt((relative_mm * relative_mm).sum(axis=-1))
    std_mm = np.sqrt((frame.axis_std_mm**2).sum(axis=-1))
    usable = (distances_mm > MIN_DISTANCE_MM) & np.isfinite(distances_mm) & np.isfinite(std_mm)
    distances_mm = np.where(usable, distances_mm, 0)
    # The error along the line of sight dominates the sum over the axes.
    shares = std_mm / np.maximum(distances_mm, MIN_DISTANCE_MM)
    scale_std = masked_median(shares, usable)
    return distances_mm, np.clip(scale_std, MIN_SCALE_STD, MAX_SCALE_STD)


def lateral_std_mm(
    confidence: FloatArray, distance_mm: FloatArray, focal_px: FloatArray, noise: FloatArray
) -> FloatArray:
    """Return the standard deviations of image points, in millimetres at the person's distance."""
    body_mm = LATERAL_STD * STATURE_MM * _doubt(confidence)
    return noise * np.sqrt(body_mm * body_mm + (POINT_STD_PX * distance_mm / focal_px) ** 2)


def relative_depth_std_mm(confidence: FloatArray) -> FloatArray:
    """Return the standard deviations of monocular depths relative to the person's own."""
    return DEPTH_STD * STATURE_MM * _doubt(confidence)


def _doubt(confidence: FloatArray) -> FloatArray:
    return 1 + (LOW_CONFIDENCE_FACTOR - 1) * (1 - confidence)
