"""Hand the newest frames from the thread that receives to the thread that processes."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Frame = TypeVar('Frame')


class NewestFrames(Generic[Frame]):
    """Holds one frame per camera; a newer frame replaces one that has not been taken yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Frame] = {}
        self._closed = False

    def put(self, camera: str, frame: Frame) -> Frame | None:
        """
        Leave a camera's frame.

        Returns
        -------
        The frame that will not be taken because of that, if any: the one that was replaced, or
        this frame itself after `close`.
        """
        with self._changed:
            if self._closed:
                return frame
            replaced = self._frames.get(camera)
            self._frames[camera] = frame
            self._changed.notify()
            return replaced

    def take(self) -> list[Frame] | None:
        """Wait for frames and take all of them; None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed)
            return None if self._closed else self._take_all()

    def take_waiting(self) -> list[Frame]:
        """Take the frames that are there, without waiting."""
        with self._changed:
            return self._take_all()

    def close(self) -> None:
        """Refuse further frames, and end `take`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take_all(self) -> list[Frame]:
        frames = list(self._frames.values())
        self._frames.clear()
        return frames
