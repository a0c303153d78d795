"""Read mcap files, with limits on declared and decompressed sizes (https://mcap.dev/spec)."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections.abc import Collection, Iterator

from metrabs_ros.recordings.bag_message import Topic
from metrabs_ros.recordings.chunks import VALID_TIMES_NS, Chunk, RawMessage
from metrabs_ros.recordings.decompression import decompress
from metrabs_ros.recordings.indexed_file import Index, IndexedFile
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
"""Maximum size of a schema or channel record."""
CDR_ENCODINGS = ('cdr', '')
DEFINITION_ENCODINGS = ('ros2msg', 'ros2idl', 'omgidl')


class McapFile(IndexedFile):
    """An mcap file; its index is the summary section.  See `IndexedFile`."""

    FORMAT = 'an mcap file'
    MAGIC = MAGIC
    PARSING_ERRORS = (DamagedFile, struct.error, UnicodeDecodeError)

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._schemas: dict[int, tuple[str, str]] = {}
        self._unsupported_channels: set[int] = set()
        self._data_end = 0
        super().__init__(path, advance)

    def _record_at(self, offset: int) -> tuple[int, int, int]:
        """Return the opcode of a record, and the start and the end of its content."""
        kind, length = _RECORD.unpack(self._read_at(offset, _RECORD.size))
        start = offset + _RECORD.size
        if kind == 0 or length > self._size - start:
            raise DamagedFile(f'the record at byte {offset} is invalid or truncated')
        return kind, start, start + length

    def _read_index(self) -> Index | None:
        """Return the content of the summary section; None if it is missing or incomplete."""
        self._data_end = self._size
        if self._size < len(MAGIC) + FOOTER_BYTES or self._read_at(self._size - 8, 8) != MAGIC:
            raise DamagedFile('the footer is missing')
        footer_offset = self._size - FOOTER_BYTES
        kind, start, end = self._record_at(footer_offset)
        if kind != FOOTER or end - start != _FOOTER.size:
            raise DamagedFile('the footer is invalid')
        summary, _, _ = _FOOTER.unpack(self._read_at(start, _FOOTER.size))
        self._data_end = footer_offset
        if summary == 0:
            return None
        if not len(MAGIC) <= summary <= footer_offset:
            raise DamagedFile('the offset of the summary is invalid')
        if footer_offset - summary > MAX_SUMMARY_BYTES:
            raise DamagedFile(
                f'the summary has {footer_offset - summary} bytes; at most {MAX_SUMMARY_BYTES} '
                'are read'
            )
        self._data_end = summary
        return self._parse_summary(self._read_at(summary, footer_offset - summary))

    def _parse_summary(self, summary: bytes) -> Index | None:
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
                    raise DamagedFile('the summary lists a chunk twice')
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
            raise DamagedFile('the message counts in the summary are inconsistent')
        # Reject counts that exceed what a file of this size can hold.
        budget.take_records(total)
        return Index(counts, list(chunks.values()), channels)

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
            raise DamagedFile('the summary lists a chunk that is not in the file')
        check_chunk_size(compressed_bytes, uncompressed_bytes)
        return Chunk(offset, start_ns, end_ns, uncompressed_bytes), channels

    def _clear_definitions(self) -> None:
        # Channels refer to schemas, which a damaged summary may have defined wrongly.
        super()._clear_definitions()
        self._schemas.clear()

    def _scan(
        self, channels: Collection[int] | None, budget: ReadBudget, advance: Advance
    ) -> Iterator[RawMessage]:
        offset = len(MAGIC)
        while offset < self._data_end:
            kind, start, end = self._record_at(offset)
            budget.take_records()
            if kind == MESSAGE:
                head = self._read_at(start, min(_MESSAGE.size, end - start))
                channel, _, time_ns, _ = _MESSAGE.unpack(head)
                if channel in self._topics and (channels is None or channel in channels):
                    data = b''
                    if channels is not None:
                        _check_length(end - start, MAX_MESSAGE_BYTES)
                        data = self._read_at(start + _MESSAGE.size, end - start - _MESSAGE.size)
                    yield RawMessage(_check_time(time_ns), channel, data)
            elif kind == CHUNK:
                yield from self._read_chunk(offset, channels, budget)
            elif kind in (SCHEMA, CHANNEL):
                _check_length(end - start, MAX_RECORD_BYTES)
                self._define(kind, memoryview(self._read_at(start, end - start)))
            elif kind in (FOOTER, DATA_END):
                return
            advance(end - offset)
            offset = end

    def _read_chunk(
        self, offset: int, channels: Collection[int] | None, budget: ReadBudget
    ) -> list[RawMessage]:
        kind, start, end = self._record_at(offset)
        if kind != CHUNK:
            raise DamagedFile(f'the record at byte {offset} is not a chunk')
        _check_length(end - start, MAX_CHUNK_BYTES)
        content = memoryview(self._read_at(start, end - start))
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(content)
        compression, position = _parse_string(content, _CHUNK_HEAD.size)
        (length,) = _U64.unpack_from(content, position)
        compressed = content[position + 8 :][:length]
        if len(compressed) != length:
            raise DamagedFile(f'the chunk at byte {offset} is invalid')
        budget.take_bytes(size)
        records = decompress(compressed, compression, size)
        if checksum and zlib.crc32(records) != checksum:
            raise DamagedFile(f'the checksum of the chunk at byte {offset} does not match')
        messages = []
        for kind, record in _records_in(memoryview(records), budget):
            if kind == MESSAGE:
                channel, _, time_ns, _ = _MESSAGE.unpack_from(record)
                if channel in self._topics and (channels is None or channel in channels):
                    data = b'' if channels is None else bytes(record[_MESSAGE.size :])
                    messages.append(RawMessage(_check_time(time_ns), channel, data))
            elif kind in (SCHEMA, CHANNEL) and self._index is None:
                self._define(kind, record)
            elif kind == CHUNK:
                raise DamagedFile(f'the chunk at byte {offset} contains another chunk')
        messages.sort(key=lambda message: message.time_ns)
        return messages

    def _define(self, kind: int, content: memoryview) -> None:
        """Store a schema or a channel; the first definition of a number is used."""
        (number,) = _U16.unpack_from(content)
        if kind == SCHEMA:
            if number not in self._schemas:
                name, position = _parse_string(content, 2)
                encoding, position = _parse_string(content, position)
                definition, _ = _parse_string(content, position, MAX_RECORD_BYTES)
                is_supported = encoding in DEFINITION_ENCODINGS
                self._schemas[number] = name, definition if is_supported else ''
        elif number not in self._topics and number not in self._unsupported_channels:
            (schema,) = _U16.unpack_from(content, 2)
            name, position = _parse_string(content, 4)
            encoding, position = _parse_string(content, position)
            if encoding not in CDR_ENCODINGS:
                self._unsupported_channels.add(number)
                return
            if len(self._topics) >= MAX_TOPICS:
                raise DamagedFile(f'the file has more than {MAX_TOPICS} topics')
            msgtype, definition = self._schemas.get(schema, ('', ''))
            self._topics[number] = Topic(
                name,
                msgtype,
                definition,
                qos=parse_profiles(_parse_profiles_text(content, position)),
            )


def _records_in(data: memoryview, budget: ReadBudget) -> Iterator[tuple[int, memoryview]]:
    """Return the opcode and the content of each record."""
    position, size = 0, len(data)
    while position < size:
        budget.take_records()
        kind, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        if kind == 0 or length > size - position:
            raise DamagedFile('a record is invalid or truncated')
        yield kind, data[position : position + length]
        position += length


def _parse_string(
    content: memoryview, position: int, limit: int = MAX_NAME_CHARS
) -> tuple[str, int]:
    """Return a length-prefixed string and the position after it."""
    (length,) = _U32.unpack_from(content, position)
    end = position + 4 + length
    if length > limit or end > len(content):
        raise DamagedFile(f'a string of {length} bytes is too long')
    return str(content[position + 4 : end], 'utf-8', 'replace'), end


def _parse_profiles_text(content: memoryview, position: int) -> str:
    """Return the offered QoS profiles in a channel's metadata, as text; empty if missing."""
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
        raise DamagedFile(f'the log time {time_ns} ns of a message is invalid')
    return time_ns
