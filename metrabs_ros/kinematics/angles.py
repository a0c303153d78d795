"""Functions of angles: limits, steps between frames, rotations of coordinates."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import FloatArray

MAX_SPEED = 15.0
"""Maximum speed of angles, radians per second: 28 degrees in 33 ms."""


def clip_angle(angle: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return the nearest angles between limits, which may be more than half a turn apart."""
    middle = (low + high) / 2
    return np.minimum(np.maximum(middle + wrapped(angle - middle), low), high)


def approach(
    last: FloatArray, angle: FloatArray, share: FloatArray, step_s: FloatArray
) -> FloatArray:
    """Return angles moved the shorter way round by a share of the way to new ones."""
    return limit_speed(last, last + share * wrapped(angle - last), step_s)


def limit_speed(last: FloatArray, angle: FloatArray, step_s: FloatArray) -> FloatArray:
    """Return angles that differ from the last ones by no more than the maximum speed allows."""
    most = MAX_SPEED * step_s
    return last + np.minimum(np.maximum(angle - last, -most), most)


def wrapped(angle: FloatArray) -> FloatArray:
    """Return angles between -pi and pi."""
    return angle - 2 * np.pi * np.rint(angle / (2 * np.pi))


def turned(
    first: FloatArray, second: FloatArray, angle: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return two coordinates of vectors turned by an angle from the first to the second axis."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return first * cosine - second * sine, first * sine + second * cosine
