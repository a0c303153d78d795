"""Handing the newest frames from the thread that receives to the one that works."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Frame = TypeVar('Frame')


class NewestFrames(Generic[Frame]):
    """A place for one frame a camera; a newer one takes the place of one not taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Frame] = {}
        self._closed = False

    def put(self, camera: str, frame: Frame) -> bool:
        """Leave a camera's frame; tell whether an older one was still there and is lost."""
        with self._changed:
            lost = camera in self._frames
            self._frames[camera] = frame
            self._changed.notify()
            return lost

    def take(self) -> list[Frame] | None:
        """Wait for a frame, and take all that are there; None means that there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed)
            return None if self._closed else self._take_all()

    def take_waiting(self) -> list[Frame]:
        """Take the frames that wait."""
        with self._changed:
            return self._take_all()

    def close(self) -> None:
        """Say that there will be no more frames."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take_all(self) -> list[Frame]:
        frames = list(self._frames.values())
        self._frames.clear()
        return frames
