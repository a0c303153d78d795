"""Transforms from TF: subscription, lookup and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.time import Time as RclpyTime
from tf2_ros import Buffer, TransformException, TransformListener

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.drops import NO_TRANSFORM
from metrabs_ros.node.transform_filter import MAX_FRAMES, TransformFilter
from metrabs_ros.people import MM_PER_M

WORLD_UP = np.array([0.0, 0.0, 1.0])
"""Up direction of all world frames (REP 103)."""
INVALID_TRANSFORM = 'transform'
"""Drop cause of frames with an invalid transform."""
MAX_TRANSLATION_M = 1e6
"""Maximum translation; beyond it, the resolution of float32 is too low for positions."""
QUATERNION_NORM_TOLERANCE = 0.1
"""Maximum deviation of the norm of a quaternion from 1."""
LOOKUP_ERRORS = (TransformException, ValueError, TypeError, ArithmeticError)
"""Exceptions that tf2 buffers of various distributions raise for invalid names and stamps."""


@dataclasses.dataclass(frozen=True)
class RigidTransform:
    """
    Rigid transform from a source frame to a target frame.

    Parameters
    ----------
    rotation
        Rotation matrix [3, 3].
    translation_mm
        Translation [3] in millimetres.
    """

    rotation: FloatArray
    translation_mm: FloatArray

    @property
    def matrix(self) -> FloatArray:
        """Homogeneous matrix [4, 4], translation in millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation_mm
        return matrix


class StampedTransform(NamedTuple):
    """A transform and its stamp in seconds, which is 0 for static frames."""

    stamp_s: float
    transform: RigidTransform


class TransformLookup:
    """
    Looks up transforms from TF.

    Lookups do not wait.  A callback registered with `add_callback` is called after new transforms
    have arrived.

    A leading slash of a frame name, as in ROS 1, is ignored.  tf2 removes it from the names of the
    transforms that it stores, but rejects lookups with it.

    Parameters
    ----------
    node
        Node that subscribes to /tf and /tf_static.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = Buffer()
        self._listener: TransformListener | None = None
        self._filter = TransformFilter(self._buffer)
        self._has_warned_full = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def rejected(self) -> int:
        """Number of transforms that were rejected because they are malformed or too old."""
        return self._filter.rejected

    def listen(self, frames: Sequence[str]) -> None:
        """
        Subscribe if not yet subscribed.

        Parameters
        ----------
        frames
            Configured frames, which are stored regardless of their names.
        """
        self._filter.configure(frames)
        if self._listener is None:
            self._listener = _FilteringListener(
                self._buffer, self._node, self._filter, self._notify
            )

    def close(self) -> None:
        """Unsubscribe."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None
            self._buffer = Buffer()
            self._filter = TransformFilter(self._buffer, self._filter.rejected)
            self._has_warned_full = False

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Register a function that is called after each message with transforms."""
        self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Unregister a function of `add_callback`."""
        self._callbacks.remove(callback)

    def can_transform(self, target: str, source: str, stamp: Time) -> bool:
        """Return whether a transform is available now."""
        frames = self._registered(target, source)
        try:
            return bool(self._buffer.can_transform(*frames, RclpyTime.from_msg(stamp)))
        except LOOKUP_ERRORS:
            return False

    def can_transform_at_any_time(self, target: str, source: str) -> bool:
        """Return whether the frames are connected, for the time of the latest transforms."""
        frames = self._registered(target, source)
        try:
            return bool(self._buffer.can_transform(*frames, RclpyTime()))
        except LOOKUP_ERRORS:
            return False

    def lookup(self, target: str, source: str, stamp: Time) -> RigidTransform:
        """
        Return the transform from the source frame to the target frame.

        Raises
        ------
        UnusableInput
            If the transform is not available, not finite, too large or not a rotation.
        """
        return self._lookup(target, source, RclpyTime.from_msg(stamp)).transform

    def lookup_latest(self, target: str, source: str) -> StampedTransform:
        """
        Return the latest transform from the source frame to the target frame.

        Raises
        ------
        UnusableInput
            As for `lookup`.
        """
        return self._lookup(target, source, RclpyTime())

    def _registered(self, target: str, source: str) -> tuple[str, str]:
        """Register looked-up frames; return their names without a leading slash."""
        frames = target.removeprefix('/'), source.removeprefix('/')
        self._filter.register_lookup(*frames)
        return frames

    def _lookup(self, target: str, source: str, stamp: RclpyTime) -> StampedTransform:
        frames = self._registered(target, source)
        try:
            message = self._buffer.lookup_transform(*frames, stamp)
        except LOOKUP_ERRORS as error:
            raise UnusableInput(
                NO_TRANSFORM,
                f"there is no transform from '{printable(source)}' to '{printable(target)}' at "
                f'the time of the image ({printable(error, 200)}); check that the publisher of '
                'the transform runs and uses the same clock as the camera',
            ) from error
        rotation, translation = message.transform.rotation, message.transform.translation
        transform = to_rigid_transform(
            np.array([translation.x, translation.y, translation.z]),
            np.array([rotation.x, rotation.y, rotation.z, rotation.w]),
            f"from '{printable(source)}' to '{printable(target)}'",
        )
        return StampedTransform(to_seconds(message.header.stamp), transform)

    def _notify(self) -> None:
        if self._filter.is_full and not self._has_warned_full:
            self._has_warned_full = True
            self._node.get_logger().warning(
                f'TF has more than {MAX_FRAMES} frames; transforms of further frames are '
                'rejected, except for the frames that this node looks up. Check whether a node '
                'keeps publishing new frame names'
            )
        for callback in list(self._callbacks):
            callback()


class _FilteringListener(TransformListener):
    """
    Stores valid transforms from TF in a buffer, and calls a function after each message.

    `Buffer.wait_for_transform_async` is not used: it would repeat each pending lookup for each
    received transform, of which a robot may publish thousands per second.
    """

    def __init__(
        self,
        buffer: Buffer,
        node: Node,
        transform_filter: TransformFilter,
        notify: Callable[[], None],
    ) -> None:
        self._filter = transform_filter
        self._notify = notify
        super().__init__(buffer, node)

    def callback(self, data: Any) -> None:
        """Store transforms of moving frames."""
        data.transforms = [t for t in data.transforms if self._filter.accepts(t)]
        super().callback(data)
        self._notify()

    def static_callback(self, data: Any) -> None:
        """Store transforms of static frames."""
        data.transforms = [t for t in data.transforms if self._filter.accepts_static(t)]
        super().static_callback(data)
        self._notify()


def to_rigid_transform(
    translation_m: FloatArray, quaternion: FloatArray, name: str
) -> RigidTransform:
    """
    Validate a transform and convert it to a matrix and millimetres.

    Parameters
    ----------
    translation_m
        Translation [3] in metres.
    quaternion
        Quaternion [4], x, y, z, w.
    name
        Name of the transform in error messages.

    Raises
    ------
    UnusableInput
        If a value is not finite or too large, or the norm of the quaternion is not 1.
    """
    # The negated comparisons also reject NaN.
    if not np.abs(translation_m).max() <= MAX_TRANSLATION_M:
        raise UnusableInput(
            INVALID_TRANSFORM,
            f'the transform {name} has the translation {translation_m.tolist()} m; at most '
            f'{MAX_TRANSLATION_M:g} m are allowed',
        )
    with np.errstate(over='ignore'):
        norm = np.linalg.norm(quaternion)
    if not abs(norm - 1) <= QUATERNION_NORM_TOLERANCE:
        raise UnusableInput(
            INVALID_TRANSFORM,
            f'the transform {name} has the rotation {quaternion.tolist()}, which is not a '
            'quaternion of norm 1',
        )
    return RigidTransform(rotation_matrix(*quaternion.tolist()), MM_PER_M * translation_m)
