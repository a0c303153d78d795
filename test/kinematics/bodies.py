"""People with known joint angles, for tests of the kinematics."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.kinematics.body_frames import BodyFrames
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.human_urdf import PROPORTIONS
from metrabs_ros.kinematics.joint_angles import WAIST
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17

UP = np.array([0.0, 0.0, 1.0])
ADULT_MM = 1700.0 * PROPORTIONS


def random_rotations(count: int, rng: np.random.Generator) -> FloatArray:
    """Return uniformly distributed rotations, [N, 3, 3]."""
    columns, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    columns[:, :, 0] *= np.linalg.det(columns)[:, None]
    return columns


@dataclasses.dataclass
class KnownBodies:
    """N bodies with random lengths, positions and directions, and their landmarks [N, 17, 3]."""

    angles: FloatArray
    lengths_mm: FloatArray
    frames: BodyFrames
    landmarks_mm: FloatArray


def random_bodies(angles: FloatArray, seed: int = 0) -> KnownBodies:
    """Return bodies with joint angles [N, 20]."""
    rng = np.random.default_rng(seed)
    count = len(angles)
    lengths_mm = ADULT_MM * rng.uniform(0.5, 1.3, (count, len(PROPORTIONS)))
    origins_mm, rotations = rng.uniform(-5000, 5000, (count, 3)), random_rotations(count, rng)
    frames = BodyFrames.of_bodies(origins_mm, rotations, angles[:, WAIST])
    in_body_mm = human_model().landmarks_mm(angles, lengths_mm)
    return KnownBodies(angles, lengths_mm, frames, to_world(frames, in_body_mm))


def to_world(frames: BodyFrames, in_body_mm: FloatArray) -> FloatArray:
    """Return landmarks [N, 17, 3] of bodies in the frame of the people."""
    return in_body_mm @ np.swapaxes(frames.bodies, 1, 2) + frames.origins_mm[:, None]


def random_angles(count: int, seed: int = 0) -> FloatArray:
    """Return angles [N, 20], uniformly distributed within their limits."""
    tree = human_model().tree
    return np.random.default_rng(seed).uniform(tree.lower, tree.upper, (count, len(tree.lower)))


def rest(count: int = 1, **degrees: float) -> FloatArray:
    """Return angles [N, 20] of 0 except for those given by name, in degrees."""
    angles = np.zeros((count, len(human_model().tree.angle_names)))
    for name, value in degrees.items():
        angles[:, human_model().tree.angle_names.index(name)] = np.radians(value)
    return angles


def standing(*origins_mm: tuple[float, float, float], **degrees: float) -> FloatArray:
    """Return landmarks [N, 17, 3] of people with upright bodies at positions of their hips."""
    count = len(origins_mm)
    in_body_mm = human_model().landmarks_mm(rest(count, **degrees), np.tile(ADULT_MM, (count, 1)))
    return in_body_mm + np.array(origins_mm)[:, None]


def people_of(landmarks_mm: FloatArray, ids: list[int] | None = None) -> People:
    """Return people with landmarks [N, 17, 3], and ids from 1 by default."""
    count = len(landmarks_mm)
    people = People.from_detections(
        COCO_17,
        np.tile([100.0, 50.0, 200.0, 400.0], (count, 1)),
        np.full(count, 0.9),
        landmarks_mm,
        np.zeros((count, 17, 2)),
        (480, 640),
    )
    return dataclasses.replace(people, ids=np.array(ids or range(1, count + 1), np.int64))
