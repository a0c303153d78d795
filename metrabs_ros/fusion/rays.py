"""Detections of a frame set as rays in the world frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, StructOfArrays, masked_median
from metrabs_ros.camera import Camera
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
    counts = [len(frame) for frame in frames]
    camera_index = np.repeat(np.arange(len(frames)), counts)

    def per_detection(values: Sequence[float] | FloatArray) -> FloatArray:
        return np.asarray(values)[camera_index]

    directions = np.concatenate([_directions_of(frame) for frame in frames])
    origins_mm = per_detection(np.stack([frame.camera.position_mm for frame in frames]))
    distances_mm, scale_std = _monocular_distances(
        np.concatenate([frame.poses3d_mm for frame in frames]) - origins_mm[:, None],
        np.concatenate([frame.axis_std_mm for frame in frames]),
    )
    return Rays(
        camera_index,
        np.concatenate([np.arange(count) for count in counts]),
        np.concatenate([frame.track_ids for frame in frames]),
        per_detection([frame.stamp_s - stamp_s for frame in frames]),
        origins_mm,
        directions / np.sqrt(np.einsum('djk,djk->dj', directions, directions))[..., None],
        np.concatenate([frame.joint_confidence for frame in frames]),
        distances_mm,
        scale_std,
        per_detection([_focal_px(frame.camera) for frame in frames]),
        per_detection(noise),
    )


def _directions_of(frame: CameraPeople) -> FloatArray:
    """Return the directions [N, J, 3] to joints in the world frame, of any length."""
    return frame.camera.unproject(frame.points2d_px) @ frame.camera.rotation_to_world.T


def _focal_px(camera: Camera) -> float:
    return math.sqrt(camera.intrinsic_matrix[0, 0] * camera.intrinsic_matrix[1, 1])


def _monocular_distances(
    relative_mm: FloatArray, axis_std_mm: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """
    Return the distances [D, J] to the 3D poses, and the deviations [D] of their scales.

    Parameters
    ----------
    relative_mm
        [D, J, 3], 3D poses relative to the cameras.
    axis_std_mm
        [D, J, 3].
    """
    distances_mm = np.sqrt(np.einsum('djk,djk->dj', relative_mm, relative_mm))
    std_mm = np.sqrt(np.einsum('djk,djk->dj', axis_std_mm, axis_std_mm))
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
