"""Worker thread that processes frames while the executor keeps handling callbacks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from metrabs_ros.node import heap

Frame = TypeVar('Frame')


class FrameBuffer(Generic[Frame]):
    """Thread-safe buffer with one slot per camera; a newer frame replaces an unread one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Frame] = {}
        self._is_closed = False

    def put(self, camera: str, frame: Frame) -> Frame | None:
        """
        Store a frame in the slot of a camera.

        Returns
        -------
        The frame that will not be processed as a result: the replaced frame, or this frame if the
        buffer is closed.  None if there is no such frame.
        """
        with self._changed:
            if self._is_closed:
                return frame
            replaced = self._frames.get(camera)
            self._frames[camera] = frame
            self._changed.notify()
            return replaced

    def take(self) -> list[Frame] | None:
        """Wait for frames, then remove and return all of them; None if the buffer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._is_closed)
            return None if self._is_closed else self._take_all()

    def take_pending(self) -> list[Frame]:
        """Remove and return all stored frames without waiting."""
        with self._changed:
            return self._take_all()

    def close(self) -> None:
        """Reject further frames and wake up `take`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take_all(self) -> list[Frame]:
        frames = list(self._frames.values())
        self._frames.clear()
        return frames


class Worker(Generic[Frame]):
    """
    Thread that processes the newest frame of each camera.

    Every frame passed to `put` is either processed, returned by `put`, or discarded after `stop`.

    Parameters
    ----------
    work
        Called in the worker thread with the frames to process, at most one per camera, and with
        the worker itself.  It must not raise exceptions.
    discard
        Called in the worker thread with the frames that were pending when the worker was stopped.
    """

    def __init__(
        self,
        work: Callable[[list[Frame], Worker[Frame]], None],
        discard: Callable[[list[Frame]], None],
    ) -> None:
        self._work = work
        self._discard = discard
        self._buffer: FrameBuffer[Frame] = FrameBuffer()
        self._held: list[Frame] = []
        self._is_running = True
        self._thread = threading.Thread(target=self._run, name='pose worker', daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the worker has not been stopped.  Results of a stopped worker are discarded."""
        return self._is_running

    def put(self, camera: str, frame: Frame) -> Frame | None:
        """
        Queue a frame of a camera.

        Returns
        -------
        The frame that will not be processed as a result: the replaced frame, or this frame if the
        worker is stopped.  None if there is no such frame.
        """
        return self._buffer.put(camera, frame)

    def hold_pending(self) -> None:
        """
        Process the frames that are pending now in the next iteration, even if newer ones arrive.

        Otherwise a publisher that waits for each result before it sends the next image would
        replace its own pending frame.
        """
        self._held = self._buffer.take_pending()

    def stop(self) -> None:
        """Stop after the current frames and discard their results."""
        self._is_running = False
        self._buffer.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._is_running and (frames := self._held or self._buffer.take()) is not None:
            self._held = []
            self._work(frames, self)
        self._discard(self._held + self._buffer.take_pending())
        # The last call can outlast the cleanup of the node, which then could not free its model.
        gc.collect()
        heap.return_free_memory()
