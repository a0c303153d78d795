"""What the pose node tells of its work in its diagnostics, once a second."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

SUFFIX = ': frames'
DROPPED = 'dropped: '
QUEUE_SIZE = 10


class Heartbeat:
    """
    Tells whether the pose node lives and works.

    On a machine under load everything takes longer, so that waiting for a fixed time fails.  As
    long as the diagnostics come, waiting makes sense; once they say that all images are finished,
    it does not.

    Parameters
    ----------
    node
        The node that subscribes.
    """

    def __init__(self, node: Node) -> None:
        self.count = 0
        self._received_s = time.monotonic()
        self._images = -1
        self._idle_beats = 0
        self._drops: dict[str, int] = {}
        self._drops_before: dict[str, int] = {}
        node.create_subscription(DiagnosticArray, '/diagnostics', self._take, QUEUE_SIZE)

    def restart(self) -> None:
        """Note that the node has got something to do."""
        self._idle_beats = 0
        self._received_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """How long nothing was heard of the node since it has got something to do."""
        return time.monotonic() - self._received_s

    @property
    def idle_beats(self) -> int:
        """How often in a row the node said since then that all its images are finished."""
        return self._idle_beats

    def newest_drop(self) -> str:
        """Return for what cause most images were dropped lately, empty if none was."""
        new = {
            cause: count - self._drops_before.get(cause, 0) for cause, count in self._drops.items()
        }
        return max(new, key=lambda cause: new[cause]) if any(new.values()) else ''

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(SUFFIX):
                self._take_status(status)

    def _take_status(self, status: DiagnosticStatus) -> None:
        self.count += 1
        self._received_s = time.monotonic()
        counts = {v.key: int(v.value) for v in status.values if v.value.isdecimal()}
        drops = {
            key.removeprefix(DROPPED): count
            for key, count in counts.items()
            if key.startswith(DROPPED)
        }
        if drops != self._drops:
            self._drops_before, self._drops = self._drops, drops
        images = counts.get('images', -1)
        finished = counts.get('worked_on', 0) + sum(drops.values())
        is_idle = 0 <= images <= finished and images == self._images
        self._images = images
        self._idle_beats = self._idle_beats + 1 if is_idle else 0
