"""Postures of people: standing, sitting, crouching, lying."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, norms
from metrabs_ros.kinematics.landmarks import ANKLES, HIPS, KNEES, SHOULDERS

KEPT_BONUS_DEGREES = 8.0
"""Additional margin of the last posture, so that noise does not change it."""
LYING_DEGREES = 30.0
"""Maximum angles to the horizontal of the trunk of a lying person, and of the line to its feet."""
UPRIGHT_DEGREES = 40.0
"""Maximum angle between an upright trunk and the vertical."""
STANDING_LEG_DEGREES = 30.0
"""Maximum angle between the segments of the standing leg and the vertical."""
SITTING_THIGH_DEGREES = (50.0, 120.0)
"""Range of the angle between the thighs of a seated person and the downward direction."""
SITTING_KNEE_DEGREES = 120.0
"""Maximum bend of the knees of a seated person, and minimum bend of one who crouches."""
CROUCHING_FEET_DEGREES = 10.0
"""Minimum angle of the feet below the hips of a person who crouches."""
MIN_LENGTH_MM = 1.0
"""Minimum length of trunks and legs with a direction."""


class Posture(enum.IntEnum):
    """Postures; the values are those of hri_msgs/BodyPosture."""

    OTHER = 0
    STANDING = 1
    SITTING = 2
    CROUCHING = 3
    LYING = 4


def classify_postures(
    landmarks_mm: FloatArray, known: BoolArray, up: FloatArray, last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """
    Return the postures of people, [N]; `OTHER` if their legs or trunk are not known, or unclear.

    Each posture has a margin: the smallest distance in degrees from the limits of its criteria.

    Parameters
    ----------
    landmarks_mm
        [N, 17, 3].
    known
        [N, 17], which landmarks are known.
    up
        [3], unit vector.
    last
        [N], last postures.
    """
    hips_mm, knees_mm = landmarks_mm[:, HIPS], landmarks_mm[:, KNEES]
    trunk_mm = landmarks_mm[:, SHOULDERS].mean(axis=1) - hips_mm.mean(axis=1)
    thighs_mm, shanks_mm = knees_mm - hips_mm, landmarks_mm[:, ANKLES] - knees_mm
    lean = _degrees_between(trunk_mm, up)
    thigh, shank = _degrees_between(thighs_mm, -up), _degrees_between(shanks_mm, -up)
    knee = _degrees_between(thighs_mm, shanks_mm)
    upright = UPRIGHT_DEGREES - lean
    # How far the feet are below the hips, as the angle of a line with the length of the trunk.
    feet_mm = landmarks_mm[:, ANKLES].mean(axis=1) - hips_mm.mean(axis=1)
    drop = -feet_mm @ up / np.maximum(norms(trunk_mm), MIN_LENGTH_MM)
    feet = np.degrees(np.arcsin(np.clip(drop, -1, 1)))

    # One leg is sufficient: the other one may be raised.
    margins = np.zeros((len(landmarks_mm), len(Posture)))
    straight = STANDING_LEG_DEGREES - np.maximum(thigh, shank)
    margins[:, Posture.STANDING] = np.minimum(upright, straight.max(axis=1))
    low, high = SITTING_THIGH_DEGREES
    mean_thigh, mean_knee = thigh.mean(axis=1), knee.mean(axis=1)
    seated = np.minimum(mean_thigh - low, high - mean_thigh)
    margins[:, Posture.SITTING] = np.min(
        [upright, seated, SITTING_KNEE_DEGREES - mean_knee], axis=0
    )
    squat = np.minimum(mean_knee - SITTING_KNEE_DEGREES, mean_thigh - low)
    # People who crouch lean forward; with crossed legs, the feet are as high as the hips.
    squat = np.minimum(squat, feet - CROUCHING_FEET_DEGREES)
    margins[:, Posture.CROUCHING] = np.minimum(upright + UPRIGHT_DEGREES / 2, squat)
    flat = np.minimum(LYING_DEGREES - np.abs(90 - lean), LYING_DEGREES - np.abs(feet))
    margins[:, Posture.LYING] = flat
    rows = np.arange(len(margins))
    margins[rows, last] += KEPT_BONUS_DEGREES
    margins[:, Posture.OTHER] = 0.0
    postures = margins.argmax(axis=1)
    is_known = np.all(known[:, SHOULDERS], axis=1) & np.all(known[:, HIPS.start :], axis=1)
    is_known &= norms(trunk_mm) > MIN_LENGTH_MM
    is_known &= np.all(np.minimum(norms(thighs_mm), norms(shanks_mm)) > MIN_LENGTH_MM, axis=1)
    return np.where(is_known, postures, Posture.OTHER)


def _degrees_between(vectors: FloatArray, others: FloatArray) -> FloatArray:
    """Return the angles between vectors [..., 3], in degrees."""
    lengths = np.maximum(norms(vectors) * norms(others), MIN_LENGTH_MM)
    return np.degrees(np.arccos(np.clip((vectors * others).sum(axis=-1) / lengths, -1, 1)))
