"""Rigid transforms as tuples, which are faster than arrays of this size."""

from __future__ import annotations

import math
from typing import NamedTuple

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Transform(NamedTuple):
    """Rotation by a quaternion (x, y, z, w), followed by a translation."""

    translation: Vector = (0.0, 0.0, 0.0)
    rotation: Quaternion = (0.0, 0.0, 0.0, 1.0)

    def __mul__(self, other: Transform) -> Transform:  # type: ignore[override]
        """Return the transform that applies `other` first."""
        x, y, z = rotate(self.rotation, other.translation)
        dx, dy, dz = self.translation
        return Transform((x + dx, y + dy, z + dz), multiply(self.rotation, other.rotation))

    def inverse(self) -> Transform:
        """Return the inverse transform."""
        x, y, z, w = self.rotation
        conjugate = (-x, -y, -z, w)
        dx, dy, dz = rotate(conjugate, self.translation)
        return Transform((-dx, -dy, -dz), conjugate)


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Return the Hamilton product: the rotation by `b`, followed by the rotation by `a`."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by + ay * bw + az * bx - ax * bz,
        aw * bz + az * bw + ax * by - ay * bx,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def rotate(rotation: Quaternion, vector: Vector) -> Vector:
    """Rotate a vector by a quaternion."""
    x, y, z, w = rotation
    tx, ty, tz = cross((x, y, z), vector)
    ux, uy, uz = cross((x, y, z), (tx, ty, tz))
    return (
        vector[0] + 2 * (w * tx + ux),
        vector[1] + 2 * (w * ty + uy),
        vector[2] + 2 * (w * tz + uz),
    )


def cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def interpolate(a: Transform, b: Transform, ratio: float) -> Transform:
    """Interpolate the translation linearly and the rotation by slerp."""
    translation = tuple(p + ratio * (q - p) for p, q in zip(a.translation, b.translation))
    return Transform(translation, slerp(a.rotation, b.rotation, ratio))  # type: ignore[arg-type]


def slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    """Interpolate rotations along the shortest arc (spherical linear interpolation)."""
    cosine = sum(p * q for p, q in zip(a, b))
    if cosine < 0:
        b = (-b[0], -b[1], -b[2], -b[3])
        cosine = -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:
        weight_a, weight_b = 1 - ratio, ratio
    else:
        weight_a = math.sin((1 - ratio) * angle) / math.sin(angle)
        weight_b = math.sin(ratio * angle) / math.sin(angle)
    x, y, z, w = (weight_a * p + weight_b * q for p, q in zip(a, b))
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    return (x / norm, y / norm, z / norm, w / norm)


def angular_displacement(a: Quaternion, b: Quaternion) -> Vector:
    """Return the rotation vector from `a` to `b` in the fixed frame."""
    x, y, z, w = multiply(b, (-a[0], -a[1], -a[2], a[3]))
    if w < 0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    if sine < 1e-12:
        return (2 * x, 2 * y, 2 * z)
    scale = 2 * math.atan2(sine, w) / sine
    return (x * scale, y * scale, z * scale)
