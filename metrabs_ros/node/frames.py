"""Which way is up, and where the camera is, by TF."""

from __future__ import annotations

import dataclasses

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time as RclpyTime
from tf2_ros import Buffer, TransformException, TransformListener

from metrabs_ros.arrays import FloatArray
from metrabs_ros.messages.people import MM_PER_M
from metrabs_ros.messages.unusable import UnusableInput

WORLD_UP = np.array([0.0, 0.0, 1.0])
"""Of all world frames, by REP 103."""


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
    What TF knows.

    Parameters
    ----------
    node
        Which subscribes to TF; somebody else must spin it while this waits.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = Buffer()
        self._listener: TransformListener | None = None

    def listen(self) -> None:
        """Subscribe, if this has not been done."""
        if self._listener is None:
            self._listener = TransformListener(self._buffer, self._node)

    def close(self) -> None:
        """Unsubscribe."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None
            self._buffer = Buffer()

    def motion(self, target: str, source: str, stamp: Time, timeout_s: float) -> Motion:
        """
        Return what takes points of the source frame to the target frame.

        Raises
        ------
        UnusableInput
            If TF does not know.
        """
        try:
            found = self._buffer.lookup_transform(
                target, source, RclpyTime.from_msg(stamp), Duration(seconds=timeout_s)
            )
        # Odd names and stamps make the buffers of various distributions raise various errors.
        except (TransformException, ValueError, TypeError, OverflowError) as error:
            raise UnusableInput(
                f'no transform to {target}',
                f'there is no transform from {source!r} to {target!r} at the time of the image '
                f'({error}); is what publishes it running, and with the right stamps?',
            ) from error
        turn, move = found.transform.rotation, found.transform.translation
        rotation = rotation_matrix(turn.x, turn.y, turn.z, turn.w)
        return Motion(rotation, MM_PER_M * np.array([move.x, move.y, move.z]))


def rotation_matrix(x: float, y: float, z: float, w: float) -> FloatArray:
    """Return the rotation [3, 3] of a quaternion of any length but 0."""
    axis = np.array([x, y, z])
    norm = max(float(axis @ axis + w * w), 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 / norm * (w * cross + cross @ cross)
