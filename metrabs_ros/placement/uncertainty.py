"""Standard deviations of joint positions across the line of sight and along it."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import UNSCALED_STD

LATERAL_STD = 0.018
"""Standard deviation of a visible joint across the line of sight, as a fraction of the stature."""
DEPTH_STD = 0.045
"""The same for the depth relative to the root."""
LOW_CONFIDENCE_FACTOR = 2.5
"""Factor of these standard deviations for joints with confidence 0."""
STATURE_MM = 1700.0


def with_axis_std(
    people: People,
    scale_std: FloatArray | float = UNSCALED_STD,
    motion_std_mm: FloatArray | float = 0.0,
    size_factor: FloatArray | float = 1.0,
) -> People:
    """
    Return people with standard deviations for each axis of the camera frame.

    Parameters
    ----------
    people
        N people, camera frame.
    scale_std
        [N], standard deviations of the log scale factors; these are errors along the line of sight
        and proportional to the distance.
    motion_std_mm
        [N], standard deviations of the motion since the people were detected.
    size_factor
        [N], sizes of the people relative to an average adult.
    """
    poses_mm = people.poses3d_mm
    distance_mm = np.linalg.norm(poses_mm, axis=-1)
    sight = poses_mm / np.maximum(distance_mm, 1e-9)[..., None]
    size_mm = STATURE_MM * np.reshape(size_factor, (-1, 1))
    doubt = 1 + (LOW_CONFIDENCE_FACTOR - 1) * (1 - people.joint_confidence)
    motion_mm2 = np.reshape(motion_std_mm, (-1, 1)) ** 2
    lateral_mm2 = (LATERAL_STD * size_mm * doubt) ** 2 + motion_mm2
    depth_mm2 = (DEPTH_STD * size_mm * doubt) ** 2 + motion_mm2
    depth_mm2 += (np.reshape(scale_std, (-1, 1)) * distance_mm) ** 2
    variance = lateral_mm2[..., None] * (1 - sight**2) + depth_mm2[..., None] * sight**2
    return dataclasses.replace(people, axis_std_mm=np.sqrt(variance))
