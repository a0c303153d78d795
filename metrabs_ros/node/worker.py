"""The thread that works on frames, so that all else is answered meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from metrabs_ros.node.newest import Frame, NewestFrame


class Worker(Generic[Frame]):
    """
    Works on the newest frame; those that come meanwhile give way to newer ones.

    Parameters
    ----------
    work
        What to do with a frame; it must not raise.  It is given the worker, too.
    """

    def __init__(self, work: Callable[[Frame, Worker[Frame]], None]) -> None:
        self._work = work
        self._newest: NewestFrame[Frame] = NewestFrame()
        self._next: Frame | None = None
        self._wanted = True
        self._thread = threading.Thread(target=self._run, name='pose worker', daemon=True)
        self._thread.start()

    @property
    def is_wanted(self) -> bool:
        """Whether what comes of the present frame is still wanted."""
        return self._wanted

    def put(self, frame: Frame) -> bool:
        """Leave a frame; tell whether an older one gave way to it."""
        return self._newest.put(frame)

    def keep_next(self) -> None:
        """
        Work next on the frame that waits now, whatever comes until then.

        Who sends a frame for each answer would otherwise have the one that waits give way to it.
        """
        self._next = self._newest.take_waiting()

    def stop(self) -> None:
        """Want nothing more; a frame that is being worked on comes to nothing."""
        self._wanted = False
        self._newest.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the frame that was being worked on; tell whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wanted and (frame := self._next or self._newest.take()) is not None:
            self._next = None
            self._work(frame, self)
