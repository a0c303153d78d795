"""Joint angles of the ROS4HRI human from landmarks, without memory of earlier frames."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, norms
from metrabs_ros.kinematics.angles import limit_speed, turned
from metrabs_ros.kinematics.body_frames import BodyFrames
from metrabs_ros.kinematics.human_model import HumanModel
from metrabs_ros.kinematics.human_urdf import SEGMENTS
from metrabs_ros.kinematics.landmarks import (
    ANKLES,
    EARS,
    ELBOWS,
    EYES,
    KNEES,
    NOSE,
    WRISTS,
)
from metrabs_ros.kinematics.limbs import BEND, ROLL, Limbs, solve_arms, solve_legs

WAIST = 0
HEAD = slice(1, 4)
ARMS = np.array([[4, 5, 6, 7], [8, 9, 10, 11]])
LEGS = np.array([[12, 13, 14, 15], [16, 17, 18, 19]])
"""Indices of angles in the order of the URDF; of limbs [2, 4], left before right."""
ANGLE_COUNT = 20
MIRROR = np.array([1.0, -1.0, 1.0])
"""Factors that mirror the right side of the body."""
LEG_SIGNS = np.array([[1.0] * 4, [-1.0, 1.0, 1.0, 1.0]])
"""Signs of the angles of mirrored legs: the axis of the yaw is the same on both sides."""
MIN_FACE_MM = 1.0


@dataclasses.dataclass(frozen=True)
class LastAngles:
    """
    Angles of N people in their last frames.

    Parameters
    ----------
    angles
        [N, 20], radians.
    step_s
        [N], time since then; infinite for people without earlier frames.
    """

    angles: FloatArray
    step_s: FloatArray


def joint_angles(
    landmarks_mm: FloatArray,
    known: BoolArray,
    frames: BodyFrames,
    lengths_mm: FloatArray,
    last: LastAngles,
    model: HumanModel,
) -> FloatArray:
    """
    Return the joint angles of people, [N, 20], within their limits.

    Angles that unknown landmarks would determine keep their last value.

    Parameters
    ----------
    landmarks_mm
        [N, 17, 3].
    known
        [N, 17], which landmarks are known.
    frames
        Frames of the people.
    lengths_mm
        [N, 9], lengths of `SEGMENTS`.
    last
        Last angles.
    model
        The human.
    """
    angles = last.angles.copy()
    low, high = model.tree.lower, model.tree.upper
    torso_mm = (landmarks_mm - frames.origins_mm[:, None]) @ frames.torsos
    body_mm = (landmarks_mm - frames.origins_mm[:, None]) @ frames.bodies
    _set_head(angles, torso_mm, known, low[HEAD], high[HEAD])

    segment_mm = dict(zip(SEGMENTS, lengths_mm.T))
    shoulders_mm = _pairs(segment_mm['shoulder'], segment_mm['torso'])
    arms = _limbs(
        torso_mm[:, ELBOWS] - shoulders_mm,
        torso_mm[:, WRISTS] - shoulders_mm,
        known[:, WRISTS],
        (segment_mm['upper_arm'], segment_mm['forearm']),
        (low[ARMS], high[ARMS]),
        LastAngles(last.angles[:, ARMS], last.step_s),
    )
    solved = _with_last(solve_arms(arms), arms, known[:, WRISTS], [ROLL, BEND])
    angles[:, ARMS] = np.where(known[:, ELBOWS, None], solved, angles[:, ARMS])

    hips_mm = _pairs(segment_mm['hips'] / 2, np.zeros(len(landmarks_mm)))
    limits = np.sort(LEG_SIGNS * [low[LEGS], high[LEGS]], axis=0)
    legs = _limbs(
        body_mm[:, KNEES] - hips_mm,
        body_mm[:, ANKLES] - hips_mm,
        known[:, ANKLES],
        (segment_mm['thigh'], segment_mm['shank']),
        (limits[0], limits[1]),
        LastAngles(LEG_SIGNS * last.angles[:, LEGS], last.step_s),
    )
    # A thigh alone does not determine the yaw, which keeps its last value after a step of 0.
    legs = dataclasses.replace(
        legs, step_s=np.where(known[:, ANKLES].reshape(-1), legs.step_s, 0.0)
    )
    solved = LEG_SIGNS * _with_last(solve_legs(legs), legs, known[:, ANKLES], [BEND])
    angles[:, LEGS] = np.where(known[:, KNEES, None], solved, angles[:, LEGS])
    angles = limit_speed(last.angles, angles, last.step_s[:, None])
    # The body frames depend on this angle, so that its speed is limited already.
    angles[:, WAIST] = frames.waist
    return angles


def _pairs(aside_mm: FloatArray, up_mm: FloatArray) -> FloatArray:
    """Return points on the left and right side, [N, 2, 3]."""
    left_mm = np.stack([np.zeros_like(aside_mm), aside_mm, up_mm], axis=-1)
    return np.stack([left_mm, MIRROR * left_mm], axis=1)


def _limbs(
    middle_mm: FloatArray,
    end_mm: FloatArray,
    end_known: BoolArray,
    lengths_mm: tuple[FloatArray, FloatArray],
    limits: tuple[FloatArray, FloatArray],
    last: LastAngles,
) -> Limbs:
    """
    Return 2 N limbs, of which the right ones are mirrored.

    Parameters
    ----------
    middle_mm, end_mm
        [N, 2, 3], joints of left and right limbs.
    end_known
        [N, 2]; limbs with an unknown end are taken as straight.
    lengths_mm
        [N] each, lengths of the upper and the lower segment.
    limits
        [2, 4] each, lower and upper limits.
    last
        Last angles, [N, 2, 4].
    """
    count = len(middle_mm)
    upper_mm, lower_mm = (np.repeat(length_mm, 2) for length_mm in lengths_mm)
    low, high = (np.broadcast_to(limit, (count, 2, 4)).reshape(-1, 4) for limit in limits)
    sides, is_known = np.stack([np.ones(3), MIRROR]), end_known.reshape(-1)
    middle_mm = (sides * middle_mm).reshape(-1, 3)
    straight_mm = middle_mm * (1 + lower_mm / upper_mm)[:, None]
    end_mm = np.where(is_known[:, None], (sides * end_mm).reshape(-1, 3), straight_mm)
    return Limbs(
        *(middle_mm, end_mm, upper_mm, lower_mm, low, high),
        last.angles.reshape(-1, 4),
        np.repeat(last.step_s, 2),
    )


def _with_last(
    solved: FloatArray, limbs: Limbs, end_known: BoolArray, columns: list[int]
) -> FloatArray:
    """Return angles [N, 2, 4] of limbs, with some last ones if the end is not known, [N, 2]."""
    is_known = end_known.reshape(-1, 1)
    solved[:, columns] = np.where(is_known, solved[:, columns], limbs.last[:, columns])
    return solved.reshape(-1, 2, 4)


def _set_head(
    angles: FloatArray,
    torso_mm: FloatArray,
    known: BoolArray,
    low: FloatArray,
    high: FloatArray,
) -> None:
    """
    Set the angles of heads: roll, yaw, pitch.

    The ears, or else the eyes, determine roll and yaw.  The line from the ears to the middle of
    nose and eyes is horizontal when the head is upright.

    Parameters
    ----------
    angles
        [N, 20], changed in place.
    torso_mm
        [N, 17, 3], landmarks in the frame of the torso.
    known
        [N, 17].
    low, high
        [3], limits.
    """
    ears_mm, eyes_mm, nose_mm = torso_mm[:, EARS], torso_mm[:, EYES], torso_mm[:, NOSE]
    has_ears, has_eyes = np.all(known[:, EARS], axis=1), np.all(known[:, EYES], axis=1)
    left_mm = np.where(
        has_ears[:, None],
        ears_mm[:, 0] - ears_mm[:, 1],
        eyes_mm[:, 0] - eyes_mm[:, 1],
    )
    x, y, z = left_mm.T
    roll = np.clip(np.arctan2(z, y), low[0], high[0])
    y, z = turned(y, z, -roll)
    yaw = np.clip(np.arctan2(-x, y), low[1], high[1])
    face_mm = (eyes_mm.mean(axis=1) + nose_mm) / 2 - ears_mm.mean(axis=1)
    x, y, z = face_mm.T
    y, z = turned(y, z, -roll)
    x, y = turned(x, y, -yaw)
    pitch = np.clip(np.arctan2(z, x), low[2], high[2])
    across, along = norms(left_mm) > MIN_FACE_MM, norms(face_mm) > MIN_FACE_MM
    side = across & (has_ears | has_eyes)
    face = along & has_ears & has_eyes & known[:, NOSE]
    head = np.stack([roll, yaw, np.where(face, pitch, angles[:, 3])], axis=-1)
    angles[:, HEAD] = np.where(side[:, None], head, angles[:, HEAD])
