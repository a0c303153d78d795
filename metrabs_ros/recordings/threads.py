"""Threads that read ahead and write behind while another thread runs the network."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar('Item')

MAX_QUEUED_BYTES = 256 * 2**20
"""Default maximum size of the items in a queue."""


def zero_bytes(item: object) -> int:
    """Return 0, for queues that are limited in the number of items only."""
    return 0


class _Queue(Generic[Item]):
    """
    A queue between two threads, limited in number and size of the items.

    Parameters
    ----------
    depth
        Maximum number of items.
    limit_bytes
        Maximum total size of the items; a single item may be larger.
    """

    def __init__(self, depth: int, limit_bytes: int) -> None:
        self._depth, self._limit_bytes = depth, limit_bytes
        self._waiting: collections.deque[tuple[Item, int]] = collections.deque()
        self._bytes = 0
        self._is_complete = self._is_abandoned = False
        self._changed = threading.Condition()

    def put(self, item: Item, size_bytes: int) -> bool:
        """Append an item when there is space; return False if the consumer has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_abandoned or self._has_space(size_bytes))
            if self._is_abandoned:
                return False
            self._waiting.append((item, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()
            return True

    def complete(self) -> None:
        """Signal the consumer that no more items follow."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Signal the producer that no more items are consumed."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Return items until the queue is complete; wait while it is empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_complete)
                if not self._waiting:
                    return
                item, size_bytes = self._waiting.popleft()
                self._bytes -= size_bytes
                self._changed.notify_all()
            yield item

    def _has_space(self, size_bytes: int) -> bool:
        is_short = len(self._waiting) < self._depth
        return not self._waiting or (is_short and self._bytes + size_bytes <= self._limit_bytes)


class ReadAhead(Generic[Item]):
    """
    Iterate in a separate thread, a few items ahead of the consumer.

    An exception of the iteration is raised in the consumer, after the items before it.

    Parameters
    ----------
    items
        The items.
    depth
        Maximum number of queued items.
    size_of
        Returns the size of an item in bytes.
    limit_bytes
        Maximum total size of the queued items.
    """

    def __init__(
        self,
        items: Iterable[Item],
        depth: int,
        size_of: Callable[[Item], int] = zero_bytes,
        limit_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._items = items
        self._size_of = size_of
        self._queue: _Queue[Item] = _Queue(depth, limit_bytes)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __iter__(self) -> Iterator[Item]:
        """Return the items; may be called once."""
        self._thread.start()
        try:
            yield from self._queue
            if self._error is not None:
                raise self._error
        finally:
            self._queue.abandon()
            self._thread.join()

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._queue.put(item, self._size_of(item)):
                    return
        except BaseException as error:
            self._error = error
        self._queue.complete()


class WriteBehind:
    """
    Call functions one after the other in a separate thread.

    An exception of a function is raised by the next call of `put` or `finish`; the functions
    after it are not called.

    Parameters
    ----------
    depth
        Maximum number of queued functions.
    limit_bytes
        Maximum total size of the queued functions' data.
    """

    def __init__(self, depth: int, limit_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._queue: _Queue[Callable[[], None]] = _Queue(depth, limit_bytes)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, function: Callable[[], None], size_bytes: int = 0) -> None:
        """Queue a function with the size of its data in bytes; wait while the queue is full."""
        self._raise()
        self._queue.put(function, size_bytes)

    def finish(self) -> None:
        """Wait until all functions have returned."""
        self._queue.complete()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        failed = False
        for function in self._queue:
            if failed:
                continue
            try:
                function()
            except BaseException as error:
                self._error, failed = error, True
