"""Selection of the transforms from /tf that the node stores."""

from __future__ import annotations

import collections
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from metrabs_ros.conversions.stamps import to_ns
from metrabs_ros.conversions.transforms import BODY_FRAME

MAX_FRAMES = 2000
"""Maximum number of stored frames.  It is limited because tf2 buffers never remove a frame."""
RESERVED_FRAMES = 200
"""Additional frames reserved for those that the node looks up and their ancestors."""
MAX_LOOKUPS = 64
"""Number of most recently looked-up frames, which are stored regardless of their names."""
MAX_ANCESTORS = 50
"""Maximum number of frames between a frame and the root of its tree."""
MAX_NAME_CHARS = 200
CACHE_NS = 10_000_000_000
"""Time range of the transforms in a tf2 buffer, in nanoseconds."""
JUMP_CONFIRMATION_S = 1.0
"""Time after the newest stamp from which much older stamps count as a jump back in time."""
ACTIVE_TIMEOUT_S = 5.0
"""Frames without transforms for this time are ignored when detecting a jump back in time."""
MIN_REBUILD_PERIOD_S = 10.0
"""Minimum time between two rebuilds of the buffer because of a single frame, in seconds."""
KEPT_TRANSFORMS = 8
"""Number of latest transforms per frame that are kept to rebuild the buffer."""
SQUARED_NORM_TOLERANCE = 0.01
"""Maximum deviation of the squared norm of a quaternion from 1, as in tf2."""
PERSON_FRAME = re.compile(r'.*person_\d+', re.DOTALL)
"""Frame names of pose nodes: any prefix, and a new number for each person."""


class TransformFilter:
    """
    Selects the transforms that are stored in a tf2 buffer.

    A tf2 buffer also rejects invalid transforms, but it logs a message for each of them and never
    removes a frame name.

    Parameters
    ----------
    buffer
        Buffer of tf2.
    rejected
        Initial number of rejected transforms.
    """

    def __init__(self, buffer: Any, rejected: int = 0) -> None:
        self.rejected = rejected
        self.is_full = False
        """Whether the maximum number of frames was reached."""
        self._buffer = buffer
        self._frames: set[str] = set()
        self._parents: dict[str, str] = {}
        self._configured: Sequence[str] = ()
        self._looked_up: dict[str, None] = {}
        self._lookups_lock = threading.Lock()
        self._newest: dict[str, tuple[int, float]] = {}
        """Newest stamp in nanoseconds and its time of reception on the steady clock, by frame."""
        self._latest: dict[str, collections.deque[Any]] = {}
        """Latest stored transforms, by moving frame."""
        self._received_s: dict[str, float] = {}
        self._went_back_s: dict[str, float] = {}
        """Time at which the stamps of a frame last jumped back."""
        self._rebuilt_s = -math.inf

    def configure(self, frames: Sequence[str]) -> None:
        """Set the configured frames.  They and their ancestors are stored in any case."""
        self._configured = frames

    def register_lookup(self, *frames: str) -> None:
        """Register looked-up frames.  They and their ancestors are stored in any case."""
        with self._lookups_lock:
            for frame in frames:
                if len(frame) <= MAX_NAME_CHARS:
                    # Removed first, so that it becomes the most recent entry.
                    self._looked_up.pop(frame, None)
                    self._looked_up[frame] = None
            while len(self._looked_up) > MAX_LOOKUPS:
                del self._looked_up[next(iter(self._looked_up))]

    def accepts_static(self, message: Any) -> bool:
        """Return whether to store a TransformStamped of a static frame; count rejected ones."""
        is_stored = self._is_valid(message) and self._has_room(message)
        self.rejected += not is_stored
        if is_stored:
            self._parents[message.child_frame_id] = message.header.frame_id
        return is_stored

    def accepts(self, message: Any) -> bool:
        """Return whether to store a TransformStamped of a moving frame; count rejected ones."""
        # Otherwise each person would add a permanent frame to the buffer.
        if _is_of_person(message) and not self._is_required(message.child_frame_id):
            return False
        return self.accepts_static(message) and self._is_recent(message)

    def _is_valid(self, message: Any) -> bool:
        parent, child = message.header.frame_id, message.child_frame_id
        if not parent or not child or parent == child:
            return False
        if max(len(parent), len(child)) > MAX_NAME_CHARS:
            return False
        translation, rotation = message.transform.translation, message.transform.rotation
        quaternion = (rotation.x, rotation.y, rotation.z, rotation.w)
        values = (translation.x, translation.y, translation.z, *quaternion)
        if not all(map(math.isfinite, values)):
            return False
        # Without **, which raises OverflowError.
        return abs(sum(value * value for value in quaternion) - 1) < SQUARED_NORM_TOLERANCE

    def _has_room(self, message: Any) -> bool:
        parent, child = message.header.frame_id, message.child_frame_id
        new = {parent, child} - self._frames
        count = len(self._frames) + len(new)
        if new and count > MAX_FRAMES:
            self.is_full = True
            if count > MAX_FRAMES + RESERVED_FRAMES or not self._is_required(child):
                return False
        self._frames |= new
        return True

    def _is_required(self, frame: str) -> bool:
        """Return whether a frame is configured or looked up, or is an ancestor of such a frame."""
        with self._lookups_lock:
            required = [*self._configured, *self._looked_up]
        return any(frame in self._ancestors(start) for start in required)

    def _ancestors(self, frame: str) -> Iterator[str]:
        """Yield a frame and its known ancestors."""
        for _ in range(MAX_ANCESTORS):
            yield frame
            if frame not in self._parents:
                return
            frame = self._parents[frame]

    def _is_recent(self, message: Any) -> bool:
        """Return whether the stamp is recent enough for the buffer; count rejected transforms."""
        stamp, frame, now_s = message.header.stamp, message.child_frame_id, time.monotonic()
        stamp_ns = to_ns(stamp)
        newest_ns, newest_received_s = self._newest.get(frame, (stamp_ns, now_s))
        self._received_s[frame] = now_s
        if stamp_ns < newest_ns - CACHE_NS and now_s > newest_received_s + JUMP_CONFIRMATION_S:
            if not self._clear_if_allowed(frame, now_s):
                self.rejected += 1
                return False
        elif stamp_ns < max(0, newest_ns - CACHE_NS):
            self.rejected += 1
            return False
        if frame not in self._newest or stamp_ns >= newest_ns:
            self._newest[frame] = stamp_ns, now_s
        kept = self._latest.setdefault(frame, collections.deque(maxlen=KEPT_TRANSFORMS))
        kept.append(message)
        return True

    def _clear_if_allowed(self, frame: str, now_s: float) -> bool:
        """
        Clear the buffer for a frame with a jump back in time, or for all frames if most jumped.

        Returns
        -------
        False if the buffer was rebuilt for a single frame within `MIN_REBUILD_PERIOD_S`.
        """
        self._went_back_s[frame] = now_s
        active = [f for f, at_s in self._received_s.items() if at_s >= now_s - ACTIVE_TIMEOUT_S]
        went_back = [
            f for f in active if self._went_back_s.get(f, -math.inf) >= now_s - ACTIVE_TIMEOUT_S
        ]
        if 2 * len(went_back) > len(active):
            self._clear_all()
        elif now_s >= self._rebuilt_s + MIN_REBUILD_PERIOD_S:
            self._rebuilt_s = now_s
            self._clear_frame(frame)
        else:
            return False
        return True

    def _clear_all(self) -> None:
        self._buffer.clear()
        for by_frame in (self._newest, self._latest, self._received_s, self._went_back_s):
            by_frame.clear()

    def _clear_frame(self, frame: str) -> None:
        del self._newest[frame]
        self._latest.pop(frame, None)
        # A tf2 buffer can only be cleared completely.
        self._buffer.clear()
        for kept in self._latest.values():
            for message in kept:
                self._buffer.set_transform(message, 'default_authority')


def _is_of_person(message: Any) -> bool:
    """Return whether a pose node published a transform, for a person or for a joint."""
    parent, child = message.header.frame_id, message.child_frame_id
    if max(len(parent), len(child)) > MAX_NAME_CHARS:
        return False
    if PERSON_FRAME.fullmatch(child) or BODY_FRAME.fullmatch(child):
        return True
    # The parent of a joint frame is the person frame; other frames may have similar names.
    return child.startswith(f'{parent}_') and PERSON_FRAME.fullmatch(parent) is not None
