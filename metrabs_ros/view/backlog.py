"""Buffer of the encoded data of a scene, with a memory limit."""

from __future__ import annotations

import collections
import os
import re
import threading

_AMOUNT_PATTERN = re.compile(r'(\d+(?:\.\d+)?) ?(%|[kKMGT]?i?B)')
_POWERS = {'': 0, 'k': 1, 'm': 2, 'g': 3, 't': 4}
MIN_LIMIT_BYTES = 1 << 20


class Backlog:
    """
    Blocks of data in the order of logging.

    All readers share the blocks, so that slow readers need no additional memory.

    Parameters
    ----------
    limit_bytes
        Maximum size; above it, the oldest blocks are dropped.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blocks: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._first = 0
        self._is_complete = False
        self._changed = threading.Condition()

    def append(self, block: bytes) -> None:
        """Append a block, and drop the oldest blocks above the limit."""
        with self._changed:
            self._blocks.append(block)
            self._bytes += len(block)
            while self._bytes > self._limit_bytes and len(self._blocks) > 1:
                self._bytes -= len(self._blocks.popleft())
                self._first += 1
            self._changed.notify_all()

    def complete(self) -> None:
        """Signal readers that no more blocks follow."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    @property
    def size_bytes(self) -> int:
        """Total size of the blocks."""
        return self._bytes

    def _read(self, index: int | None, timeout_s: float) -> tuple[bytes | None, int]:
        """Return a block, or None after the timeout, and the index of the next block."""
        with self._changed:
            if index is None:
                index = self._first
            elif index < self._first:
                # The next block of a slow reader was dropped: continue with the newest block.
                index = self._first + len(self._blocks) - 1
            if index >= self._first + len(self._blocks):
                if self._is_complete:
                    raise EOFError
                self._changed.wait(timeout_s)
            if index < self._first or index >= self._first + len(self._blocks):
                return None, index
            return self._blocks[index - self._first], index + 1


class Reader:
    """
    Reader of a backlog, which starts at the oldest block.

    Parameters
    ----------
    backlog
        The backlog.
    """

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._index: int | None = None

    def read(self, timeout_s: float) -> bytes | None:
        """
        Return the next block, or None after the timeout.

        Raises
        ------
        EOFError
            If all blocks were read and no more follow.
        """
        block, self._index = self._backlog._read(self._index, timeout_s)
        return block


def memory_limit_bytes(text: str) -> int:
    """
    Parse an amount of memory, such as ``256MiB``, ``2GB``, or ``25%`` of the physical memory.

    Raises
    ------
    ValueError
        If the text is not an amount of memory, or the amount is too small.
    """
    matched = _AMOUNT_PATTERN.fullmatch(text.strip())
    if matched is None:
        raise ValueError(
            f'memory limit {text[:80]!r} is not an amount of memory such as 256MiB, 2GB or 25%'
        )
    amount, unit = float(matched[1]), matched[2].lower()
    if unit == '%':
        total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        limit = int(min(amount, 100.0) / 100 * total)
    else:
        base = 1024 if 'i' in unit else 1000
        limit = int(min(amount * base ** _POWERS[unit.rstrip('ib')], 2**62))
    if limit < MIN_LIMIT_BYTES:
        raise ValueError(f'memory limit {text[:80]!r} is less than the minimum of 1MiB')
    return limit
