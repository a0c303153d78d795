"""
Inverse kinematics of the limbs of the ROS4HRI human, in closed form.

Limbs of the right side are mirrored, so that all functions see left limbs: x forward, y to the
left, z up, origin at the shoulder or hip.  A limb points down (-z) when all angles are 0.  With R
the rotation about an axis, the upper segment has the rotation

    arm    Rz(-yaw) Rx(pitch) Rz(roll)     the elbow then bends by Ry(-elbow)
    leg    Rz(-yaw) Rx(pitch) Ry(-roll)    the knee then bends by Ry(-knee)

Near singularities, angles are not determined: the yaw of an arm that hangs down, the roll of a
straight arm, the yaw of a straight leg.  There, angles move to the computed ones gradually, and
the following angles of the limb compensate for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from metrabs_ros.arrays import FloatArray, StructOfArrays, norms
from metrabs_ros.kinematics.angles import approach, clip_angle, turned

JointPair: TypeAlias = tuple[FloatArray, FloatArray]
"""Positions [..., 3] of the middle and the end of limbs."""

YAW, PITCH, ROLL, BEND = range(4)
"""Columns of the angles of a limb."""
UNDETERMINED, DETERMINED = 0.08, 0.3
"""Sines of the angle to a singularity between which the trust increases from 0 to 1."""
SETTLING_S = 0.5
"""Time constant with which undetermined angles approach the computed ones."""
CHANGE_COST_MM = 5.0
"""Additional cost per radian of solutions that differ from the last angles."""
REACH_WEIGHT = 0.3
"""Weight of the position of the middle joint for which the end is reached."""
MAX_BEND_RATIO = 1.5
"""Maximum ratio of the bends for which the end is reached and that were measured."""
TINY = 1e-9
REST_COST_MM = 1e-3
"""Additional cost per radian of the pitch, which decides between equally good solutions."""


@dataclasses.dataclass(frozen=True)
class Limbs(StructOfArrays):
    """
    M limbs to be solved, in the frame at their shoulder or hip, as left limbs.

    Parameters
    ----------
    middle_mm, end_mm
        [M, 3], positions of elbows and wrists, or of knees and ankles.
    upper_mm, lower_mm
        [M], lengths of the two segments.
    low, high
        [M, 4], limits of the angles: yaw, pitch, roll, bend.
    last
        [M, 4], last angles.
    step_s
        [M], time since then; infinite if the last angles are meaningless.
    """

    middle_mm: FloatArray
    end_mm: FloatArray
    upper_mm: FloatArray
    lower_mm: FloatArray
    low: FloatArray
    high: FloatArray
    last: FloatArray
    step_s: FloatArray


def solve_arms(arms: Limbs) -> FloatArray:
    """Return the angles of arms, [M, 4], within their limits."""
    arms = _with_reached_end(arms)
    x, y, _ = _unit(arms.middle_mm).T
    yaw, trust = np.arctan2(x, y), _trust(np.sqrt(x * x + y * y), arms.step_s)
    # The same direction is reached with the opposite yaw and a negative pitch.
    yaws = np.stack([yaw, yaw + np.pi])
    free = dataclasses.replace(arms, step_s=np.full_like(arms.step_s, np.inf))
    yaw = _best(arms, _solve_arm(free, yaws), arm_joints_mm)[:, YAW]
    return _solve_arm(arms, approach(arms.last[:, YAW], yaw, trust, arms.step_s))


def _solve_arm(arms: Limbs, yaw: FloatArray) -> FloatArray:
    """Return the angles [..., M, 4] of arms for yaws [..., M]."""
    low, high = arms.low.T, arms.high.T
    yaw = clip_angle(yaw, low[YAW], high[YAW])
    x, y, z = arms.middle_mm.T
    x, y = turned(x, y, yaw)
    pitch = clip_angle(np.arctan2(y, -z), low[PITCH], high[PITCH])
    # From the elbow of the model, so that its error does not add to that of the wrist.
    forearm_mm = arms.end_mm - arms.upper_mm[:, None] * _arm_direction(yaw, pitch)
    x, y, z = np.moveaxis(_unit(forearm_mm), -1, 0)
    x, y = turned(x, y, yaw)
    y, z = turned(y, z, -pitch)
    trust = _trust(np.sqrt(x * x + y * y), arms.step_s)
    roll = approach(arms.last[:, ROLL], np.arctan2(y, x), trust, arms.step_s)
    roll = clip_angle(roll, low[ROLL], high[ROLL])
    bend = np.arctan2(x * np.cos(roll) + y * np.sin(roll), -z)
    bend = clip_angle(bend, low[BEND], high[BEND])
    return np.stack([yaw, pitch, roll, bend], axis=-1)


def solve_legs(legs: Limbs) -> FloatArray:
    """Return the angles of legs, [M, 4], within their limits."""
    legs = _with_reached_end(legs)
    # The axis of the knee, with a length of the sine of its angle.
    axis = _cross(_unit(legs.middle_mm), _unit(legs.end_mm - legs.middle_mm))
    yaw, trust = np.arctan2(axis[:, 0], axis[:, 1]), _trust(norms(axis), legs.step_s)
    last = legs.last[:, YAW]
    # The last yaw, because a knee that errors of the joints bend forwards would turn the leg.
    yaws = np.stack([yaw, yaw + np.pi, last])
    yaw = _best(legs, _solve_leg(legs, yaws), leg_joints_mm)[:, YAW]
    yaw = approach(last, yaw, trust, legs.step_s)
    return _best(legs, _solve_leg(legs, yaw[None]), leg_joints_mm)


def _solve_leg(legs: Limbs, yaw: FloatArray) -> FloatArray:
    """Return the angles [2 S, M, 4] of legs for several yaws [S, M]."""
    low, high = legs.low.T, legs.high.T
    yaw = clip_angle(yaw, low[YAW], high[YAW])
    x, y, z = legs.middle_mm.T
    x, y = turned(x, y, yaw)
    pitch = np.arctan2(y, -z)
    # The same direction is reached with the opposite pitch and a roll of more than 90 degrees.
    pitch = np.concatenate([pitch, pitch + np.pi])
    pitch = clip_angle(pitch, low[PITCH], high[PITCH])
    yaw, x, y = np.tile([yaw, x, y], (1, 2, 1))
    y, z = turned(y, z, -pitch)
    roll = clip_angle(np.arctan2(x, -z), low[ROLL], high[ROLL])
    # From the knee of the model, so that its error does not add to that of the ankle.
    shank_mm = legs.end_mm - legs.upper_mm[:, None] * _leg_direction(yaw, pitch, roll)
    x, y, z = np.moveaxis(shank_mm, -1, 0)
    x, y = turned(x, y, yaw)
    y, z = turned(y, z, -pitch)
    z, x = turned(z, x, roll)
    bend = clip_angle(np.arctan2(x, -z), low[BEND], high[BEND])
    return np.stack([yaw, pitch, roll, bend], axis=-1)


def _with_reached_end(limbs: Limbs) -> Limbs:
    """
    Return limbs whose middle joint is moved so that the end is nearer to the reach of the limb.

    The lengths of the segments are averages.  With the measured direction of the upper segment,
    the end would have all of the error of the length of both.
    """
    upper_mm, lower_mm = limbs.upper_mm[:, None], limbs.lower_mm[:, None]
    reach_mm = norms(limbs.end_mm)[:, None]
    axis = limbs.end_mm / np.maximum(reach_mm, TINY)
    reach_mm = np.maximum(np.minimum(reach_mm, upper_mm + lower_mm), abs(upper_mm - lower_mm))
    # The triangle of the two segments and the line to the end.
    along_mm = (upper_mm**2 - lower_mm**2 + reach_mm**2) / (2 * np.maximum(reach_mm, TINY))
    aside_mm = np.sqrt(np.maximum(upper_mm**2 - along_mm**2, 0.0))
    across_mm = limbs.middle_mm - (limbs.middle_mm * axis).sum(axis=-1, keepdims=True) * axis
    bent_mm = norms(across_mm)[:, None]
    # The side of a limb that is almost straight is uncertain.
    aside_mm = np.minimum(aside_mm, MAX_BEND_RATIO * bent_mm)
    middle_mm = along_mm * axis + aside_mm * across_mm / np.maximum(bent_mm, TINY)
    measured_mm = upper_mm * _unit(limbs.middle_mm)
    middle_mm = REACH_WEIGHT * middle_mm + (1 - REACH_WEIGHT) * measured_mm
    return dataclasses.replace(limbs, middle_mm=middle_mm)


def _best(
    limbs: Limbs,
    angles: FloatArray,
    joints_mm: Callable[[FloatArray, FloatArray, FloatArray], JointPair],
) -> FloatArray:
    """Return for each limb that of the solutions [S, M, 4] with the smallest errors, [M, 4]."""
    middle_mm, end_mm = joints_mm(angles, limbs.upper_mm, limbs.lower_mm)
    middle_mm, end_mm = middle_mm - limbs.middle_mm, end_mm - limbs.end_mm
    costs = np.sqrt((middle_mm * middle_mm + end_mm * end_mm).sum(axis=-1))
    costs += REST_COST_MM * np.abs(angles[..., PITCH])
    change = np.abs(angles - limbs.last)[..., :BEND].max(axis=-1)
    costs += np.where(np.isfinite(limbs.step_s), CHANGE_COST_MM, 0.0) * change
    best: FloatArray = angles[costs.argmin(axis=0), np.arange(len(limbs.last))]
    return best


def arm_joints_mm(angles: FloatArray, upper_mm: FloatArray, lower_mm: FloatArray) -> JointPair:
    """Return the elbows and wrists [..., M, 3] of arms with angles [..., M, 4]."""
    yaw, pitch, roll, bend = np.moveaxis(angles, -1, 0)
    elbow_mm = upper_mm[:, None] * _arm_direction(yaw, pitch)
    x, y, z = np.sin(bend) * np.cos(roll), np.sin(bend) * np.sin(roll), -np.cos(bend)
    y, z = turned(y, z, pitch)
    x, y = turned(x, y, -yaw)
    return elbow_mm, elbow_mm + lower_mm[:, None] * np.stack([x, y, z], axis=-1)


def leg_joints_mm(angles: FloatArray, upper_mm: FloatArray, lower_mm: FloatArray) -> JointPair:
    """Return the knees and ankles [..., M, 3] of legs with angles [..., M, 4]."""
    yaw, pitch, roll, bend = np.moveaxis(angles, -1, 0)
    knee_mm = upper_mm[:, None] * _leg_direction(yaw, pitch, roll)
    return knee_mm, knee_mm + lower_mm[:, None] * _leg_direction(yaw, pitch, roll + bend)


def _trust(sine: FloatArray, step_s: FloatArray) -> FloatArray:
    """Return the share by which angles approach computed ones with a sine to a singularity."""
    t = (sine - UNDETERMINED) / (DETERMINED - UNDETERMINED)
    t = np.minimum(np.maximum(t, 0.0), 1.0)
    trust = t * t * (3 - 2 * t)
    return 1 - (1 - trust) * np.exp(-step_s / SETTLING_S)


def _arm_direction(yaw: FloatArray, pitch: FloatArray) -> FloatArray:
    """Return the direction of upper arms, [..., 3]."""
    side = np.sin(pitch)
    return np.stack([np.sin(yaw) * side, np.cos(yaw) * side, -np.cos(pitch)], axis=-1)


def _leg_direction(yaw: FloatArray, pitch: FloatArray, roll: FloatArray) -> FloatArray:
    """Return the direction of thighs, [..., 3]."""
    down = np.cos(roll)
    x, y = turned(np.sin(roll), np.sin(pitch) * down, -yaw)
    return np.stack([x, y, -np.cos(pitch) * down], axis=-1)


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(norms(vectors), TINY)[..., None]


def _cross(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cross products of vectors [M, 3]; `numpy.cross` takes several times longer."""
    (a, b, c), (x, y, z) = first.T, second.T
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)
