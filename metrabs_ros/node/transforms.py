"""Which way is up, and where the camera is, by TF."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.time import Time as RclpyTime
from tf2_ros import Buffer, TransformException, TransformListener

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import MM_PER_M
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.drops import NO_TRANSFORM
from metrabs_ros.node.transform_filter import MAX_FRAMES, TransformFilter

WORLD_UP = np.array([0.0, 0.0, 1.0])
"""Of all world frames, by REP 103."""
INVALID_TRANSFORM = 'transform'
"""The cause that frames with such a transform are counted by."""
MAX_TRANSLATION_M = 1e6
"""Positions of people could not be told apart beyond that."""
QUATERNION_TOLERANCE = 0.1
"""How much the length of a rotation's quaternion may differ from 1."""
LOOKUP_ERRORS = (TransformException, ValueError, TypeError, ArithmeticError)
"""What the buffers of various distributions raise for odd names, stamps and values."""


@dataclasses.dataclass(frozen=True)
class Motion:
    """
    From one frame to another.

    Parameters
    ----------
    rotation
        [3, 3].
    translation_mm
        [3].
    """

    rotation: FloatArray
    translation_mm: FloatArray

    @property
    def matrix(self) -> FloatArray:
        """Both in one, [4, 4]."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation_mm
        return matrix


class Frames:
    """
    What is known from TF.

    Lookups do not wait: `add_callback` tells when there is something new.

    Parameters
    ----------
    node
        The node that subscribes to TF.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = Buffer()
        self._listener: TransformListener | None = None
        self._filter = TransformFilter(self._buffer)
        self._told_full = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def refused(self) -> int:
        """How many transforms were not stored, as they are malformed or too old."""
        return self._filter.refused

    def listen(self, frames: Sequence[str]) -> None:
        """
        Subscribe, unless this has been done.

        Parameters
        ----------
        frames
            The configured frames, which are stored whatever their names are.
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
            self._filter = TransformFilter(self._buffer, self._filter.refused)
            self._told_full = False

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a function called after each message with transforms."""
        self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_callback`."""
        self._callbacks.remove(callback)

    def can_transform(self, target: str, source: str, stamp: Time) -> bool:
        """Tell whether `motion` would succeed now."""
        self._filter.note_lookup(target, source)
        try:
            found = self._buffer.can_transform(target, source, RclpyTime.from_msg(stamp))
        except LOOKUP_ERRORS:
            return False
        return bool(found)

    def motion(self, target: str, source: str, stamp: Time) -> Motion:
        """
        Return the motion that takes points of the source frame to the target frame.

        Raises
        ------
        UnusableInput
            If TF has no such transform, or one that is not finite, too large or not a rotation.
        """
        self._filter.note_lookup(target, source)
        try:
            found = self._buffer.lookup_transform(target, source, RclpyTime.from_msg(stamp))
        except LOOKUP_ERRORS as error:
            raise UnusableInput(
                NO_TRANSFORM,
                f"there is no transform from '{printable(source)}' to '{printable(target)}' at "
                f'the time of the image ({printable(error, 200)}); is what publishes it running, '
                'and with the right stamps?',
            ) from error
        turn, move = found.transform.rotation, found.transform.translation
        return to_motion(
            np.array([move.x, move.y, move.z]),
            np.array([turn.x, turn.y, turn.z, turn.w]),
            f"from '{printable(source)}' to '{printable(target)}'",
        )

    def _notify(self) -> None:
        if self._filter.is_full and not self._told_full:
            self._told_full = True
            self._node.get_logger().warning(
                f'TF has more than {MAX_FRAMES} frames; transforms of further frames are refused, '
                'except for the frames that this node looks up. Does a node publish ever new '
                'frame names?'
            )
        for callback in list(self._callbacks):
            callback()


class _FilteringListener(TransformListener):
    """
    Fills a buffer with usable transforms from TF, and calls a function after each message.

    `Buffer.wait_for_transform_async` would look up every transform that is waited for once per
    transform that comes in, of which a robot may send thousands per second.
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
        """Take transforms of moving frames."""
        data.transforms = [t for t in data.transforms if self._filter.accepts(t)]
        super().callback(data)
        self._notify()

    def static_callback(self, data: Any) -> None:
        """Take transforms of fixed frames."""
        data.transforms = [t for t in data.transforms if self._filter.accepts_static(t)]
        super().static_callback(data)
        self._notify()


def to_motion(translation_m: FloatArray, quaternion: FloatArray, which: str) -> Motion:
    """
    Return the motion of a transform.

    Parameters
    ----------
    translation_m
        [3].
    quaternion
        [4], x, y, z, w.
    which
        Names the transform in error messages.

    Raises
    ------
    UnusableInput
        If a value is not finite or too large, or the quaternion is not of length 1.
    """
    # Infinite and NaN values fail both comparisons.
    if not np.abs(translation_m).max() <= MAX_TRANSLATION_M:
        raise UnusableInput(
            INVALID_TRANSFORM,
            f'the transform {which} has the translation {translation_m.tolist()} m; at most '
            f'{MAX_TRANSLATION_M:g} m are allowed',
        )
    with np.errstate(over='ignore'):
        length = np.linalg.norm(quaternion)
    if not abs(length - 1) <= QUATERNION_TOLERANCE:
        raise UnusableInput(
            INVALID_TRANSFORM,
            f'the transform {which} has the rotation {quaternion.tolist()}, which is not a '
            'quaternion of length 1',
        )
    return Motion(rotation_matrix(*quaternion.tolist()), MM_PER_M * translation_m)


def rotation_matrix(x: float, y: float, z: float, w: float) -> FloatArray:
    """Return the rotation [3, 3] of a quaternion of any length but 0."""
    axis = np.array([x, y, z])
    norm = max(float(axis @ axis + w * w), 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 / norm * (w * cross + cross @ cross)
