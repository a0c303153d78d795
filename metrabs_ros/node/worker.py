"""The thread that works on frames, so that all else is answered meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from metrabs_ros.node.newest import Frame, NewestFrames


class Worker(Generic[Frame]):
    """
    Works on each camera's newest frame; those that come meanwhile give way to newer ones.

    Parameters
    ----------
    work
        What to do with the frames that are there; it must not raise.  It is given the worker, too.
    """

    def __init__(self, work: Callable[[list[Frame], Worker[Frame]], None]) -> None:
        self._work = work
        self._newest: NewestFrames[Frame] = NewestFrames()
        self._next: list[Frame] = []
        self._wanted = True
        self._thread = threading.Thread(target=self._run, name='pose worker', daemon=True)
        self._thread.start()

    @property
    def is_wanted(self) -> bool:
        """Whether what comes of the present frames is still wanted."""
        return self._wanted

    def put(self, camera: str, frame: Frame) -> bool:
        """Leave a camera's frame; tell whether an older one gave way to it."""
        return self._newest.put(camera, frame)

    def keep_next(self) -> None:
        """
        Work next on the frames that wait now, whatever comes until then.

        Who sends a frame for each answer would otherwise have the one that waits give way to it.
        """
        self._next = self._newest.take_waiting()

    def stop(self) -> None:
        """Want nothing more; frames that are being worked on come to nothing."""
        self._wanted = False
        self._newest.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of what was being worked on; tell whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wanted and (frames := self._next or self._newest.take()) is not None:
            self._next = []
            self._work(frames, self)
