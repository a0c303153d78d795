"""
Frames of the trunk: of the torso, and of the body at the hips, which the waist joint connects.

The hips determine the body frame except for the tilt of the pelvis.  The model can bend by 57
degrees at the waist and by 40 degrees at the hips, so that a seated person is only possible with
both.  The pelvis therefore tilts by a constant share of the angle between torso and thighs, as it
does in people who bend or sit down.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays, norms
from metrabs_ros.kinematics.angles import limit_speed
from metrabs_ros.kinematics.landmarks import HIPS, KNEES, SHOULDERS

WAIST_LIMITS, HIP_LIMITS = (-0.2, 1.0), (-0.4, 0.7)
"""Limits of the bending at the waist and at the hips (joints `waist` and `r_hip`), radians."""
BACK_SHARE, FORWARD_SHARE = (
    limit / (limit + other) for limit, other in zip(WAIST_LIMITS, HIP_LIMITS)
)
"""Shares of the waist when bending back and forward; both joints reach their limits together."""
MIN_LENGTH_MM = 1e-3


@dataclasses.dataclass(frozen=True)
class BodyFrames(StructOfArrays):
    """
    Frames of N people; x points forward, y to the left, z to the head.

    Parameters
    ----------
    origins_mm
        [N, 3], midpoints of the hips.
    torsos
        [N, 3, 3], rotations of the torsos; z points to the midpoint of the shoulders.
    bodies
        [N, 3, 3], rotations of the bodies, which differ by the angle of the waist.
    waist
        [N], angles of the waist, radians.
    """

    origins_mm: FloatArray
    torsos: FloatArray
    bodies: FloatArray
    waist: FloatArray

    @classmethod
    def of_bodies(
        cls, origins_mm: FloatArray, bodies: FloatArray, waist: FloatArray
    ) -> BodyFrames:
        """Return the frames of people, given those of their bodies and the angles of the waist."""
        return cls(origins_mm, tilted(bodies, waist), bodies, waist)


def body_frames(
    landmarks_mm: FloatArray,
    known: BoolArray,
    up: FloatArray,
    last_waist: FloatArray,
    step_s: FloatArray,
) -> BodyFrames:
    """
    Return the frames of people.

    Parameters
    ----------
    landmarks_mm
        [N, 17, 3].
    known
        [N, 17], which landmarks are known.
    up
        [3], up direction, for people whose joints do not determine the directions.
    last_waist
        [N], last angles of the waist, which are kept for people with unknown legs.
    step_s
        [N], time since then; infinite for new people.
    """
    hips_mm, shoulders_mm = landmarks_mm[:, HIPS], landmarks_mm[:, SHOULDERS]
    origins_mm = hips_mm.mean(axis=1)
    torsos = _torsos(hips_mm, shoulders_mm, up)
    thighs_mm = (landmarks_mm[:, KNEES] - hips_mm) @ torsos
    waist = limit_speed(last_waist, _waist(thighs_mm, known[:, KNEES]), step_s)
    waist = np.where(known[:, KNEES].any(axis=1), waist, last_waist)
    bodies = tilted(torsos, -waist)
    return BodyFrames(origins_mm, torsos, bodies, waist)


def _torsos(hips_mm: FloatArray, shoulders_mm: FloatArray, up: FloatArray) -> FloatArray:
    """
    Return the rotations [N, 3, 3] of torsos with hips and shoulders [N, 2, 3].

    The model has no twist: y is the direction that fits hips and shoulders best.
    """
    z = _unit(shoulders_mm.mean(axis=1) - hips_mm.mean(axis=1), up)
    pairs_mm = (hips_mm[:, 0] - hips_mm[:, 1], shoulders_mm[:, 0] - shoulders_mm[:, 1])
    # The least-squares fit weights differences of left and right with their lengths.
    across_mm = sum(own * norms(own)[:, None] for own in pairs_mm)
    across_mm = across_mm - (across_mm * z).sum(axis=-1, keepdims=True) * z
    # Any horizontal direction, for people without a width.
    level = np.cross(z, np.where(np.abs(z[:, :1]) < 0.7, (1.0, 0, 0), (0, 0, 1.0)))
    y = _unit(across_mm, _unit(level, np.zeros(3)))
    return np.stack([np.cross(y, z), y, z], axis=-1)


def _waist(thighs_mm: FloatArray, known: BoolArray) -> FloatArray:
    """Return the angles [N] of the waist for thighs [N, 2, 3] in the frame of the torso."""
    forward_mm, _, up_mm = np.moveaxis(np.where(known[..., None], thighs_mm, 0.0), -1, 0)
    both = np.arctan2(forward_mm.sum(axis=1), -up_mm.sum(axis=1))
    waist = both * np.where(both > 0, FORWARD_SHARE, BACK_SHARE)
    # If possible, so that neither hip exceeds its limits; else both exceed them equally.
    each = np.arctan2(forward_mm, np.maximum(-up_mm, MIN_LENGTH_MM))
    each = np.where(known, each, both[:, None])
    low = each.max(axis=1) - HIP_LIMITS[1]
    high = each.min(axis=1) - HIP_LIMITS[0]
    middle = (low + high) / 2
    waist = np.clip(waist, np.minimum(low, middle), np.maximum(high, middle))
    return np.clip(waist, *WAIST_LIMITS)


def tilted(rotations: FloatArray, angles: FloatArray) -> FloatArray:
    """Return rotations [N, 3, 3] of frames turned by angles [N] about their own y axes."""
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y, z = np.moveaxis(rotations, -1, 0)
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)


def _unit(vectors: FloatArray, fallback: FloatArray) -> FloatArray:
    lengths = norms(vectors)[..., None]
    return np.where(
        lengths > MIN_LENGTH_MM, vectors / np.maximum(lengths, MIN_LENGTH_MM), fallback
    )
