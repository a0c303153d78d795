"""Files in mcap, read with limits on what they claim and unpack to (https://mcap.dev/spec)."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.chunks import VALID_TIMES_NS, Chunk, RawMessage, merge_by_time
from metrabs_ros.recordings.decompression import decompress
from metrabs_ros.recordings.input_files import PositionedFile
from metrabs_ros.recordings.limits import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_NAME_CHARS,
    MAX_TOPICS,
    MIB,
    DamagedFile,
    ReadBudget,
    check_chunk_size,
)
from metrabs_ros.recordings.profiles import parse_profiles
from metrabs_ros.recordings.progress import Advance

MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
CHUNK_INDEX, STATISTICS, DATA_END = 0x08, 0x0B, 0x0F
_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_CHUNK_HEAD = struct.Struct('<QQQI')
_CHUNK_INDEX = struct.Struct('<QQQQ')
_STATISTICS = struct.Struct('<QHIIIIQQ')
_FOOTER = struct.Struct('<QQI')
_COUNT = struct.Struct('<HQ')
_U16, _U32, _U64 = struct.Struct('<H'), struct.Struct('<I'), struct.Struct('<Q')
FOOTER_BYTES = _RECORD.size + _FOOTER.size + len(MAGIC)
MAX_SUMMARY_BYTES = 256 * MIB
MAX_RECORD_BYTES = 64 * MIB
"""Of schemas, channels and statistics."""
CDR_ENCODINGS = ('cdr', '')
DEFINITION_ENCODINGS = ('ros2msg', 'ros2idl', 'omgidl')


class _Index(NamedTuple):
    """What a file's summary says: how many messages each channel has, and where the chunks are."""

    counts: dict[int, int]
    chunks: list[Chunk]
    channels_of_chunks: dict[int, frozenset[int]]
    """By the chunks' offsets; a chunk without any may hold all channels."""


class McapFile:
    """
    A file in mcap.

    Without a usable summary at its end, it is read from the start, up to where it is damaged.

    Parameters
    ----------
    path
        The file.
    advance
        Is told of the progress where the file has to be read from its start.

    Raises
    ------
    UnusableFile
        If it cannot be read at all.
    DamagedFile
        If it does not begin as an mcap file does.
    """

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._file = PositionedFile(path)
        self._size, self._read_at = self._file.size, self._file.read_at
        try:
            if self._size < len(MAGIC) or self._read_at(0, len(MAGIC)) != MAGIC:
                raise DamagedFile('it does not begin as an mcap file does')
            self.damage = ''
            self._schemas: dict[int, tuple[str, str]] = {}
            self._topics: dict[int, Topic] = {}
            self._unsupported_channels: set[int] = set()
            self._data_end = self._size
            self._index: _Index | None = None
            try:
                self._index = self._read_summary()
            except (DamagedFile, struct.error, UnicodeDecodeError) as error:
                self.damage = printable(error, 200)
            counts = self._index.counts if self._index else self._counts_by_scanning(advance)
        except BaseException:
            self._file.close()
            raise
        self.counts: Counter[Topic] = Counter()
        for channel, topic in self._topics.items():
            self.counts[topic] += counts.get(channel, 0)

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics; see `Storage`."""
        chosen = set(topics)
        wanted = {number for number, topic in self._topics.items() if topic in chosen}
        budget = ReadBudget(self._size)
        if self._index is not None and self._index.chunks:
            of_chunks = self._index.channels_of_chunks
            chunks = [
                chunk
                for chunk in self._index.chunks
                if not of_chunks[chunk.offset] or of_chunks[chunk.offset] & wanted
            ]
            messages = merge_by_time(
                chunks, lambda chunk: self._chunk_at(chunk.offset, wanted, budget)
            )
        else:
            messages = self._scan_until_damage(wanted, budget)
        for time_ns, channel, data in messages:
            yield BagMessage(self._topics[channel], time_ns, data)

    def close(self) -> None:
        """Close the file until it is read again."""
        self._file.close()

    def _record_at(self, offset: int) -> tuple[int, int, int]:
        """Return a record's kind, and where its content starts and ends."""
        kind, length = _RECORD.unpack(self._read_at(offset, _RECORD.size))
        start = offset + _RECORD.size
        if kind == 0 or length > self._size - start:
            raise DamagedFile(f'the record at byte {offset} is invalid or cut off')
        return kind, start, start + length

    def _read_summary(self) -> _Index | None:
        """Return what the summary says; None if there is none, or it is incomplete."""
        if self._size < len(MAGIC) + FOOTER_BYTES or self._read_at(self._size - 8, 8) != MAGIC:
            raise DamagedFile('its end is missing')
        footer_offset = self._size - FOOTER_BYTES
        kind, start, end = self._record_at(footer_offset)
        if kind != FOOTER or end - start != _FOOTER.size:
            raise DamagedFile('its end is invalid')
        summary, _, _ = _FOOTER.unpack(self._read_at(start, _FOOTER.size))
        self._data_end = footer_offset
        if summary == 0:
            return None
        if not len(MAGIC) <= summary <= footer_offset:
            raise DamagedFile('the offset of its summary is invalid')
        if footer_offset - summary > MAX_SUMMARY_BYTES:
            raise DamagedFile('its summary is too large')
        self._data_end = summary
        return self._parse_summary(self._read_at(summary, footer_offset - summary))

    def _parse_summary(self, summary: bytes) -> _Index | None:
        counts: dict[int, int] | None = None
        total = expected_chunks = 0
        chunks: dict[int, Chunk] = {}
        channels: dict[int, frozenset[int]] = {}
        budget = ReadBudget(self._size)
        for kind, content in _records_in(memoryview(summary), budget):
            if kind in (SCHEMA, CHANNEL):
                self._define(kind, content)
            elif kind == CHUNK_INDEX:
                chunk, of_chunk = self._parse_chunk_index(content)
                if chunk.offset in chunks:
                    raise DamagedFile('its summary lists a chunk twice')
                budget.take_bytes(chunk.uncompressed_bytes)
                budget.take_records(len(of_chunk))
                chunks[chunk.offset], channels[chunk.offset] = chunk, of_chunk
            elif kind == STATISTICS:
                total, _, _, _, _, expected_chunks, _, _ = _STATISTICS.unpack_from(content)
                (length,) = _U32.unpack_from(content, _STATISTICS.size)
                table = content[_STATISTICS.size + 4 :][:length]
                counts = dict(_COUNT.iter_unpack(table))
        if counts is None or not self._topics or expected_chunks != len(chunks):
            return None
        if any(not topic.msgtype for topic in self._topics.values()):
            return None
        if sum(counts.values()) != total:
            raise DamagedFile('the numbers of messages in its summary contradict each other')
        # Raises what an absurd number of messages is.
        budget.take_records(total)
        return _Index(counts, list(chunks.values()), channels)

    def _parse_chunk_index(self, content: memoryview) -> tuple[Chunk, frozenset[int]]:
        start_ns, end_ns, offset, length = _CHUNK_INDEX.unpack_from(content)
        position = _CHUNK_INDEX.size
        (table_bytes,) = _U32.unpack_from(content, position)
        table = content[position + 4 :][:table_bytes]
        channels = frozenset(number for number, _ in _COUNT.iter_unpack(table))
        position += 4 + table_bytes + 8
        _, position = _parse_string(content, position)
        (compressed_bytes,) = _U64.unpack_from(content, position)
        (uncompressed_bytes,) = _U64.unpack_from(content, position + 8)
        if offset < len(MAGIC) or offset + length > self._data_end or compressed_bytes > length:
            raise DamagedFile('its summary lists a chunk that is not in the file')
        check_chunk_size(compressed_bytes, uncompressed_bytes)
        return Chunk(offset, start_ns, end_ns, uncompressed_bytes), channels

    def _counts_by_scanning(self, advance: Advance) -> Counter[int]:
        """Return how many messages each channel has; note where the file is damaged."""
        # An incomplete summary may have defined them wrongly.
        self._schemas.clear()
        self._topics.clear()
        counts: Counter[int] = Counter()
        try:
            # None of the data is needed.
            for message in self._scan(None, ReadBudget(self._size), advance):
                counts[message.channel] += 1
        except (DamagedFile, struct.error, UnicodeDecodeError) as error:
            self.damage = '; '.join(filter(None, [self.damage, printable(error, 200)]))
        return counts

    def _scan(
        self, wanted: Collection[int] | None, budget: ReadBudget, advance: Advance
    ) -> Iterator[RawMessage]:
        """Return the messages as they lie in the file; with None wanted all, without data."""
        offset = len(MAGIC)
        while offset < self._data_end:
            kind, start, end = self._record_at(offset)
            budget.take_records()
            if kind == MESSAGE:
                head = self._read_at(start, min(_MESSAGE.size, end - start))
                channel, _, time_ns, _ = _MESSAGE.unpack(head)
                if channel in self._topics and (wanted is None or channel in wanted):
                    data = b''
                    if wanted is not None:
                        _check_length(end - start, MAX_MESSAGE_BYTES)
                        data = self._read_at(start + _MESSAGE.size, end - start - _MESSAGE.size)
                    yield RawMessage(_check_time(time_ns), channel, data)
            elif kind == CHUNK:
                yield from self._chunk_at(offset, wanted, budget)
            elif kind in (SCHEMA, CHANNEL):
                _check_length(end - start, MAX_RECORD_BYTES)
                self._define(kind, memoryview(self._read_at(start, end - start)))
            elif kind in (FOOTER, DATA_END):
                return
            advance(end - offset)
            offset = end

    def _scan_until_damage(
        self, wanted: Collection[int], budget: ReadBudget
    ) -> Iterator[RawMessage]:
        try:
            yield from self._scan(wanted, budget, lambda count: None)
        except (DamagedFile, struct.error, UnicodeDecodeError):
            if not self.damage:
                raise

    def _chunk_at(
        self, offset: int, wanted: Collection[int] | None, budget: ReadBudget
    ) -> list[RawMessage]:
        """Return a chunk's messages by time; with None wanted all, without data."""
        kind, start, end = self._record_at(offset)
        if kind != CHUNK:
            raise DamagedFile(f'there is no chunk at byte {offset}')
        _check_length(end - start, MAX_CHUNK_BYTES)
        content = memoryview(self._read_at(start, end - start))
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(content)
        compression, position = _parse_string(content, _CHUNK_HEAD.size)
        (length,) = _U64.unpack_from(content, position)
        packed = content[position + 8 :][:length]
        if len(packed) != length:
            raise DamagedFile(f'the chunk at byte {offset} is invalid')
        budget.take_bytes(size)
        records = decompress(packed, compression, size)
        if checksum and zlib.crc32(records) != checksum:
            raise DamagedFile(f'the checksum of the chunk at byte {offset} is wrong')
        messages = []
        for kind, record in _records_in(memoryview(records), budget):
            if kind == MESSAGE:
                channel, _, time_ns, _ = _MESSAGE.unpack_from(record)
                if channel in self._topics and (wanted is None or channel in wanted):
                    data = b'' if wanted is None else bytes(record[_MESSAGE.size :])
                    messages.append(RawMessage(_check_time(time_ns), channel, data))
            elif kind in (SCHEMA, CHANNEL) and self._index is None:
                self._define(kind, record)
            elif kind == CHUNK:
                raise DamagedFile(f'there is a chunk within the chunk at byte {offset}')
        messages.sort(key=lambda message: message.time_ns)
        return messages

    def _define(self, kind: int, content: memoryview) -> None:
        """Take note of a schema or a channel."""
        (number,) = _U16.unpack_from(content)
        if kind == SCHEMA:
            if number not in self._schemas:
                name, position = _parse_string(content, 2)
                encoding, position = _parse_string(content, position)
                definition, _ = _parse_string(content, position, MAX_RECORD_BYTES)
                is_known = encoding in DEFINITION_ENCODINGS
                self._schemas[number] = name, definition if is_known else ''
        elif number not in self._topics and number not in self._unsupported_channels:
            (schema,) = _U16.unpack_from(content, 2)
            name, position = _parse_string(content, 4)
            encoding, position = _parse_string(content, position)
            if encoding not in CDR_ENCODINGS:
                self._unsupported_channels.add(number)
                return
            if len(self._topics) >= MAX_TOPICS:
                raise DamagedFile(f'it has more than {MAX_TOPICS} topics')
            msgtype, definition = self._schemas.get(schema, ('', ''))
            self._topics[number] = Topic(
                name,
                msgtype,
                definition,
                qos=parse_profiles(_parse_profiles_text(content, position)),
            )


def _records_in(data: memoryview, budget: ReadBudget) -> Iterator[tuple[int, memoryview]]:
    """Return the kind and the content of each record."""
    position, size = 0, len(data)
    while position < size:
        budget.take_records()
        kind, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        if kind == 0 or length > size - position:
            raise DamagedFile('a record is invalid or cut off')
        yield kind, data[position : position + length]
        position += length


def _parse_string(
    content: memoryview, position: int, limit: int = MAX_NAME_CHARS
) -> tuple[str, int]:
    """Return a string with its length before it, and the position after it."""
    (length,) = _U32.unpack_from(content, position)
    end = position + 4 + length
    if length > limit or end > len(content):
        raise DamagedFile(f'a text of {length} bytes is too long')
    return str(content[position + 4 : end], 'utf-8', 'replace'), end


def _parse_profiles_text(content: memoryview, position: int) -> str:
    """Return the text of the offered profiles in a channel's metadata, empty if there is none."""
    (length,) = _U32.unpack_from(content, position)
    position += 4
    end = position + length
    while position < min(end, len(content)):
        key, position = _parse_string(content, position, MAX_RECORD_BYTES)
        value, position = _parse_string(content, position, MAX_RECORD_BYTES)
        if key == 'offered_qos_profiles':
            return value
    return ''


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise DamagedFile(f'a record has {length} bytes; at most {limit} are read')


def _check_time(time_ns: int) -> int:
    if time_ns not in VALID_TIMES_NS:
        raise DamagedFile(f'the time {time_ns} ns of a message is invalid')
    return time_ns
