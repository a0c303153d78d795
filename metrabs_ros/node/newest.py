"""Handing the newest frame from the thread that receives to the one that works."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Frame = TypeVar('Frame')


class NewestFrame(Generic[Frame]):
    """A place for one frame; a newer one takes the place of one that nobody has taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Leave a frame; tell whether an older one was still there and is lost."""
        with self._changed:
            lost = self._frame is not None
            self._frame = frame
            self._changed.notify()
            return lost

    def take(self) -> Frame | None:
        """Wait for a frame and take it; None means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            frame, self._frame = self._frame, None
            return None if self._closed else frame

    def take_waiting(self) -> Frame | None:
        """Take the frame that waits, if there is one."""
        with self._changed:
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        """Say that there will be no more frames."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
