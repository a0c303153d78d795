"""What the pose node tells of its work in its diagnostics, once a second."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

SUFFIX = ': frames'
DROPPED = 'dropped: '
QUEUE_SIZE = 10
MOST_DIGITS = 18
FINISHED_BEATS = 3
"""In a row, in which the node has received all images and finished them."""
LOST_BEATS = 10
"""In a row, in which the node has nothing to do and an image did not arrive."""


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
        self._images: int | None = None
        self._expected: int | None = None
        self._finished_beats = self._idle_beats = 0
        self._drops: dict[str, int] = {}
        self._drops_before: dict[str, int] = {}
        node.create_subscription(DiagnosticArray, '/diagnostics', self._take, QUEUE_SIZE)

    def expect_image(self) -> None:
        """Note that an image was sent to the node."""
        if self._expected is None:
            self._expected = self._images
        if self._expected is not None:
            self._expected += 1
        self._finished_beats = self._idle_beats = 0
        self._received_s = time.monotonic()

    def expect_no_more(self) -> None:
        """Note that images that have not arrived are taken for lost."""
        self._expected = None

    @property
    def silent_s(self) -> float:
        """How long ago the node was heard, or an image was sent to it, in seconds."""
        return time.monotonic() - self._received_s

    def has_finished(self) -> bool:
        """Tell whether the node will not answer images any more that were sent to it."""
        return self._finished_beats >= FINISHED_BEATS or self._idle_beats >= LOST_BEATS

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
        counts = {
            v.key: int(v.value)
            for v in status.values
            if v.value.isdecimal() and len(v.value) <= MOST_DIGITS
        }
        drops = {
            key.removeprefix(DROPPED): count
            for key, count in counts.items()
            if key.startswith(DROPPED)
        }
        if drops != self._drops:
            self._drops_before, self._drops = self._drops, drops
        images = counts.get('images')
        if images is None:
            return
        is_idle = images == self._images and images <= counts.get('worked_on', 0) + sum(
            drops.values()
        )
        has_all = self._expected is not None and images >= self._expected
        self._images = images
        self._idle_beats = self._idle_beats + 1 if is_idle else 0
        self._finished_beats = self._finished_beats + 1 if is_idle and has_all else 0
