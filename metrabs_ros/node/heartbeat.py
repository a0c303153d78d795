"""Monitor of the diagnostics that the pose node publishes once per second."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

STATUS_SUFFIX = ': frames'
DROPPED_PREFIX = 'dropped: '
QUEUE_SIZE = 10
MAX_DIGITS = 18
MIN_FINISHED_REPORTS = 3
"""Consecutive reports without pending images after which all sent images count as finished."""
MAX_IDLE_REPORTS = 10
"""Consecutive idle reports after which the pose node is not expected to receive further images."""


class PoseNodeMonitor:
    """
    Monitors whether the pose node is alive and has finished the images sent to it.

    A fixed timeout would fail on a machine under load.  Instead, a client waits as long as
    diagnostics arrive and report pending images.

    Parameters
    ----------
    node
        Node that subscribes to /diagnostics.
    """

    def __init__(self, node: Node) -> None:
        self.count = 0
        """Number of received reports."""
        self._received_s = time.monotonic()
        self._images: int | None = None
        self._expected: int | None = None
        self._finished_reports = self._idle_reports = 0
        self._drops: dict[str, int] = {}
        self._previous_drops: dict[str, int] = {}
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, QUEUE_SIZE)

    def expect_image(self) -> None:
        """Register an image that was sent to the pose node."""
        if self._expected is None:
            self._expected = self._images
        if self._expected is not None:
            self._expected += 1
        self._finished_reports = self._idle_reports = 0
        self._received_s = time.monotonic()

    def expect_no_more(self) -> None:
        """Stop waiting for images that the pose node has not received."""
        self._expected = None

    @property
    def silent_s(self) -> float:
        """Time since the last report or the last image sent, in seconds."""
        return time.monotonic() - self._received_s

    def has_finished(self) -> bool:
        """Return whether no further results are expected for the images sent so far."""
        return (
            self._finished_reports >= MIN_FINISHED_REPORTS
            or self._idle_reports >= MAX_IDLE_REPORTS
        )

    def newest_drop(self) -> str:
        """Return the most frequent cause of recent drops; empty if no image was dropped."""
        new = {
            cause: count - self._previous_drops.get(cause, 0)
            for cause, count in self._drops.items()
        }
        return max(new, key=lambda cause: new[cause]) if any(new.values()) else ''

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(STATUS_SUFFIX):
                self._on_status(status)

    def _on_status(self, status: DiagnosticStatus) -> None:
        self.count += 1
        self._received_s = time.monotonic()
        counts = {
            v.key: int(v.value)
            for v in status.values
            if v.value.isdecimal() and len(v.value) <= MAX_DIGITS
        }
        drops = {
            key.removeprefix(DROPPED_PREFIX): count
            for key, count in counts.items()
            if key.startswith(DROPPED_PREFIX)
        }
        if drops != self._drops:
            self._previous_drops, self._drops = self._drops, drops
        images = counts.get('images')
        if images is None:
            return
        is_idle = images == self._images and images <= counts.get('processed', 0) + sum(
            drops.values()
        )
        has_all = self._expected is not None and images >= self._expected
        self._images = images
        self._idle_reports = self._idle_reports + 1 if is_idle else 0
        self._finished_reports = self._finished_reports + 1 if is_idle and has_all else 0
