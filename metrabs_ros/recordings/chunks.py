"""Messages of a bag's chunks in the order of their times, with few chunks in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.recordings.limits import MAX_OPEN_BYTES

VALID_TIMES_NS = range(2**63)
"""Times of messages; others do not fit into the bags that are written."""


class RawMessage(NamedTuple):
    """A message: when it was recorded, the number of its channel, and its data."""

    time_ns: int
    channel: int
    data: bytes


class Chunk(NamedTuple):
    """
    Where a chunk is in a file.

    Parameters
    ----------
    offset
        Of its record, in bytes.
    start_ns, end_ns
        The times of its first and its last message.
    unpacked_bytes
        Its size after decompression.
    """

    offset: int
    start_ns: int
    end_ns: int
    uncompressed_bytes: int


def merge_by_time(
    chunks: Sequence[Chunk], read: Callable[[Chunk], Sequence[RawMessage]]
) -> Iterator[RawMessage]:
    """
    Return the messages of chunks by time, or chunk after chunk if too many of them overlap.

    Parameters
    ----------
    chunks
        In any order.
    read
        Returns the messages of a chunk in the order of their times.
    """
    chunks = sorted(chunks, key=lambda chunk: (chunk.start_ns, chunk.offset))
    if _max_open_bytes(chunks) > MAX_OPEN_BYTES:
        for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
            yield from read(chunk)
        return
    opened: list[tuple[int, int, int, Sequence[RawMessage]]] = []
    following = 0
    while opened or following < len(chunks):
        # All chunks that may have an earlier message are opened first.
        while following < len(chunks) and (
            not opened or chunks[following].start_ns <= opened[0][0]
        ):
            messages = read(chunks[following])
            if messages:
                heapq.heappush(opened, (messages[0].time_ns, following, 0, messages))
            following += 1
        if opened:
            _, number, position, messages = opened[0]
            yield messages[position]
            position += 1
            if position < len(messages):
                item = (messages[position].time_ns, number, position, messages)
                heapq.heapreplace(opened, item)
            else:
                heapq.heappop(opened)


def _max_open_bytes(chunks: Sequence[Chunk]) -> int:
    """Return how many bytes of chunks that are sorted by start overlap at most."""
    most = size = 0
    ends: list[tuple[int, int]] = []
    for chunk in chunks:
        while ends and ends[0][0] < chunk.start_ns:
            size -= heapq.heappop(ends)[1]
        heapq.heappush(ends, (chunk.end_ns, chunk.uncompressed_bytes))
        size += chunk.uncompressed_bytes
        most = max(most, size)
    return most
