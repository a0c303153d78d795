"""The thread that processes frames, so that the node stays responsive meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


class Worker(Generic[Frame]):
    """
    Processes each camera's newest frame; a frame that waits is replaced by a newer one.

    Every frame that is put is processed, returned by `put`, or discarded after `stop`.

    Parameters
    ----------
    work
        Processes frames, at most one per camera; it must not raise.  It is given the worker, too.
    discard
        Takes the frames that still waited when the worker was stopped, in the worker's thread.
    """

    def __init__(
        self,
        work: Callable[[list[Frame], Worker[Frame]], None],
        discard: Callable[[list[Frame]], None],
    ) -> None:
        self._work = work
        self._discard = discard
        self._newest: NewestFrames[Frame] = NewestFrames()
        self._next: list[Frame] = []
        self._wanted = True
        self._thread = threading.Thread(target=self._run, name='pose worker', daemon=True)
        self._thread.start()

    @property
    def is_wanted(self) -> bool:
        """Whether results of the present frames are still wanted."""
        return self._wanted

    def put(self, camera: str, frame: Frame) -> Frame | None:
        """
        Leave a camera's frame.

        Returns
        -------
        The frame that will not be processed because of that, if any: the one that was replaced,
        or this frame itself after `stop`.
        """
        return self._newest.put(camera, frame)

    def keep_next(self) -> None:
        """
        Process next the frames that wait now, even if newer ones arrive until then.

        A sender that waits for each result before it sends the next frame would otherwise have
        its waiting frame replaced.
        """
        self._next = self._newest.take_waiting()

    def stop(self) -> None:
        """End after the present frames, whose results are no longer wanted."""
        self._wanted = False
        self._newest.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; tell whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wanted and (frames := self._next or self._newest.take()) is not None:
            self._next = []
            self._work(frames, self)
        self._discard(self._next + self._newest.take_waiting())
