"""Reading strategy shared by mcap files and ROS 1 bags: use the index, or scan the whole file."""

from __future__ import annotations

import abc
import pathlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.chunks import Chunk, RawMessage, merge_by_time
from metrabs_ros.recordings.input_files import PositionedFile
from metrabs_ros.recordings.limits import DamagedFile, ReadBudget
from metrabs_ros.recordings.progress import Advance


class Index(NamedTuple):
    """
    The index at the end of a file.

    Parameters
    ----------
    counts
        Number of messages of each channel.
    chunks
        All chunks of the file.
    channels_of_chunks
        Channels in each chunk, by the chunk's offset; an empty set stands for unknown channels.
    """

    counts: Mapping[int, int]
    chunks: Sequence[Chunk]
    channels_of_chunks: Mapping[int, frozenset[int]]


class IndexedFile(abc.ABC):
    """
    A file of chunked messages with an index at its end.

    If the index is missing or damaged, the file is scanned from its start, up to the first
    damaged record.  A channel is what ROS 1 calls a connection.

    Parameters
    ----------
    path
        The file.
    advance
        Called with the number of bytes read while the file is scanned.

    Raises
    ------
    UnusableFile
        If the file cannot be opened.
    DamagedFile
        If the file does not start with the magic bytes of its format.
    """

    FORMAT: ClassVar[str]
    """Name of the format, with an article."""
    MAGIC: ClassVar[bytes]
    """First bytes of the file."""
    PARSING_ERRORS: ClassVar[tuple[type[Exception], ...]]
    """Exceptions that damaged data can raise."""

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._file = PositionedFile(path)
        self._size, self._read_at = self._file.size, self._file.read_at
        self._topics: dict[int, Topic] = {}
        self._index: Index | None = None
        self.damage = ''
        try:
            size = len(self.MAGIC)
            if self._size < size or self._read_at(0, size) != self.MAGIC:
                raise DamagedFile(f'the file does not start with the magic bytes of {self.FORMAT}')
            try:
                self._index = self._read_index()
            except self.PARSING_ERRORS as error:
                self.damage = f'the index is not usable ({printable(error, 200)})'
            counts = self._index.counts if self._index else self._count_by_scanning(advance)
        except BaseException:
            self._file.close()
            raise
        self.counts: Counter[Topic] = Counter()
        for channel, topic in self._topics.items():
            self.counts[topic] += counts.get(channel, 0)

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics; see `Storage`."""
        selected = set(topics)
        channels = {number for number, topic in self._topics.items() if topic in selected}
        budget = ReadBudget(self._size)
        if self._index is not None and self._index.chunks:
            of_chunks = self._index.channels_of_chunks
            chunks = [
                chunk
                for chunk in self._index.chunks
                if not of_chunks[chunk.offset] or of_chunks[chunk.offset] & channels
            ]
            messages = merge_by_time(
                chunks, lambda chunk: self._read_chunk(chunk.offset, channels, budget)
            )
        else:
            messages = self._scan_until_damage(channels, budget)
        for message in messages:
            yield self._convert(self._topics[message.channel], message)

    def close(self) -> None:
        """Close the file; it is reopened when it is read again."""
        self._file.close()

    @abc.abstractmethod
    def _read_index(self) -> Index | None:
        """
        Return the index and define its channels; None if the file has no complete index.

        Raises
        ------
        Exception
            One of `PARSING_ERRORS` if the index is damaged.
        """

    @abc.abstractmethod
    def _scan(
        self, channels: Collection[int] | None, budget: ReadBudget, advance: Advance
    ) -> Iterator[RawMessage]:
        """Return messages in file order; without data and of all channels if None is given."""

    @abc.abstractmethod
    def _read_chunk(
        self, offset: int, channels: Collection[int] | None, budget: ReadBudget
    ) -> list[RawMessage]:
        """Return a chunk's messages by time; without data and of all channels if None is given."""

    def _convert(self, topic: Topic, message: RawMessage) -> BagMessage:
        """Return a message of a channel as a message of its topic, serialized as in ROS 2."""
        return BagMessage(topic, message.time_ns, message.data)

    def _clear_definitions(self) -> None:
        """Discard what a damaged index has defined."""
        self._topics.clear()

    def _count_by_scanning(self, advance: Advance) -> Counter[int]:
        """Return the number of messages of each channel; set `damage` where the scan ends."""
        self._clear_definitions()
        counts: Counter[int] = Counter()
        try:
            for message in self._scan(None, ReadBudget(self._size), advance):
                counts[message.channel] += 1
        except self.PARSING_ERRORS as error:
            self.damage = '; '.join(filter(None, [self.damage, printable(error, 200)]))
        return counts

    def _scan_until_damage(
        self, channels: Collection[int], budget: ReadBudget
    ) -> Iterator[RawMessage]:
        """Return messages in file order up to damage that has been reported already."""
        try:
            yield from self._scan(channels, budget, lambda count: None)
        except self.PARSING_ERRORS:
            if not self.damage:
                raise
