"""Which of the transforms on /tf the node stores."""

from __future__ import annotations

import collections
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

MAX_FRAMES = 2000
"""Buffers of tf2 never forget a frame."""
RESERVED_FRAMES = 200
"""Additional room for frames that the node looks up, and for their ancestors."""
MAX_LOOKED_UP = 64
"""Frames that were looked up last, and are stored whatever their names are."""
MAX_ANCESTORS = 50
"""Between a frame and the root of its tree."""
MAX_NAME_CHARS = 200
CACHE_NS = 10_000_000_000
"""How far back in time buffers of tf2 reach."""
BELIEVED_S = 1.0
"""For how long a stamp counts as the newest while only much older ones follow."""
ACTIVE_S = 5.0
"""A frame without transforms for this time has no say in whether time went back."""
FORGET_PERIOD_S = 10.0
"""Minimum time between two rebuilds of the buffer because of a single frame."""
KEPT_TRANSFORMS = 8
"""Of each frame, for rebuilding the buffer."""
QUATERNION_TOLERANCE = 0.01
"""Of the squared norm, as in tf2."""
PERSON_FRAME = re.compile(r'.*person_\d+', re.DOTALL)
"""Pose nodes publish such frames, with a new name for every person and with any prefix."""


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
        self.is_full = False
        """Whether a transform was refused because too many frames are stored."""
        self._buffer = buffer
        self._frames: set[str] = set()
        self._parents: dict[str, str] = {}
        self._configured: Sequence[str] = ()
        self._looked_up: dict[str, None] = {}
        self._lookups_lock = threading.Lock()
        self._newest: dict[str, tuple[int, float]] = {}
        """Stamp in nanoseconds, and when it was received, in seconds of a steady clock."""
        self._latest: dict[str, collections.deque[Any]] = {}
        """The last transforms of each moving frame that were stored."""
        self._received_s: dict[str, float] = {}
        self._went_back_s: dict[str, float] = {}
        """When a frame's stamps were last too old to be stored."""
        self._forgot_s = -math.inf

    def configure(self, frames: Sequence[str]) -> None:
        """Store the configured frames and their ancestors, whatever their names are."""
        self._configured = frames

    def note_lookup(self, *frames: str) -> None:
        """Store frames that are looked up, and their ancestors, whatever their names are."""
        with self._lookups_lock:
            for frame in frames:
                if len(frame) <= MAX_NAME_CHARS:
                    # Removed first, so that it counts as looked up last.
                    self._looked_up.pop(frame, None)
                    self._looked_up[frame] = None
            while len(self._looked_up) > MAX_LOOKED_UP:
                del self._looked_up[next(iter(self._looked_up))]

    def accepts_static(self, message: Any) -> bool:
        """Tell whether to store a TransformStamped of a fixed frame; count it if not."""
        is_stored = self._is_valid(message) and self._has_room(message)
        self.refused += not is_stored
        if is_stored:
            self._parents[message.child_frame_id] = message.header.frame_id
        return is_stored

    def accepts(self, message: Any) -> bool:
        """Tell whether to store a TransformStamped of a moving frame; count it if malformed."""
        # Otherwise each person would add a frame for good.
        if _is_of_person(message) and not self._is_wanted(message.child_frame_id):
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
        parent, child = message.header.frame_id, message.child_frame_id
        new = {parent, child} - self._frames
        count = len(self._frames) + len(new)
        if new and count > MAX_FRAMES:
            self.is_full = True
            if count > MAX_FRAMES + RESERVED_FRAMES or not self._is_wanted(child):
                return False
        self._frames |= new
        return True

    def _is_wanted(self, frame: str) -> bool:
        """Tell whether a frame is configured, was looked up, or is an ancestor of such a one."""
        with self._lookups_lock:
            wanted = [*self._configured, *self._looked_up]
        return any(frame in self._path(start) for start in wanted)

    def _path(self, frame: str) -> Iterator[str]:
        """Return a frame and its ancestors, as far as they are known."""
        for _ in range(MAX_ANCESTORS):
            yield frame
            if frame not in self._parents:
                return
            frame = self._parents[frame]

    def _is_recent(self, message: Any) -> bool:
        """Tell whether the buffer would store a transform; count it if it would not."""
        stamp, frame, now_s = message.header.stamp, message.child_frame_id, time.monotonic()
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        newest_ns, believed_s = self._newest.get(frame, (stamp_ns, now_s))
        self._received_s[frame] = now_s
        if stamp_ns < newest_ns - CACHE_NS and now_s > believed_s + BELIEVED_S:
            if not self._forgets(frame, now_s):
                self.refused += 1
                return False
        elif stamp_ns < max(0, newest_ns - CACHE_NS):
            self.refused += 1
            return False
        if frame not in self._newest or stamp_ns >= newest_ns:
            self._newest[frame] = stamp_ns, now_s
        kept = self._latest.setdefault(frame, collections.deque(maxlen=KEPT_TRANSFORMS))
        kept.append(message)
        return True

    def _forgets(self, frame: str, now_s: float) -> bool:
        """
        Forget the transforms of a frame whose stamps went back, or of all if most went back.

        Returns
        -------
        False if this was done for a single frame a moment ago, and has to wait.
        """
        self._went_back_s[frame] = now_s
        active = [f for f, at_s in self._received_s.items() if at_s >= now_s - ACTIVE_S]
        went_back = [f for f in active if self._went_back_s.get(f, -math.inf) >= now_s - ACTIVE_S]
        if 2 * len(went_back) > len(active):
            self._forget_all()
        elif now_s >= self._forgot_s + FORGET_PERIOD_S:
            self._forgot_s = now_s
            self._forget_one(frame)
        else:
            return False
        return True

    def _forget_all(self) -> None:
        self._buffer.clear()
        for by_frame in (self._newest, self._latest, self._received_s, self._went_back_s):
            by_frame.clear()

    def _forget_one(self, frame: str) -> None:
        del self._newest[frame]
        self._latest.pop(frame, None)
        # Buffers of tf2 can only be cleared as a whole.
        self._buffer.clear()
        for kept in self._latest.values():
            for message in kept:
                self._buffer.set_transform(message, 'default_authority')


def _is_of_person(message: Any) -> bool:
    """Tell whether a transform is of a person that a pose node published, or of a joint."""
    parent, child = message.header.frame_id, message.child_frame_id
    if max(len(parent), len(child)) > MAX_NAME_CHARS:
        return False
    if PERSON_FRAME.fullmatch(child):
        return True
    # A joint's frame is below that of its person; other frames may have similar names.
    return child.startswith(f'{parent}_') and PERSON_FRAME.fullmatch(parent) is not None
