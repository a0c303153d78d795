"""Canonical points: positions in the body in a reference pose, that NLF localises in images."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import as_numbers
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import format_value
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import MAX_COORDINATE_M
from metrabs_ros.weights.array_file import read_npy

MAX_POINTS = 4096
POINTS_SUFFIX = '.npy'
EXPECTED = (
    f'a name, a {POINTS_SUFFIX} file, or the canonical points [P, 3] of 1 to {MAX_POINTS} joints'
)
MAX_REASON_CHARS = 200
MIN_BODY_SHARE = 0.05
"""Minimum share of the body, seen from the front, that points cover to be localised alone."""


@dataclasses.dataclass(frozen=True)
class PointSet:
    """
    U canonical points that are localised together.

    Parameters
    ----------
    name
        Name of the set.
    skeleton
        Names of the points.
    points_m
        [U, 3], canonical points, metres.
    convention
        The requested joints as combinations of these points.
    """

    name: str
    skeleton: Skeleton
    points_m: FloatArray
    convention: Convention

    def followed_by(self, other: PointSet) -> PointSet:
        """Return the same joints, which are followed by the points of another set."""
        names = (*self.skeleton.joint_names, *other.skeleton.joint_names)
        return PointSet(
            f'{self.name} followed by {other.name}',
            Skeleton('', names, ()),
            np.concatenate([self.points_m, other.points_m]),
            self.convention,
        )


def point_set_of(convention: Convention, skeleton: Skeleton, points_m: FloatArray) -> PointSet:
    """
    Return the points that a convention uses.

    Parameters
    ----------
    convention
        A convention of all J points of a model.
    skeleton
        Names of these points.
    points_m
        [J, 3], the points.
    """
    used = convention.indices
    names = tuple(skeleton.joint_names[i] for i in used)
    return PointSet(
        convention.skeleton.name,
        Skeleton('', names, ()),
        points_m[used],
        dataclasses.replace(convention, indices=np.arange(len(used))),
    )


def cover_body(points_m: FloatArray, low_m: FloatArray, high_m: FloatArray) -> bool:
    """
    Return whether points extend over so much of the body that they can be localised alone.

    A single point has an arbitrary distance, since the scale of the image of a person follows from
    the distances between points; and few points would not cover the box of a person.

    Parameters
    ----------
    points_m
        [P, 3], canonical points.
    low_m, high_m
        [3], bounds of the canonical body.
    """
    if not len(points_m):
        return False
    share = np.prod((np.ptp(points_m, axis=0) / (high_m - low_m))[:2])
    return bool(share >= MIN_BODY_SHARE)


def unnamed_points(points: ArrayLike) -> PointSet:
    """
    Return points that are given as an array [P, 3]; their name depends on their values only.

    Raises
    ------
    ValueError
        If it is not an array of canonical points.
    """
    # A copy: the caller may change the array, and torch rejects negative strides.
    points_m = np.array(as_numbers('skeleton', points), order='C')
    if points_m.ndim == 0:
        raise ValueError(f'skeleton is {format_value(points)}; it must be {EXPECTED}')
    if points_m.ndim != 2 or points_m.shape[1] != 3 or not 0 < len(points_m) <= MAX_POINTS:
        raise ValueError(f'skeleton has shape {points_m.shape}; it must be {EXPECTED}')
    # The condition also rejects NaN.
    if not (np.abs(points_m) <= MAX_COORDINATE_M).all():
        raise ValueError(
            f'skeleton contains coordinates up to {np.abs(points_m).max():g}; canonical points '
            f'are in metres, at most {MAX_COORDINATE_M:g}'
        )
    name = f'points {hashlib.sha256(points_m.tobytes()).hexdigest()}'
    skeleton = Skeleton(name, tuple(f'point_{i}' for i in range(len(points_m))), ())
    return PointSet(name, skeleton, points_m, Convention(skeleton, np.arange(len(points_m))))


def read_points(file: pathlib.Path) -> FloatArray:
    """
    Read the points in a .npy file.

    Raises
    ------
    ValueError
        If the file cannot be read, or contains no numbers.
    """
    try:
        array: Any = read_npy(file)
    # The reader of arrays raises exceptions of many types for damaged files.
    except Exception as error:
        reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
        raise ValueError(f'skeleton file {shown(file)} cannot be read: {reason}') from error
    if array.dtype.kind not in 'fiu':
        raise ValueError(
            f'skeleton file {shown(file)} contains {array.dtype}; expected: canonical points '
            '[P, 3] in metres'
        )
    return array.astype(np.float64)
