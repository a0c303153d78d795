"""Reading ahead and writing behind, in threads beside the one that has the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar('Item')

_END = object()
PATIENCE_S = 0.1


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
    """

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        self._items = items
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._is_wanted = True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __iter__(self) -> Iterator[Item]:
        """Return the items, once."""
        self._thread.start()
        try:
            while (item := self._waiting.get()) is not _END:
                yield item
            if self._error is not None:
                raise self._error
        finally:
            self._is_wanted = False
            self._thread.join()

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:
            self._error = error
        self._put(_END)

    def _put(self, item: Any) -> bool:
        while self._is_wanted:
            try:
                self._waiting.put(item, timeout=PATIENCE_S)
            except queue.Full:
                continue
            return True
        return False


class WriteBehind:
    """
    Does one thing after the other in a thread of its own.

    What one of them raises is raised at the next, or at the end; those after it are left out.

    Parameters
    ----------
    depth
        How many things at most wait to be done.
    """

    def __init__(self, depth: int) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, do: Callable[[], None]) -> None:
        """Have something done, after all that was put before."""
        self._raise()
        self._waiting.put(do)

    def finish(self) -> None:
        """Wait until everything is done."""
        if self._thread.is_alive():
            self._waiting.put(_END)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        failed = False
        while (do := self._waiting.get()) is not _END:
            if failed:
                continue
            try:
                do()
            except BaseException as error:
                self._error, failed = error, True
