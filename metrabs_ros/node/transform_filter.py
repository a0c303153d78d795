"""Which of the transforms on /tf the node stores."""

from __future__ import annotations

import math
import re
import time
from typing import Any

MAX_FRAMES = 2000
"""Buffers of tf2 never forget a frame."""
MAX_NAME_CHARS = 200
CACHE_NS = 10_000_000_000
"""How far back in time buffers of tf2 reach."""
BELIEVED_S = 1.0
"""For how long a stamp counts as the newest while only much older ones follow."""
QUATERNION_TOLERANCE = 0.01
"""Of the squared norm, as in tf2."""
PEOPLE_FRAMES = re.compile(r'(?:\w*_)?person_\d+(?:_\w+)?')
"""What pose nodes publish, with new names for every person."""


class TransformFilter:
    """
    Decides which transforms are passed to a buffer of tf2.

    Buffers refuse some transforms by themselves, but write a log line with the frames' names for
    each one, and keep every name for ever.

    Parameters
    ----------
    buffer
        The buffer of tf2.
    refused
        How many were refused before.
    """

    def __init__(self, buffer: Any, refused: int = 0) -> None:
        self.refused = refused
        self._buffer = buffer
        self._frames: set[str] = set()
        self._newest: dict[str, tuple[int, float]] = {}
        """Stamp in nanoseconds, and when it was received, in seconds of a steady clock."""

    def clear(self) -> None:
        """Forget all transforms of moving frames, as time went back."""
        self._buffer.clear()
        self._newest.clear()

    def accepts_static(self, message: Any) -> bool:
        """Tell whether to store a TransformStamped of a fixed frame; count it if not."""
        is_stored = self._is_valid(message) and self._has_room(message)
        self.refused += not is_stored
        return is_stored

    def accepts(self, message: Any) -> bool:
        """Tell whether to store a TransformStamped of a moving frame; count it if malformed."""
        # Otherwise each person would add a frame for good.
        if PEOPLE_FRAMES.fullmatch(message.child_frame_id):
            return False
        return self.accepts_static(message) and self._is_recent(message)

    def _is_valid(self, message: Any) -> bool:
        parent, child = message.header.frame_id, message.child_frame_id
        if not parent or not child or parent == child:
            return False
        if max(len(parent), len(child)) > MAX_NAME_CHARS:
            return False
        move, turn = message.transform.translation, message.transform.rotation
        rotation = (turn.x, turn.y, turn.z, turn.w)
        if not all(map(math.isfinite, (move.x, move.y, move.z, *rotation))):
            return False
        # Not by **, which raises OverflowError.
        return abs(sum(value * value for value in rotation) - 1) < QUATERNION_TOLERANCE

    def _has_room(self, message: Any) -> bool:
        new = {message.header.frame_id, message.child_frame_id} - self._frames
        if new and len(self._frames) + len(new) > MAX_FRAMES:
            return False
        self._frames |= new
        return True

    def _is_recent(self, message: Any) -> bool:
        stamp, frame, now_s = message.header.stamp, message.child_frame_id, time.monotonic()
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        newest_ns, received_s = self._newest.get(frame, (stamp_ns, now_s))
        if stamp_ns < newest_ns - CACHE_NS and now_s > received_s + BELIEVED_S:
            self.clear()
        elif stamp_ns < max(0, newest_ns - CACHE_NS):
            self.refused += 1
            return False
        if stamp_ns >= newest_ns or frame not in self._newest:
            self._newest[frame] = stamp_ns, now_s
        return True
