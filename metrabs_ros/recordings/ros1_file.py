"""Bags of ROS 1, version 2.0, read with limits (http://wiki.ros.org/Bags/Format/2.0)."""

from __future__ import annotations

import contextlib
import io
import pathlib
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, cast

from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES, generate_message_converter
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.msg import normalize_msgtype

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.chunks import Chunk, RawMessage, merge_by_time
from metrabs_ros.recordings.decompression import decompress
from metrabs_ros.recordings.input_files import PositionedFile
from metrabs_ros.recordings.limits import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_NAME_CHARS,
    MAX_TOPICS,
    MIB,
    DamagedFile,
    DefinitionBudget,
    ReadBudget,
    check_chunk_size,
)
from metrabs_ros.recordings.progress import Advance

MAGIC = b'#ROSBAG V2.0\n'
MESSAGE, BAG_HEADER, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 5, 6, 7
MAX_HEADER_BYTES = MIB
MAX_ARRAY_LENGTH = 2**24
"""Values in a message, counting those in arrays of a fixed length."""
MAX_DEFINITION_DEPTH = 50
NS_PER_S = 10**9
_U32, _U64, _PAIR = struct.Struct('<I'), struct.Struct('<Q'), struct.Struct('<II')
PARSING_ERRORS = (DamagedFile, struct.error, UnicodeDecodeError, KeyError)


class _Record(NamedTuple):
    """A record: its header, where its data starts, and how long that is."""

    fields: dict[bytes, bytes]
    start: int
    length: int

    @property
    def kind(self) -> int:
        """What kind of record it is."""
        kind = self.fields.get(b'op', b'')
        if len(kind) != 1:
            raise DamagedFile('a record has no kind')
        return kind[0]

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.start + self.length

    def number(self, name: bytes) -> int:
        """Return a field with a 32-bit number."""
        (value,) = _U32.unpack(self.fields[name])
        return int(value)

    def time_ns(self, name: bytes) -> int:
        """Return a field with a time."""
        seconds, nanoseconds = _PAIR.unpack(self.fields[name])
        return int(seconds * NS_PER_S + nanoseconds)


class _Index(NamedTuple):
    """What the end of a bag says: how many messages each connection has, and the chunks."""

    counts: Counter[int]
    chunks: list[Chunk]
    connections_of_chunks: dict[int, frozenset[int]]


class Ros1File:
    """
    A bag of ROS 1, with its messages as ROS 2 serialises them.

    Without a usable index at its end, it is read from the start, up to where it is damaged.

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
        If it does not begin as a bag of ROS 1 does.
    """

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._file = PositionedFile(path)
        self._size, self._read_at = self._file.size, self._file.read_at
        try:
            if self._size < len(MAGIC) or self._read_at(0, len(MAGIC)) != MAGIC:
                raise DamagedFile('it does not begin as a ROS 1 bag of version 2.0 does')
            self.damage = ''
            self._convert = _Ros1Converter()
            self._topics: dict[int, Topic] = {}
            self._index: _Index | None = None
            try:
                self._index = self._read_index()
            except PARSING_ERRORS as error:
                self.damage = f'its index is damaged ({printable(error, 200)})'
            counts = self._index.counts if self._index else self._counts_by_scanning(advance)
        except BaseException:
            self._file.close()
            raise
        self.counts: Counter[Topic] = Counter()
        for connection, topic in self._topics.items():
            self.counts[topic] += counts[connection]

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics; see `Storage`."""
        chosen = set(topics)
        wanted = {number for number, topic in self._topics.items() if topic in chosen}
        budget = ReadBudget(self._size)
        if self._index is not None:
            of_chunks = self._index.connections_of_chunks
            chunks = [chunk for chunk in self._index.chunks if of_chunks[chunk.offset] & wanted]
            messages = merge_by_time(
                chunks, lambda chunk: self._chunk_at(chunk.offset, wanted, budget)
            )
        else:
            messages = self._scan_until_damage(wanted, budget)
        for time_ns, connection, data in messages:
            topic = self._topics[connection]
            yield BagMessage(topic, time_ns, self._convert.data(topic, data))

    def close(self) -> None:
        """Close the file until it is read again."""
        self._file.close()

    def _record_at(self, offset: int) -> _Record:
        record = _parse_record(self._read_at, offset)
        if record.end > self._size:
            raise DamagedFile(f'the file ends within the record at byte {offset}')
        return record

    def _read_index(self) -> _Index:
        head = self._record_at(len(MAGIC))
        if head.kind != BAG_HEADER:
            raise DamagedFile('there is no header')
        if head.fields.get(b'encryptor'):
            raise DamagedFile('it is encrypted')
        (offset,) = _U64.unpack(head.fields[b'index_pos'])
        if offset == 0:
            raise DamagedFile('it is missing')
        budget = ReadBudget(self._size)
        for _ in range(head.number(b'conn_count')):
            record = self._record_at(offset)
            if record.kind != CONNECTION:
                raise DamagedFile('a connection is missing')
            self._define(record, self._read_at(record.start, _checked(record.length)))
            offset = record.end
        counts: Counter[int] = Counter()
        chunks: dict[int, Chunk] = {}
        connections: dict[int, frozenset[int]] = {}
        for _ in range(head.number(b'chunk_count')):
            record = self._record_at(offset)
            if record.kind != CHUNK_INFO:
                raise DamagedFile('a chunk is missing')
            chunk, of_chunk = self._parse_chunk_info(record)
            if chunk.offset in chunks:
                raise DamagedFile('it lists a chunk twice')
            budget.take_bytes(chunk.uncompressed_bytes)
            budget.take_records(sum(of_chunk.values()))
            chunks[chunk.offset], connections[chunk.offset] = chunk, frozenset(of_chunk)
            counts.update(of_chunk)
            offset = record.end
        return _Index(counts, list(chunks.values()), connections)

    def _parse_chunk_info(self, record: _Record) -> tuple[Chunk, dict[int, int]]:
        (offset,) = _U64.unpack(record.fields[b'chunk_pos'])
        counts = dict(_PAIR.iter_unpack(self._read_at(record.start, _checked(record.length))))
        chunk = self._record_at(offset)
        if chunk.kind != CHUNK:
            raise DamagedFile('it lists a chunk that is none')
        compression = chunk.fields[b'compression'].decode()
        size = chunk.number(b'size')
        if compression != 'none':
            check_chunk_size(chunk.length, size)
        start_ns, end_ns = record.time_ns(b'start_time'), record.time_ns(b'end_time')
        return Chunk(offset, start_ns, end_ns, size), counts

    def _counts_by_scanning(self, advance: Advance) -> Counter[int]:
        """Return how many messages each connection has; note where the file is damaged."""
        self._topics.clear()
        counts: Counter[int] = Counter()
        try:
            for message in self._scan(None, ReadBudget(self._size), advance):
                counts[message.channel] += 1
        except PARSING_ERRORS as error:
            self.damage = '; '.join(filter(None, [self.damage, printable(error, 200)]))
        return counts

    def _scan_until_damage(
        self, wanted: Collection[int], budget: ReadBudget
    ) -> Iterator[RawMessage]:
        try:
            yield from self._scan(wanted, budget, lambda count: None)
        except PARSING_ERRORS:
            if not self.damage:
                raise

    def _scan(
        self, wanted: Collection[int] | None, budget: ReadBudget, advance: Advance
    ) -> Iterator[RawMessage]:
        """Return the messages as they lie in the file; with None wanted all, without data."""
        offset = len(MAGIC)
        while offset < self._size:
            record = self._record_at(offset)
            budget.take_records()
            if record.kind == CHUNK:
                yield from self._chunk_at(offset, wanted, budget)
            elif record.kind == CONNECTION:
                self._define(record, self._read_at(record.start, _checked(record.length)))
            elif record.kind == MESSAGE:
                yield from self._message(record, self._read_at, wanted)
            advance(record.end - offset)
            offset = record.end

    def _chunk_at(
        self, offset: int, wanted: Collection[int] | None, budget: ReadBudget
    ) -> list[RawMessage]:
        """Return a chunk's messages by time; with None wanted all, without data."""
        chunk = self._record_at(offset)
        if chunk.kind != CHUNK:
            raise DamagedFile(f'there is no chunk at byte {offset}')
        size = chunk.number(b'size')
        if chunk.length > MAX_CHUNK_BYTES:
            raise DamagedFile(f'a chunk has {chunk.length} bytes; at most {MAX_CHUNK_BYTES}')
        budget.take_bytes(size)
        compression = chunk.fields[b'compression'].decode()
        whole = decompress(self._read_at(chunk.start, chunk.length), compression, size)

        def at(start: int, length: int) -> bytes:
            if length < 0 or start + length > len(whole):
                raise DamagedFile(f'the chunk at byte {offset} ends within a record')
            return bytes(whole[start : start + length])

        messages: list[RawMessage] = []
        position = 0
        while position < len(whole):
            budget.take_records()
            record = _parse_record(at, position)
            if record.kind == CONNECTION:
                if self._index is None:
                    self._define(record, at(record.start, _checked(record.length)))
            elif record.kind == MESSAGE:
                messages += self._message(record, at, wanted)
            position = record.end
        if position > len(whole):
            raise DamagedFile(f'the chunk at byte {offset} ends within a record')
        messages.sort(key=lambda message: message.time_ns)
        return messages

    def _message(
        self,
        record: _Record,
        at: Callable[[int, int], bytes],
        wanted: Collection[int] | None,
    ) -> Iterator[RawMessage]:
        connection = record.number(b'conn')
        if connection not in self._topics or (wanted is not None and connection not in wanted):
            return
        data = b''
        if wanted is not None:
            if record.length > MAX_MESSAGE_BYTES:
                raise DamagedFile(f'a message has {record.length} bytes')
            data = at(record.start, record.length)
        yield RawMessage(record.time_ns(b'time'), connection, data)

    def _define(self, record: _Record, data: bytes) -> None:
        """Take note of a connection."""
        number = record.number(b'conn')
        if number in self._topics:
            return
        if len(self._topics) >= MAX_TOPICS:
            raise DamagedFile(f'it has more than {MAX_TOPICS} connections')
        about = _parse_fields(data)
        name, msgtype = (
            about_field.decode('utf-8', 'replace')
            for about_field in (record.fields[b'topic'], about[b'type'])
        )
        if len(name) > MAX_NAME_CHARS or len(msgtype) > MAX_NAME_CHARS:
            raise DamagedFile('the name of a topic is too long')
        definition = about[b'message_definition'].decode('utf-8', 'replace')
        self._topics[number] = self._convert.topic(
            _normalize_name(name), normalize_msgtype(msgtype), definition
        )


def _parse_record(at: Callable[[int, int], bytes], offset: int) -> _Record:
    (header_bytes,) = _U32.unpack(at(offset, _U32.size))
    if header_bytes > MAX_HEADER_BYTES:
        raise DamagedFile(f'the record at byte {offset} has a header of {header_bytes} bytes')
    start = offset + _U32.size + header_bytes
    fields = _parse_fields(at(offset + _U32.size, header_bytes))
    (length,) = _U32.unpack(at(start, _U32.size))
    return _Record(fields, start + _U32.size, length)


def _parse_fields(header: bytes) -> dict[bytes, bytes]:
    fields = {}
    position = 0
    while position < len(header):
        (size,) = _U32.unpack_from(header, position)
        position += _U32.size
        name, separator, value = header[position : position + size].partition(b'=')
        position += size
        if not separator or position > len(header):
            raise DamagedFile('a field of a record is invalid')
        fields[name] = value
    return fields


def _checked(length: int) -> int:
    if length > MAX_HEADER_BYTES:
        raise DamagedFile(f'a record has {length} bytes; at most {MAX_HEADER_BYTES} are read')
    return length


def _normalize_name(name: str) -> str:
    """Return a topic's name without empty parts."""
    return f'{"/" * name.startswith("/")}{"/".join(part for part in name.split("/") if part)}'


class _Ros1Converter:
    """Turns ROS 1's serialised messages into ROS 2's."""

    def __init__(self) -> None:
        self._source = get_typestore(Stores.EMPTY)
        self._target = get_typestore(Stores.ROS2_JAZZY)
        self._converters: dict[str, Callable[[Any], Any]] = {}
        self._topics: dict[tuple[str, str], Topic] = {}
        self._cache: dict[str, object] = {}
        self._budget = DefinitionBudget()

    def topic(self, name: str, msgtype: str, definition: str) -> Topic:
        """
        Return a topic with its definition as ROS 2 has it.

        A topic whose messages cannot be converted has no definition, and no data either.
        """
        if (name, msgtype) not in self._topics:
            try:
                self._topics[name, msgtype] = self._convert_topic(name, msgtype, definition)
            except Exception:  # A text that is no definition makes the parser stumble anywhere.
                self._topics[name, msgtype] = Topic(name, msgtype)
        return self._topics[name, msgtype]

    def data(self, topic: Topic, data: bytes | memoryview) -> bytes | memoryview:
        """Return a message's data as ROS 2 has it; empty if it cannot be converted."""
        convert = self._converters.get(topic.msgtype)
        if convert is None:
            return b''
        try:
            converted: memoryview = convert(data)
        except Exception:  # Data of another kind makes the library stumble in many ways.
            return b''
        return converted

    def _convert_topic(self, name: str, msgtype: str, definition: str) -> Topic:
        renamed = STATIC_MSGTYPE_RENAMES.get(msgtype, msgtype)
        if renamed not in self._converters:
            if not self._budget.accepts(definition):
                raise DamagedFile(f'a definition of {len(definition)} characters is too long')
            types = get_types_from_msg(definition, msgtype)
            _check_arrays(types)
            self._register(types, msgtype, renamed)
        text, _ = self._target.generate_msgdef(renamed, ros_version=2)
        return Topic(name, renamed, text, self._target.hash_rihs01(renamed))

    def _register(self, types: Typesdict, msgtype: str, renamed: str) -> None:
        """Take in the types of a definition, and make the function that converts its messages."""
        self._source.register({k: v for k, v in types.items() if k not in self._source.fielddefs})
        new = {k: v for k, v in types.items() if k not in self._target.fielddefs}
        new.pop('std_msgs/msg/Header', None)
        self._target.register(new)
        # It says on the standard output what it does.
        with contextlib.redirect_stdout(io.StringIO()):
            self._converters[renamed] = generate_message_converter(
                self._source,
                self._target,
                msgtype,
                renamed,
                self._cache,
                src_is2=False,
                dst_is2=True,
            )


def _check_arrays(types: Typesdict) -> None:
    """
    Check that the arrays in a definition take no longer to read than their data is long.

    Raises
    ------
    DamagedFile
        If an array has elements without any data, of which a message can claim any number, or if
        arrays of a fixed length have too many elements in all.
    """
    lengths: dict[str, int] = {}
    for name in types:
        _check_arrays_of(name, types, lengths, ())


def _check_arrays_of(
    name: str, types: Typesdict, lengths: dict[str, int], within: tuple[str, ...]
) -> int:
    """Return how many values a message of a type has at least, 1 if the type is not defined."""
    if name not in types:
        return 1
    if name in within or len(within) > MAX_DEFINITION_DEPTH:
        raise DamagedFile(f'the type {printable(name)} contains itself or is nested too deeply')
    if name not in lengths:
        total = 0
        for field, description in types[name][1]:
            node, detail = cast('tuple[Nodetype, Any]', description)
            is_array = node in (Nodetype.ARRAY, Nodetype.SEQUENCE)
            (element, about), count = detail if is_array else ((node, detail), 1)
            size = 1
            if element == Nodetype.NAME:
                size = _check_arrays_of(about, types, lengths, (*within, name))
            if is_array and size == 0:
                raise DamagedFile(f'the elements of the array {printable(field)} have no data')
            # A sequence takes its own length, whatever it may have at most.
            total += 1 if node == Nodetype.SEQUENCE else count * size
        if total > MAX_ARRAY_LENGTH:
            raise DamagedFile(
                f'the type {printable(name)} has more than {MAX_ARRAY_LENGTH} values'
            )
        lengths[name] = total
    return lengths[name]
