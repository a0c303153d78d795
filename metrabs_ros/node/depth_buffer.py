"""Buffer of the latest depth images of a camera, which are matched to images by stamp."""

from __future__ import annotations

import collections
import threading
import time
from typing import NamedTuple

import numpy as np

from metrabs_ros.conversions.depth_images import MAX_OFFSET_NS
from metrabs_ros.conversions.stamps import to_ns
from metrabs_ros.node.size_limited_subscription import stamp_of

MAX_MESSAGES = 16
MAX_MESSAGE_BYTES = 64 * 1024**2
"""Larger messages are not stored: 16 million pixels in metres."""
MAX_BYTES = 64 * 1024**2
"""Maximum total size of stored messages; two messages of any size are allowed."""
REGULAR_S = 0.5
"""Images do not wait for depth images if none was received for this time."""


class DepthMessage(NamedTuple):
    """
    A serialised depth image.

    Parameters
    ----------
    stamp_ns
        Stamp in nanoseconds.
    serialised
        The message; empty if it was too large.
    size_bytes
        Size of the message.
    """

    stamp_ns: int
    serialised: bytes
    size_bytes: int


class DepthBuffer:
    """
    Stores serialised depth images, a limited number and size of them.

    They are deserialised by the worker thread, because that takes time for large messages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: collections.deque[DepthMessage] = collections.deque(maxlen=MAX_MESSAGES)
        self._received_s = -np.inf
        self._latest_image_ns = 0
        # Depth images that arrive after the next image are not waited for.
        self._arrive_in_time = True

    def add(self, serialised: bytes) -> None:
        """Add a serialised message whose first field is a header."""
        stamp_ns = to_ns(stamp_of(serialised))
        size_bytes = len(serialised)
        if size_bytes > MAX_MESSAGE_BYTES:
            serialised = b''
        with self._lock:
            if self._messages and stamp_ns < self._messages[-1].stamp_ns - MAX_OFFSET_NS:
                # The stamps jumped back.
                self._messages.clear()
            self._messages.append(DepthMessage(stamp_ns, serialised, size_bytes))
            while len(self._messages) > 2 and self._total_bytes() > MAX_BYTES:
                self._messages.popleft()
            self._received_s = time.monotonic()
            # No depth image before or after is nearer to the latest image.
            if 2 * abs(stamp_ns - self._latest_image_ns) <= self._period_ns():
                self._arrive_in_time = True

    def nearest(self, stamp_ns: int) -> DepthMessage | None:
        """Return the message with the nearest stamp, or None without messages."""
        with self._lock:
            return self._nearest(stamp_ns)

    def take_for(self, stamp_ns: int) -> DepthMessage | None:
        """Return the nearest message for an image that does not wait any longer."""
        with self._lock:
            nearest = self._nearest(stamp_ns)
            if self._may_improve(stamp_ns, nearest):
                self._arrive_in_time = False
            return nearest

    def is_worth_waiting(self, stamp_ns: int) -> bool:
        """Return whether a depth image nearer to the stamp of a new image may still arrive."""
        with self._lock:
            self._latest_image_ns = stamp_ns
            is_regular = time.monotonic() - self._received_s < REGULAR_S
            if not is_regular or not self._arrive_in_time:
                return False
            return self._may_improve(stamp_ns, self._nearest(stamp_ns))

    def _may_improve(self, stamp_ns: int, nearest: DepthMessage | None) -> bool:
        """Return whether the next depth image is expected to be nearer, and near enough."""
        if nearest is None or nearest.stamp_ns != self._messages[-1].stamp_ns:
            return False
        if nearest.stamp_ns >= stamp_ns:
            return False
        expected_ns = nearest.stamp_ns + self._period_ns()
        offset_ns = abs(expected_ns - stamp_ns)
        return offset_ns <= MAX_OFFSET_NS and offset_ns < stamp_ns - nearest.stamp_ns

    def _period_ns(self) -> int:
        """Return the median time between two messages; 0 if it is not known."""
        stamps_ns = [message.stamp_ns for message in self._messages]
        return int(np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else 0

    def _nearest(self, stamp_ns: int) -> DepthMessage | None:
        return min(
            self._messages, key=lambda message: abs(message.stamp_ns - stamp_ns), default=None
        )

    def _total_bytes(self) -> int:
        return sum(len(message.serialised) for message in self._messages)
