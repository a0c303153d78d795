"""Merging of the messages of chunks by time, with few chunks in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.recordings.limits import MAX_OPEN_BYTES

VALID_TIMES_NS = range(2**63)
"""Valid message times; others cannot be written to the results."""


class RawMessage(NamedTuple):
    """A message: time of recording in nanoseconds, channel number, and data."""

    time_ns: int
    channel: int
    data: bytes


class Chunk(NamedTuple):
    """
    The position, the time range and the size of a chunk.

    Parameters
    ----------
    offset
        Offset of the chunk's record in the file, in bytes.
    start_ns, end_ns
        Times of the first and the last message.
    uncompressed_bytes
        Size after decompression.
    """

    offset: int
    start_ns: int
    end_ns: int
    uncompressed_bytes: int


def merge_by_time(
    chunks: Sequence[Chunk], read: Callable[[Chunk], Sequence[RawMessage]]
) -> Iterator[RawMessage]:
    """
    Return the messages of chunks sorted by time.

    If the chunks that overlap in time exceed `MAX_OPEN_BYTES`, messages are returned in the order
    of the chunks in the file.

    Parameters
    ----------
    chunks
        The chunks in any order.
    read
        Returns the messages of a chunk, sorted by time.
    """
    chunks = sorted(chunks, key=lambda chunk: (chunk.start_ns, chunk.offset))
    if _max_open_bytes(chunks) > MAX_OPEN_BYTES:
        for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
            yield from read(chunk)
        return
    opened: list[tuple[int, int, int, Sequence[RawMessage]]] = []
    following = 0
    while opened or following < len(chunks):
        # Open all chunks that may have an earlier message.
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
    """Return the maximum size of chunks that overlap in time; chunks are sorted by start."""
    largest = size = 0
    ends: list[tuple[int, int]] = []
    for chunk in chunks:
        while ends and ends[0][0] < chunk.start_ns:
            size -= heapq.heappop(ends)[1]
        heapq.heappush(ends, (chunk.end_ns, chunk.uncompressed_bytes))
        size += chunk.uncompressed_bytes
        largest = max(largest, size)
    return largest
