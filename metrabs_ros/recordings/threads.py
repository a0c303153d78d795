"""Reading ahead and writing behind, in threads beside the one that has the network."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar('Item')

MAX_QUEUED_BYTES = 256 * 2**20


def zero_bytes(item: object) -> int:
    """Return the size of items whose size does not matter."""
    return 0


class _Queue(Generic[Item]):
    """
    Items on their way from one thread to another, limited in number and size.

    Parameters
    ----------
    depth
        How many items wait at most.
    limit_bytes
        How large those that wait are at most; a single item may be larger.
    """

    def __init__(self, depth: int, limit_bytes: int) -> None:
        self._depth, self._limit_bytes = depth, limit_bytes
        self._waiting: collections.deque[tuple[Item, int]] = collections.deque()
        self._bytes = 0
        self._is_complete = self._is_abandoned = False
        self._changed = threading.Condition()

    def put(self, item: Item, size_bytes: int) -> bool:
        """Wait for room and append an item; False if nobody takes items any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_abandoned or self._has_room(size_bytes))
            if self._is_abandoned:
                return False
            self._waiting.append((item, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """Tell the other thread that no more items come."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Tell the other thread that no more items are taken."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Wait for items and return them until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_complete)
                if not self._waiting:
                    return
                item, size_bytes = self._waiting.popleft()
                self._bytes -= size_bytes
                self._changed.notify_all()
            yield item

    def _has_room(self, size_bytes: int) -> bool:
        is_short = len(self._waiting) < self._depth
        return not self._waiting or (is_short and self._bytes + size_bytes <= self._limit_bytes)


class ReadAhead(Generic[Item]):
    """
    Iterates in a thread of its own, a few items ahead.

    What the iteration raises is raised where its items are taken.

    Parameters
    ----------
    items
        What to iterate over.
    depth
        How many items at most wait to be taken.
    size_of
        Returns how many bytes of memory an item takes.
    limit_bytes
        How many bytes the waiting items take at most.
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
        """Return the items, once."""
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
        self._queue.end()


class WriteBehind:
    """
    Does one thing after the other in a thread of its own.

    What one of them raises is raised at the next, or at the end; those after it are left out.

    Parameters
    ----------
    depth
        How many things at most wait to be done.
    limit_bytes
        How many bytes the things that wait take at most.
    """

    def __init__(self, depth: int, limit_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._queue: _Queue[Callable[[], None]] = _Queue(depth, limit_bytes)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, do: Callable[[], None], size_bytes: int = 0) -> None:
        """Have something done, which takes so much memory, after all that was put before."""
        self._raise()
        self._queue.put(do, size_bytes)

    def finish(self) -> None:
        """Wait until everything is done."""
        self._queue.end()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        failed = False
        for do in self._queue:
            if failed:
                continue
            try:
                do()
            except BaseException as error:
                self._error, failed = error, True
