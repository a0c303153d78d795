"""Tree of coordinate frames and lookup of transforms."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import rclpy.logging
import rclpy.time
from geometry_msgs.msg import TransformStamped

from ._cache import LATEST, Sample, StaticCache, TimeCache, seconds
from ._errors import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)
from ._transform import (
    Transform,
    Vector,
    angular_displacement,
    cross,
    rotate,
)

__all__ = [
    'BufferCore',
    'ConnectivityException',
    'ExtrapolationException',
    'InvalidArgumentException',
    'LookupException',
    'TimeoutException',
    'TransformException',
]

DEFAULT_CACHE_TIME = 10 * 10**9
MAX_GRAPH_DEPTH = 1000
QUATERNION_NORM_TOLERANCE = 10e-3


class BufferCore:
    """
    Stores the transforms between frames over time.

    Parameters
    ----------
    cache_time
        Time range of the stored transforms, as an rclpy Duration; 10 s by default.
    """

    def __init__(self, cache_time: Any = None) -> None:
        self._cache_time = DEFAULT_CACHE_TIME if cache_time is None else cache_time.nanoseconds
        # In the order of the first occurrence; None for a frame that is only a parent.
        self._frames: dict[str, TimeCache | StaticCache | None] = {}
        self._authorities: dict[str, str] = {}
        self._lock = threading.RLock()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add the transform of a moving frame."""
        self._insert(transform, authority, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Set the transform of a static frame."""
        self._insert(transform, authority, is_static=True)

    def clear(self) -> None:
        """Remove all transforms that are not static."""
        with self._lock:
            for cache in self._frames.values():
                if cache is not None:
                    cache.clear()

    def can_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> tuple[bool, str]:
        """Return whether `lookup_transform_core` would succeed, and the error if not."""
        if target_frame == source_frame:
            return True, ''
        try:
            self._lookup(target_frame, source_frame, _nanoseconds(time), 'canTransform')
        except TransformException as error:
            return False, str(error)
        return True, ''

    def can_transform_full_core(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
    ) -> tuple[bool, str]:
        """Return whether `lookup_transform_full_core` would succeed, and the error if not."""
        try:
            self._lookup_full(
                target_frame,
                _nanoseconds(target_time),
                source_frame,
                _nanoseconds(source_time),
                fixed_frame,
                'canTransform',
            )
        except TransformException as error:
            return False, str(error)
        return True, ''

    def lookup_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> TransformStamped:
        """Return the transform from the source frame to the target frame."""
        transform, stamp = self._lookup(
            target_frame, source_frame, _nanoseconds(time), 'lookupTransform'
        )
        return _message(transform, stamp, target_frame, source_frame)

    def lookup_transform_full_core(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
    ) -> TransformStamped:
        """Return the transform between frames at two times via a fixed frame."""
        transform, stamp = self._lookup_full(
            target_frame,
            _nanoseconds(target_time),
            source_frame,
            _nanoseconds(source_time),
            fixed_frame,
            'lookupTransform',
        )
        return _message(transform, stamp, target_frame, source_frame)

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> rclpy.time.Time:
        """Return the latest time at which the transform between two frames is available."""
        with self._lock:
            self._validate(target_frame, 'get_latest_common_time')
            self._validate(source_frame, 'get_latest_common_time')
            stamp = self._latest_common_stamp(target_frame, source_frame)
        return rclpy.time.Time(nanoseconds=stamp)

    def lookupVelocityCore(  # noqa: N802
        self, tracking_frame: str, observation_frame: str, time: Any, averaging_interval: Any
    ) -> tuple[Vector, Vector]:
        """Return the linear and angular velocity of one frame relative to another."""
        return self.lookupVelocityFullCore(
            tracking_frame,
            observation_frame,
            observation_frame,
            (0.0, 0.0, 0.0),
            tracking_frame,
            time,
            averaging_interval,
        )

    def lookupVelocityFullCore(  # noqa: N802
        self,
        tracking_frame: str,
        observation_frame: str,
        reference_frame: str,
        reference_point: Vector,
        reference_point_frame: str,
        time: Any,
        averaging_interval: Any,
    ) -> tuple[Vector, Vector]:
        """Return the linear and angular velocity of a frame, expressed in a reference frame."""
        stamp = _nanoseconds(time)
        interval = averaging_interval.nanoseconds
        with self._lock:
            self._validate(observation_frame, 'lookupVelocity')
            self._validate(tracking_frame, 'lookupVelocity')
            latest = self._latest_common_stamp(observation_frame, tracking_frame)
            end = min(stamp + interval // 2, latest)
            # The time must not be 0, which requests the latest transform.
            start = max(10_000 + interval, end) - interval
            if end <= start:
                raise ExtrapolationException(
                    f'the velocity of [{tracking_frame}] at time {seconds(stamp)} requires two '
                    'transforms at different times'
                )
            before, _ = self._lookup(observation_frame, tracking_frame, start, 'lookupVelocity')
            after, _ = self._lookup(observation_frame, tracking_frame, end, 'lookupVelocity')
            moment, _ = self._lookup(reference_frame, tracking_frame, stamp, 'lookupVelocity')
            point_frame, _ = self._lookup(
                reference_frame, reference_point_frame, stamp, 'lookupVelocity'
            )
        duration = (end - start) / 1e9
        moved = tuple((q - p) / duration for p, q in zip(before.translation, after.translation))
        turned = tuple(
            angle / duration for angle in angular_displacement(before.rotation, after.rotation)
        )
        angular = rotate(moment.rotation, turned)  # type: ignore[arg-type]
        linear = rotate(moment.rotation, moved)  # type: ignore[arg-type]
        point = rotate(point_frame.rotation, reference_point)
        arm = tuple(
            p + q - o for p, q, o in zip(point, point_frame.translation, moment.translation)
        )
        around_origin = cross(moment.translation, angular)
        around_point = cross(angular, arm)  # type: ignore[arg-type]
        x, y, z = (sum(terms) for terms in zip(linear, around_origin, around_point))
        return (x, y, z), angular

    def all_frames_as_string(self) -> str:
        """List all frames with their parents, one per line."""
        with self._lock:
            return ''.join(
                f'Frame {frame} exists with parent {sample.parent if sample else "NO_PARENT"}.\n'
                for frame, cache in self._frames.items()
                if cache is not None
                for sample in [cache.latest()]
            )

    def all_frames_as_yaml(self) -> str:
        """Return a YAML description of all frames: parent, broadcaster, rate and times."""
        with self._lock:
            entries = [
                f'{frame}: \n'
                f"  parent: '{sample.parent}'\n"
                f"  broadcaster: '{self._authorities.get(frame, 'no recorded authority')}'\n"
                f'  rate: {_rate(cache):.3f}\n'
                f'  most_recent_transform: {seconds(cache.latest_stamp())}\n'
                f'  oldest_transform: {seconds(cache.oldest_stamp())}\n'
                f'  buffer_length: {(cache.latest_stamp() - cache.oldest_stamp()) / 1e9:.3f}\n'
                for frame, cache, sample in self._known_frames()
            ]
        return ''.join(entries) if entries else '[]'

    def _allFramesAsDot(self, time: Any = None) -> str:  # noqa: N802
        with self._lock:
            edges = [
                f'"{sample.parent}" -> "{frame}"[label="Broadcaster: '
                f'{self._authorities.get(frame, "no recorded authority")}\\n'
                f'Average rate: {_rate(cache):.3f} Hz\\n'
                f'Most recent transform: {seconds(cache.latest_stamp())}\\n"];\n'
                for frame, cache, sample in self._known_frames()
            ]
        return 'digraph G {\n' + ''.join(edges) + '}'

    def _frameExists(self, frame_id: str) -> bool:  # noqa: N802
        return frame_id in self._frames

    def _getFrameStrings(self) -> list[str]:  # noqa: N802
        return list(self._frames)

    def _chain(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
    ) -> list[str]:
        with self._lock:
            from_source = self._path(fixed_frame, source_frame, _nanoseconds(source_time))
            to_target = self._path(target_frame, fixed_frame, _nanoseconds(target_time))
        return from_source + [frame for frame in to_target if frame not in from_source]

    def _known_frames(self) -> Iterator[tuple[str, TimeCache | StaticCache, Sample]]:
        for frame, cache in self._frames.items():
            sample = None if cache is None else cache.latest()
            if cache is not None and sample is not None:
                yield frame, cache, sample

    def _insert(self, message: TransformStamped, authority: str, is_static: bool) -> None:
        parent = message.header.frame_id.removeprefix('/')
        child = message.child_frame_id.removeprefix('/')
        move, turn = message.transform.translation, message.transform.rotation
        transform = Transform((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
        error = _validation_error(parent, child, transform)
        if error:
            rclpy.logging.get_logger('tf2').error(
                f'{error}: ignoring the transform from [{parent}] to [{child}] of authority '
                f'"{authority}"'
            )
            return
        stamp = _nanoseconds(message.header.stamp)
        with self._lock:
            self._frames.setdefault(child, None)
            self._frames.setdefault(parent, None)
            cache = self._frames[child]
            if cache is None or isinstance(cache, StaticCache) != is_static:
                cache = StaticCache() if is_static else TimeCache(self._cache_time)
                self._frames[child] = cache
            if cache.insert(Sample(stamp, parent, transform)):
                self._authorities[child] = authority
                return
        rclpy.logging.get_logger('tf2').warning(
            f'TF_OLD_DATA: ignoring data from the past for frame {child} at time '
            f'{seconds(stamp)} of authority "{authority}"'
        )

    def _lookup(
        self, target: str, source: str, stamp: int, function: str
    ) -> tuple[Transform, int]:
        """Return the transform from source to target and its time."""
        with self._lock:
            if target == source:
                cache = self._frames.get(target)
                if stamp == LATEST and cache is not None:
                    stamp = cache.latest_stamp()
                return Transform(), stamp
            self._validate(target, f'{function} argument target_frame')
            self._validate(source, f'{function} argument source_frame')
            if stamp == LATEST:
                stamp = self._latest_common_stamp(target, source)
            source_to_top, target_to_top = self._transforms_to_common_ancestor(
                target, source, stamp
            )
            return target_to_top.inverse() * source_to_top, stamp

    def _lookup_full(
        self,
        target: str,
        target_stamp: int,
        source: str,
        source_stamp: int,
        fixed: str,
        function: str,
    ) -> tuple[Transform, int]:
        with self._lock:
            self._validate(target, f'{function} argument target_frame')
            self._validate(source, f'{function} argument source_frame')
            self._validate(fixed, f'{function} argument fixed_frame')
            to_fixed, _ = self._lookup(fixed, source, source_stamp, function)
            to_target, stamp = self._lookup(target, fixed, target_stamp, function)
        return to_target * to_fixed, stamp

    def _transforms_to_common_ancestor(
        self, target: str, source: str, stamp: int
    ) -> tuple[Transform, Transform]:
        """Return the transforms of source and target to their lowest common ancestor."""
        context = f', when looking up transform from frame [{source}] to frame [{target}]'
        source_ancestors = {source: Transform()}
        source_error: ExtrapolationException | None = None
        try:
            for frame, transform in self._ascend(source, stamp):
                source_ancestors[frame] = transform
                if frame == target:
                    return transform, Transform()
        except ExtrapolationException as error:
            # The common ancestor may be below the frame without a transform at this time.
            source_error = error
        try:
            for frame, transform in self._ascend(target, stamp):
                if frame in source_ancestors:
                    return source_ancestors[frame], transform
        except ExtrapolationException as error:
            raise type(error)(f'{error}{context}') from None
        if source_error is not None:
            raise type(source_error)(f'{source_error}{context}')
        raise _unconnected(target, source)

    def _ascend(self, frame: str, stamp: int) -> Iterator[tuple[str, Transform]]:
        """Yield the ancestors of a frame up to the root, with the transforms to them."""
        to_top = Transform()
        for _ in range(MAX_GRAPH_DEPTH):
            cache = self._frames[frame]
            if cache is None:
                return
            sample = cache.at(stamp)
            to_top = sample.transform * to_top
            frame = sample.parent
            yield frame, to_top
        raise self._loop()

    def _latest_common_stamp(self, target: str, source: str) -> int:
        """Return the latest time at which all transforms between two frames are available."""
        if source == target:
            cache = self._frames[source]
            return LATEST if cache is None else cache.latest_stamp()
        # Latest common time from the source up to each ancestor; static transforms have no time.
        latest_up_to = {source: math.inf}
        latest = math.inf
        for frame, stamp in self._ascend_latest(source):
            latest = min(latest, stamp or math.inf)
            latest_up_to[frame] = latest
        latest = math.inf
        if target not in latest_up_to:
            for frame, stamp in self._ascend_latest(target):
                latest = min(latest, stamp or math.inf)
                if frame in latest_up_to:
                    target = frame
                    break
            else:
                raise _unconnected(target, source)
        latest = min(latest, latest_up_to[target])
        return LATEST if latest == math.inf else int(latest)

    def _ascend_latest(self, frame: str) -> Iterator[tuple[str, int]]:
        """Yield the ancestors of a frame by the latest transforms, with the times of these."""
        for _ in range(MAX_GRAPH_DEPTH):
            cache = self._frames[frame]
            sample = None if cache is None else cache.latest()
            if sample is None:
                return
            frame = sample.parent
            yield frame, sample.stamp
        raise self._loop()

    def _path(self, target: str, source: str, stamp: int) -> list[str]:
        """Return the frames on the path from source to target, including both."""
        self._validate(target, '_chain')
        self._validate(source, '_chain')
        if stamp == LATEST:
            stamp = self._latest_common_stamp(target, source)
        up = [source, *(frame for frame, _ in self._ascend(source, stamp))]
        down = [target, *(frame for frame, _ in self._ascend(target, stamp))]
        for place, frame in enumerate(down):
            if frame in up:
                return up[: up.index(frame) + 1] + down[:place][::-1]
        raise _unconnected(target, source)

    def _validate(self, frame: str, argument: str) -> None:
        if not frame or frame.startswith('/'):
            fault = "cannot start with a '/'" if frame else 'cannot be empty'
            raise InvalidArgumentException(
                f'Invalid argument "{frame}" passed to {argument} - in tf2 frame_ids {fault}'
            )
        if frame not in self._frames:
            raise LookupException(f'"{frame}" passed to {argument} does not exist. ')

    def _loop(self) -> LookupException:
        return LookupException(
            f'The tf tree is invalid because it contains a loop.\n{self.all_frames_as_string()}'
        )


def _unconnected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not "
        'part of the same tree.Tf has two or more unconnected trees.'
    )


def _validation_error(parent: str, child: str, transform: Transform) -> str:
    if not child:
        return 'TF_NO_CHILD_FRAME_ID'
    if not parent:
        return 'TF_NO_FRAME_ID'
    if parent == child:
        return 'TF_SELF_TRANSFORM'
    if any(math.isnan(value) for value in (*transform.translation, *transform.rotation)):
        return 'TF_NAN_INPUT'
    if abs(sum(q * q for q in transform.rotation) - 1) >= QUATERNION_NORM_TOLERANCE:
        return 'TF_DENORMALIZED_QUATERNION'
    return ''


def _rate(cache: TimeCache | StaticCache) -> float:
    return len(cache) * 1e9 / max(cache.latest_stamp() - cache.oldest_stamp(), 100_000)


def _nanoseconds(time: Any) -> int:
    """Convert a time message or an rclpy time to nanoseconds."""
    if hasattr(time, 'sec') and hasattr(time, 'nanosec'):
        return int(time.sec) * 10**9 + int(time.nanosec)
    if hasattr(time, 'nanoseconds'):
        return int(time.nanoseconds)
    raise TypeError('time must have sec and nanosec, or nanoseconds.')


def _message(
    transform: Transform, stamp: int, target_frame: str, source_frame: str
) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    message.header.frame_id = target_frame
    message.child_frame_id = source_frame
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = transform.translation
    turn.x, turn.y, turn.z, turn.w = transform.rotation
    return message
