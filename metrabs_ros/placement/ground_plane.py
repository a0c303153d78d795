"""Ground plane as a cue of the person scale: feet are on the floor or above it, never below."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import Cue, ScaleObservations

ANKLE_HEIGHT_MM = 80.0
"""
Height of the ankle joints of an average adult above the floor.

The joint is at 0.039 of the stature (Drillis and Contini, 1966), and soles are 15 mm thick.
"""
PLANE_STD_MM = 15.0
"""Standard deviation of the height of the plane, and of feet on it."""
TILT_STD = 0.005
"""Standard deviation of the tilt of the plane, in radians."""
MIN_DROP_MM = 150.0
"""Minimum height difference of camera and sole; below, the height says nothing about the scale."""
MIN_JOINT_CONFIDENCE = 0.5
"""Minimum confidence that an ankle is visible."""
CONTACT_PROBABILITY = 0.7
"""Probability that a foot at rest is on the floor."""
SWING_SPEED_MM_S = 700.0
"""Speed of a foot at which contact is half as probable."""
MEAN_LIFT_MM = 150.0
"""Mean height of feet that are not on the floor."""


@dataclasses.dataclass(frozen=True)
class GroundPlane:
    """
    Floor as a plane in the optical frame of a camera.

    Parameters
    ----------
    up
        [3], unit normal of the floor, camera optical frame.
    camera_height_mm
        Height of the camera above the floor.
    """

    up: FloatArray
    camera_height_mm: float

    @classmethod
    def from_transform(
        cls, rotation: FloatArray, translation_mm: FloatArray, ground_height_mm: float = 0.0
    ) -> GroundPlane:
        """
        Create the plane from the pose of the camera in a frame with z up.

        Parameters
        ----------
        rotation, translation_mm
            [3, 3] and [3], from the camera optical frame to the ground frame.
        ground_height_mm
            Height of the floor in the ground frame.
        """
        up: FloatArray = rotation[2] / np.linalg.norm(rotation[2])
        return cls(up, float(translation_mm[2] - ground_height_mm))

    @property
    def is_usable(self) -> bool:
        """Whether the camera is high enough for the height of feet to depend on the distance."""
        return self.camera_height_mm >= MIN_DROP_MM

    def drops_mm(self, points_mm: FloatArray) -> FloatArray:
        """Return how far points [..., 3] in the camera frame are below the camera, [...]."""
        drops_mm: FloatArray = -points_mm @ self.up
        return drops_mm


def observe_ground(people: People, plane: GroundPlane) -> ScaleObservations:
    """
    Return the scale factors at which the ankles of people are at their height above the floor.

    Parameters
    ----------
    people
        T people, camera frame, before scaling.  Undetected people are not used.
    plane
        The floor.

    Returns
    -------
    Observations of both feet, [T, 2].  Feet above the floor yield an upper bound.
    """
    observed = [_observe_foot(people, plane, side) for side in ('left', 'right')]
    log_factor, std, probability = (np.stack(column, axis=1) for column in zip(*observed))
    return ScaleObservations(
        Cue.GROUND_PLANE,
        log_factor,
        std,
        probability,
        MEAN_LIFT_MM / max(plane.camera_height_mm, MIN_DROP_MM),
    )


def _observe_foot(
    people: People, plane: GroundPlane, side: str
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return log factors, standard deviations and contact probabilities of one foot, each [T]."""
    joints = people.skeleton.part('ankle', side)
    if not len(joints) or not plane.is_usable:
        return np.full(len(people), np.nan), np.ones(len(people)), np.zeros(len(people))
    ankle_mm = people.poses3d_mm[:, joints].mean(axis=1)
    drop_mm = plane.drops_mm(ankle_mm) + ANKLE_HEIGHT_MM
    confidence = people.joint_confidence[:, joints].mean(axis=1)
    usable = people.seen & people.in_view[:, joints].all(axis=1)
    usable &= (confidence > MIN_JOINT_CONFIDENCE) & (drop_mm > MIN_DROP_MM)
    log_factor = np.log(plane.camera_height_mm / np.where(usable, drop_mm, 1.0))
    distance_mm = np.linalg.norm(ankle_mm, axis=-1)
    joint_std_mm = people.joint_std_mm[:, joints].mean(axis=1)
    std_mm = np.sqrt(PLANE_STD_MM**2 + (TILT_STD * distance_mm) ** 2 + joint_std_mm**2)
    speed_mm_s = np.linalg.norm(people.velocities_mm_s[:, joints].mean(axis=1), axis=-1)
    probability = CONTACT_PROBABILITY / (1 + (speed_mm_s / SWING_SPEED_MM_S) ** 2)
    std = std_mm / np.where(usable, drop_mm, 1.0)
    return np.where(usable, log_factor, np.nan), std, probability
