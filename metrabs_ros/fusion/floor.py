"""The floor and the direction of gravity, from the feet of people and their bodies."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.camera_tracks import ANKLES, SHOULDERS
from metrabs_ros.placement.ground_plane import ANKLE_HEIGHT_MM

ROUNDS = 10
BODY_TOLERANCE = 0.35
"""Angle between body and vertical at which the person counts one quarter, in radians."""
BODY_TILT_STD, LEAN_STD = 0.03, 0.15
"""Standard deviations of the direction of bodies, in radians.  People lean forward, which does
not matter if they face all directions."""
ANKLE_STD_MM = 30.0
CORRELATED = 30.0
"""Number of ankles that count as much as one independent one."""


@dataclasses.dataclass(frozen=True)
class Floor:
    """
    The floor: points with ``up @ point == height_mm``.

    Parameters
    ----------
    up
        [3], unit normal.
    height_mm
        Distance from the origin.
    tilt_std, height_std_mm
        Standard deviations of the direction, in radians, and of the height below the people.
    """

    up: FloatArray
    height_mm: float
    tilt_std: float
    height_std_mm: float


def estimate_floor(points_mm: FloatArray) -> Floor:
    """
    Return the floor below people.

    The lower ankle of each person is on the floor most of the time; those that are not are above
    it and count less.  Where the feet are along a line, or in one place, bodies are vertical.

    Parameters
    ----------
    points_mm
        [Q, 13, 3], people with the joints `BODY_PARTS`, any frame.
    """
    ankles_mm = points_mm[:, ANKLES]
    bodies_mm = points_mm[:, SHOULDERS].mean(axis=1) - ankles_mm.mean(axis=1)
    bodies = bodies_mm / np.maximum(np.linalg.norm(bodies_mm, axis=1, keepdims=True), 1.0)
    up = _unit(np.median(bodies, axis=0))
    for _ in range(ROUNDS):
        angles = np.arccos(np.clip(bodies @ up, -1, 1))
        up = _unit((bodies / (1 + (angles / BODY_TOLERANCE) ** 2)[:, None] ** 2).sum(axis=0))
    vertical = up
    shoulders_mm = points_mm[:, SHOULDERS[0]] - points_mm[:, SHOULDERS[1]]
    facing = np.cross(shoulders_mm, vertical)
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1.0)
    body_std = np.hypot(BODY_TILT_STD, LEAN_STD * np.linalg.norm(facing.mean(axis=0)))
    for _ in range(ROUNDS):
        up, height_mm, covariance = _fit(ankles_mm, up, vertical, float(body_std))
    return Floor(
        up,
        float(height_mm - ANKLE_HEIGHT_MM),
        float(np.sqrt(covariance[1, 1] + covariance[2, 2])),
        float(np.sqrt(covariance[0, 0])),
    )


def _fit(
    ankles_mm: FloatArray, up: FloatArray, vertical: FloatArray, body_std: float
) -> tuple[FloatArray, float, FloatArray]:
    """Return normal and height of the plane of the lower ankles, and the covariance [3, 3]."""
    across = np.linalg.svd(up[None])[2][1:]
    heights_mm = ankles_mm @ up
    lower = np.argmin(heights_mm, axis=1)
    rows = np.arange(len(lower))
    feet_mm, heights_mm = ankles_mm[rows, lower], heights_mm[rows, lower]
    places_mm = feet_mm @ across.T
    middle_mm = np.median(places_mm, axis=0)
    design = np.column_stack([np.ones(len(rows)), places_mm - middle_mm])
    # Height and slopes of the plane; the prior of the slopes is the direction of the bodies.
    slopes = -(across @ vertical) / max(float(vertical @ up), 0.1)
    prior = np.diag([0, body_std**-2, body_std**-2])
    solution = np.array([np.median(heights_mm), 0, 0])
    for _ in range(ROUNDS):
        squares = ((heights_mm - design @ solution) / ANKLE_STD_MM) ** 2
        weights = 1 / (1 + squares / 4) ** 2 / ANKLE_STD_MM**2 / CORRELATED
        normal = (weights[:, None] * design).T @ design + prior
        right = (weights * heights_mm) @ design + prior @ np.append(0, slopes)
        solution = np.linalg.solve(normal + 1e-12 * np.eye(3), right)
    height_mm, slopes = solution[0], solution[1:]
    new_up = up - slopes @ across
    point_mm = height_mm * up + middle_mm @ across
    new_up = _unit(new_up)
    return new_up, float(new_up @ point_mm), np.linalg.inv(normal + 1e-12 * np.eye(3))


def _unit(vector: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(vector))
    return vector / max(length, 1e-12)
