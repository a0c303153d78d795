"""Transforms of a bag, and the transform between two frames at a stamp."""

from __future__ import annotations

import bisect
import collections
import math
from typing import Any, NamedTuple

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.stamps import NS_PER_S, to_ns
from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.input_files import join_names

MAX_SAMPLES = 100_000
"""Maximum number of stored transforms of moving frames: 10 s of 10,000 transforms per second."""
MAX_STATIC_FRAMES = 2000
MAX_ANCESTORS = 100
"""Maximum number of frames between a frame and the root of its tree."""
MAX_NAME_CHARS = 200
MAX_EXTRAPOLATION_NS = 100_000_000
"""Before and after all transforms of a frame, the nearest one is used for this time."""
MAX_GAP_NS = 10 * NS_PER_S
"""Maximum time between two transforms that are interpolated; the time range of tf2 buffers."""
MAX_TRANSLATION_M = 1e6
"""Maximum translation, as in the node."""
SQUARED_NORM_TOLERANCE = 0.01
"""Maximum deviation of the squared norm of a quaternion from 1, as in tf2."""
MIN_SLERP_ANGLE = 1e-4
"""Smaller angles between quaternions are interpolated linearly, in radians."""
NO_TRANSFORM = 'no transform'
"""Cause of an `UnusableInput`."""


class Transform(NamedTuple):
    """Transform from a child frame to a parent: rotation [3, 3] and translation [3], metres."""

    rotation: FloatArray
    translation_m: FloatArray


class _Sample(NamedTuple):
    """Transform from a child frame to a parent at a stamp; quaternion x, y, z, w."""

    stamp_ns: int
    parent: str
    translation_m: tuple[float, ...]
    quaternion: tuple[float, ...]


class TransformBuffer:
    """
    Stores the latest transforms of a bag, without ROS.

    As in tf2, each transform has its own parent, so that a frame can get another parent.  If there
    are more than `max_samples` transforms of moving frames, the oldest ones are removed; frames
    without transforms do not remain, so that any number of frame names can occur.

    Parameters
    ----------
    max_samples
        Maximum number of transforms of moving frames.
    """

    def __init__(self, max_samples: int = MAX_SAMPLES) -> None:
        self.rejected = 0
        """Number of transforms that were rejected because they are invalid."""
        self.rejection = ''
        """Reason for the first rejection."""
        self._max_samples = max_samples
        self._static: dict[str, _Sample] = {}
        # Sorted by stamp.
        self._moving: dict[str, list[_Sample]] = {}
        # Frames in the order in which their transforms were stored.
        self._order: collections.deque[str] = collections.deque()

    def put(self, message: Any) -> None:
        """Store a TransformStamped of a moving frame."""
        child, sample = _to_sample(message)
        if problem := _problem(child, sample):
            self._reject(child, problem)
            return
        self._static.pop(child, None)
        samples = self._moving.setdefault(child, [])
        position = bisect.bisect_left(samples, sample[:1])
        if position < len(samples) and samples[position].stamp_ns == sample.stamp_ns:
            samples[position] = sample
            return
        samples.insert(position, sample)
        self._order.append(child)
        if len(self._order) > self._max_samples:
            self._remove_oldest()

    def put_static(self, message: Any) -> None:
        """Store a TransformStamped of a static frame; its stamp is not used."""
        child, sample = _to_sample(message)
        problem = _problem(child, sample)
        if not problem and child not in self._static and len(self._static) >= MAX_STATIC_FRAMES:
            problem = f'there are more than {MAX_STATIC_FRAMES} static frames'
        if problem:
            self._reject(child, problem)
            return
        self._moving.pop(child, None)
        self._static[child] = sample

    def has_static(self, child: str) -> bool:
        """Return whether a frame is static."""
        return _frame(child) in self._static

    def static_parents(self) -> dict[str, str]:
        """Return the parent of each static frame."""
        return {child: sample.parent for child, sample in self._static.items()}

    def names(self) -> set[str]:
        """Return the names of all frames."""
        names = set(self._static) | {sample.parent for sample in self._static.values()}
        for child, samples in self._moving.items():
            names.add(child)
            names |= {sample.parent for sample in samples}
        return names

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """
        Return the transform from a source frame to a target frame at a stamp.

        Transforms are interpolated between the stamps before and after it.

        Parameters
        ----------
        target, source
            Names of the frames; a leading slash is ignored.
        stamp_ns
            Stamp in nanoseconds.

        Raises
        ------
        UnusableInput
            If a frame is unknown, the frames are not connected, or the transforms are more than
            `MAX_EXTRAPOLATION_NS` away from the stamp.
        """
        target, source = _frame(target), _frame(source)
        source_path, target_path = self._path(source, stamp_ns), self._path(target, stamp_ns)
        common = next((name for name in source_path if name in target_path), None)
        if common is None or _has_cycle(source_path) or _has_cycle(target_path):
            raise UnusableInput(NO_TRANSFORM, self._explain(target, source, stamp_ns))
        to_common = _compose(source_path, common)
        from_target = _compose(target_path, common)
        inverse = from_target.rotation.T
        return Transform(
            inverse @ to_common.rotation,
            inverse @ (to_common.translation_m - from_target.translation_m),
        )

    def _path(self, frame: str, stamp_ns: int) -> dict[str, _Sample | None]:
        """
        Return the ancestors of a frame, with its own name first.

        Each has its transform to the next one.  The last one, which is the root or has no
        transform at the stamp, has None; without it, the path ends in a cycle or is too long.
        """
        path: dict[str, _Sample | None] = {}
        name = frame
        while name not in path and len(path) <= MAX_ANCESTORS:
            sample = self._sample_at(name, stamp_ns)
            path[name] = sample
            if sample is None:
                break
            name = sample.parent
        return path

    def _sample_at(self, child: str, stamp_ns: int) -> _Sample | None:
        """Return the transform of a frame at a stamp; None if there is none."""
        if child in self._static:
            return self._static[child]
        samples = self._moving.get(child, [])
        position = bisect.bisect_left(samples, (stamp_ns,))
        before = samples[position - 1] if position else None
        after = samples[position] if position < len(samples) else None
        if before is not None and after is not None:
            is_near = after.stamp_ns - before.stamp_ns <= MAX_GAP_NS
            if is_near and before.parent == after.parent:
                return _interpolate(before, after, stamp_ns)
        near = [
            sample
            for sample in (before, after)
            if sample is not None and abs(sample.stamp_ns - stamp_ns) <= MAX_EXTRAPOLATION_NS
        ]
        return min(near, key=lambda sample: abs(sample.stamp_ns - stamp_ns), default=None)

    def _explain(self, target: str, source: str, stamp_ns: int) -> str:
        """Return why there is no transform between two frames."""
        names = self.names()
        for name in (target, source):
            if name not in names:
                return (
                    f"'{printable(name)}' is not in the transforms of the bag so far "
                    f'(frames: {join_names(sorted(names)) or "none"})'
                )
        pair = f"'{printable(source)}' and '{printable(target)}'"
        for name in (target, source):
            path = self._path(name, stamp_ns)
            last = next(reversed(path))
            if _has_cycle(path):
                return f"the transforms of '{printable(last)}' form a cycle"
            if last in self._moving:
                gap_ns = min(abs(s.stamp_ns - stamp_ns) for s in self._moving[last])
                return (
                    f"{pair} are not connected: the transforms of '{printable(last)}' are "
                    f'{gap_ns / NS_PER_S:.1f} s away from the image'
                )
        return f'{pair} are not connected by transforms'

    def _remove_oldest(self) -> None:
        child = self._order.popleft()
        # The transforms of a frame that became static have been removed.
        samples = self._moving.get(child)
        if samples:
            del samples[0]
        if not samples:
            self._moving.pop(child, None)

    def _reject(self, child: str, problem: str) -> None:
        self.rejected += 1
        name = printable(child[:MAX_NAME_CHARS])
        self.rejection = self.rejection or f"the transform of '{name}' is invalid: {problem}"


def _has_cycle(path: dict[str, _Sample | None]) -> bool:
    return next(reversed(path.values())) is not None


def _frame(name: str) -> str:
    """Return the name of a frame without the leading slash of ROS 1."""
    return name.removeprefix('/')


def _to_sample(message: Any) -> tuple[str, _Sample]:
    """Return the child frame of a TransformStamped, and the transform."""
    translation, rotation = message.transform.translation, message.transform.rotation
    return _frame(message.child_frame_id), _Sample(
        to_ns(message.header.stamp),
        _frame(message.header.frame_id),
        (translation.x, translation.y, translation.z),
        (rotation.x, rotation.y, rotation.z, rotation.w),
    )


def _problem(child: str, sample: _Sample) -> str:
    """Return why a transform is invalid; empty if it is valid."""
    if not child or not sample.parent:
        return 'a frame has no name'
    if child == sample.parent:
        return 'the frame is its own parent'
    length = max(len(child), len(sample.parent))
    if length > MAX_NAME_CHARS:
        return f'a name has {length} characters; at most {MAX_NAME_CHARS} are used'
    # The negated comparisons also reject NaN.
    if not all(abs(value) <= MAX_TRANSLATION_M for value in sample.translation_m):
        return (
            f'the translation is {list(sample.translation_m)} m; at most {MAX_TRANSLATION_M:g} m '
            'are allowed'
        )
    if not all(math.isfinite(value) for value in sample.quaternion):
        return f'the rotation is {list(sample.quaternion)}'
    if not abs(_dot(sample.quaternion, sample.quaternion) - 1) < SQUARED_NORM_TOLERANCE:
        return f'the rotation {list(sample.quaternion)} is not a quaternion of norm 1'
    return ''


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b))


def _interpolate(before: _Sample, after: _Sample, stamp_ns: int) -> _Sample:
    """Return the transform at a stamp between those of two samples with the same parent."""
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    translation_m = tuple(
        (1 - share) * x + share * y for x, y in zip(before.translation_m, after.translation_m)
    )
    # A quaternion and its negative are the same rotation; the nearer one is used.
    cosine = _dot(before.quaternion, after.quaternion)
    angle = math.acos(min(abs(cosine), 1.0))
    weights = 1 - share, share
    if angle > MIN_SLERP_ANGLE:
        weights = math.sin((1 - share) * angle), math.sin(share * angle)
    first, second = weights[0], math.copysign(weights[1], cosine)
    mixed = [first * x + second * y for x, y in zip(before.quaternion, after.quaternion)]
    norm = math.hypot(*mixed)
    quaternion = tuple(value / norm for value in mixed)
    return _Sample(stamp_ns, before.parent, translation_m, quaternion)


def _compose(path: dict[str, _Sample | None], ancestor: str) -> Transform:
    """Return the transform from the first frame of a path to one of its ancestors."""
    rotation: FloatArray = np.eye(3)
    translation_m: FloatArray = np.zeros(3)
    for name, sample in path.items():
        if name == ancestor:
            break
        assert sample is not None
        own = rotation_matrix(*sample.quaternion)
        rotation = own @ rotation
        translation_m = own @ translation_m + sample.translation_m
    return Transform(rotation, translation_m)
