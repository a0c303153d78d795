"""Read ROS 1 bags of version 2.0 with limits (http://wiki.ros.org/Bags/Format/2.0)."""

from __future__ import annotations

import contextlib
import io
import pathlib
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, cast

from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES, generate_message_converter
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.msg import normalize_msgtype

from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.chunks import Chunk, RawMessage
from metrabs_ros.recordings.decompression import decompress
from metrabs_ros.recordings.indexed_file import Index, IndexedFile
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
"""Maximum number of values in a message type, including those of fixed-length arrays."""
MAX_DEFINITION_DEPTH = 50
_U32, _U64, _PAIR = struct.Struct('<I'), struct.Struct('<Q'), struct.Struct('<II')


class _Record(NamedTuple):
    """A record: the header fields, and the start and the length of the data in bytes."""

    fields: dict[bytes, bytes]
    start: int
    length: int

    @property
    def kind(self) -> int:
        """The opcode of the record."""
        kind = self.fields.get(b'op', b'')
        if len(kind) != 1:
            raise DamagedFile('a record has no valid opcode')
        return kind[0]

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.start + self.length

    def number(self, name: bytes) -> int:
        """Return the value of a field that holds a 32-bit number."""
        (value,) = _U32.unpack(self.fields[name])
        return int(value)

    def time_ns(self, name: bytes) -> int:
        """Return the value of a field that holds a time, in nanoseconds."""
        seconds, nanoseconds = _PAIR.unpack(self.fields[name])
        return int(seconds * NS_PER_S + nanoseconds)


class Ros1File(IndexedFile):
    """
    A ROS 1 bag; its messages are converted to the serialization of ROS 2.

    Its index consists of the connection and chunk info records.  See `IndexedFile`.
    """

    FORMAT = 'a ROS 1 bag of version 2.0'
    MAGIC = MAGIC
    PARSING_ERRORS = (DamagedFile, struct.error, UnicodeDecodeError, KeyError)

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._converter = _Ros1Converter()
        super().__init__(path, advance)

    def _convert(self, topic: Topic, message: RawMessage) -> BagMessage:
        return BagMessage(topic, message.time_ns, self._converter.data(topic, message.data))

    def _record_at(self, offset: int) -> _Record:
        record = _parse_record(self._read_at, offset)
        if record.end > self._size:
            raise DamagedFile(f'the file ends within the record at byte {offset}')
        return record

    def _read_index(self) -> Index:
        head = self._record_at(len(MAGIC))
        if head.kind != BAG_HEADER:
            raise DamagedFile('the bag header is missing')
        if head.fields.get(b'encryptor'):
            raise DamagedFile('the bag is encrypted')
        (offset,) = _U64.unpack(head.fields[b'index_pos'])
        if offset == 0:
            raise DamagedFile('the index is missing')
        budget = ReadBudget(self._size)
        for _ in range(head.number(b'conn_count')):
            record = self._record_at(offset)
            if record.kind != CONNECTION:
                raise DamagedFile('a connection record is missing')
            self._define(record, self._read_at(record.start, _check_length(record.length)))
            offset = record.end
        counts: Counter[int] = Counter()
        chunks: dict[int, Chunk] = {}
        connections: dict[int, frozenset[int]] = {}
        for _ in range(head.number(b'chunk_count')):
            record = self._record_at(offset)
            if record.kind != CHUNK_INFO:
                raise DamagedFile('a chunk info record is missing')
            chunk, of_chunk = self._parse_chunk_info(record)
            if chunk.offset in chunks:
                raise DamagedFile('the index lists a chunk twice')
            budget.take_bytes(chunk.uncompressed_bytes)
            budget.take_records(sum(of_chunk.values()))
            chunks[chunk.offset], connections[chunk.offset] = chunk, frozenset(of_chunk)
            counts.update(of_chunk)
            offset = record.end
        # Chunks without messages need not be read.
        not_empty = [chunk for chunk in chunks.values() if connections[chunk.offset]]
        return Index(counts, not_empty, connections)

    def _parse_chunk_info(self, record: _Record) -> tuple[Chunk, dict[int, int]]:
        (offset,) = _U64.unpack(record.fields[b'chunk_pos'])
        counts = dict(_PAIR.iter_unpack(self._read_at(record.start, _check_length(record.length))))
        chunk = self._record_at(offset)
        if chunk.kind != CHUNK:
            raise DamagedFile('the index lists a chunk where there is another record')
        compression = chunk.fields[b'compression'].decode()
        size = chunk.number(b'size')
        if compression != 'none':
            check_chunk_size(chunk.length, size)
        start_ns, end_ns = record.time_ns(b'start_time'), record.time_ns(b'end_time')
        return Chunk(offset, start_ns, end_ns, size), counts

    def _scan(
        self, channels: Collection[int] | None, budget: ReadBudget, advance: Advance
    ) -> Iterator[RawMessage]:
        offset = len(MAGIC)
        while offset < self._size:
            record = self._record_at(offset)
            budget.take_records()
            if record.kind == CHUNK:
                yield from self._read_chunk(offset, channels, budget)
            elif record.kind == CONNECTION:
                self._define(record, self._read_at(record.start, _check_length(record.length)))
            elif record.kind == MESSAGE:
                yield from self._message(record, self._read_at, channels)
            advance(record.end - offset)
            offset = record.end

    def _read_chunk(
        self, offset: int, channels: Collection[int] | None, budget: ReadBudget
    ) -> list[RawMessage]:
        chunk = self._record_at(offset)
        if chunk.kind != CHUNK:
            raise DamagedFile(f'the record at byte {offset} is not a chunk')
        size = chunk.number(b'size')
        if chunk.length > MAX_CHUNK_BYTES:
            raise DamagedFile(
                f'a chunk has {chunk.length} bytes; at most {MAX_CHUNK_BYTES} are read'
            )
        budget.take_bytes(size)
        compression = chunk.fields[b'compression'].decode()
        records = decompress(self._read_at(chunk.start, chunk.length), compression, size)

        def read_at(start: int, length: int) -> bytes:
            if length < 0 or start + length > len(records):
                raise DamagedFile(f'the chunk at byte {offset} ends within a record')
            return bytes(records[start : start + length])

        messages: list[RawMessage] = []
        position = 0
        while position < len(records):
            budget.take_records()
            record = _parse_record(read_at, position)
            if record.kind == CONNECTION:
                if self._index is None:
                    self._define(record, read_at(record.start, _check_length(record.length)))
            elif record.kind == MESSAGE:
                messages += self._message(record, read_at, channels)
            position = record.end
        if position > len(records):
            raise DamagedFile(f'the chunk at byte {offset} ends within a record')
        messages.sort(key=lambda message: message.time_ns)
        return messages

    def _message(
        self,
        record: _Record,
        read_at: Callable[[int, int], bytes],
        channels: Collection[int] | None,
    ) -> Iterator[RawMessage]:
        connection = record.number(b'conn')
        if connection not in self._topics or (channels is not None and connection not in channels):
            return
        data = b''
        if channels is not None:
            if record.length > MAX_MESSAGE_BYTES:
                raise DamagedFile(
                    f'a message has {record.length} bytes; at most {MAX_MESSAGE_BYTES} are read'
                )
            data = read_at(record.start, record.length)
        yield RawMessage(record.time_ns(b'time'), connection, data)

    def _define(self, record: _Record, data: bytes) -> None:
        """Store a connection; the first definition of a number is used."""
        number = record.number(b'conn')
        if number in self._topics:
            return
        if len(self._topics) >= MAX_TOPICS:
            raise DamagedFile(f'the file has more than {MAX_TOPICS} connections')
        header = _parse_fields(data)
        name, msgtype = (
            field.decode('utf-8', 'replace')
            for field in (record.fields[b'topic'], header[b'type'])
        )
        if len(name) > MAX_NAME_CHARS or len(msgtype) > MAX_NAME_CHARS:
            raise DamagedFile(
                f'the name of a topic or type has more than {MAX_NAME_CHARS} characters'
            )
        definition = header[b'message_definition'].decode('utf-8', 'replace')
        self._topics[number] = self._converter.topic(
            _normalize_name(name), normalize_msgtype(msgtype), definition
        )


def _parse_record(read_at: Callable[[int, int], bytes], offset: int) -> _Record:
    (header_bytes,) = _U32.unpack(read_at(offset, _U32.size))
    if header_bytes > MAX_HEADER_BYTES:
        raise DamagedFile(
            f'the record at byte {offset} has a header of {header_bytes} bytes; at most '
            f'{MAX_HEADER_BYTES} are read'
        )
    start = offset + _U32.size + header_bytes
    fields = _parse_fields(read_at(offset + _U32.size, header_bytes))
    (length,) = _U32.unpack(read_at(start, _U32.size))
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


def _check_length(length: int) -> int:
    if length > MAX_HEADER_BYTES:
        raise DamagedFile(f'a record has {length} bytes; at most {MAX_HEADER_BYTES} are read')
    return length


def _normalize_name(name: str) -> str:
    """Return the name of a topic without empty path components."""
    return f'{"/" * name.startswith("/")}{"/".join(part for part in name.split("/") if part)}'


class _Ros1Converter:
    """Converts serialized messages of ROS 1 to the serialization of ROS 2."""

    def __init__(self) -> None:
        self._source = get_typestore(Stores.EMPTY)
        self._target = get_typestore(Stores.ROS2_JAZZY)
        self._converters: dict[str, Callable[[Any], Any]] = {}
        self._topics: dict[tuple[str, str], Topic] = {}
        self._cache: dict[str, object] = {}
        self._budget = DefinitionBudget()

    def topic(self, name: str, msgtype: str, definition: str) -> Topic:
        """
        Return a topic with its definition in the format of ROS 2.

        If messages cannot be converted, the definition of their topic is empty, and they have
        empty data.
        """
        if (name, msgtype) not in self._topics:
            try:
                self._topics[name, msgtype] = self._convert_topic(name, msgtype, definition)
            except Exception:  # An invalid definition can raise any exception in the parser.
                self._topics[name, msgtype] = Topic(name, msgtype)
        return self._topics[name, msgtype]

    def data(self, topic: Topic, data: bytes | memoryview) -> bytes | memoryview:
        """Return the data of a message in ROS 2 serialization; empty if it is not convertible."""
        convert = self._converters.get(topic.msgtype)
        if convert is None:
            return b''
        try:
            converted: memoryview = convert(data)
        except Exception:  # Invalid data can raise any exception in the library.
            return b''
        return converted

    def _convert_topic(self, name: str, msgtype: str, definition: str) -> Topic:
        renamed = STATIC_MSGTYPE_RENAMES.get(msgtype, msgtype)
        if renamed not in self._converters:
            if not self._budget.accepts(definition):
                raise DamagedFile(
                    f'a message definition of {len(definition)} characters is too long'
                )
            types = get_types_from_msg(definition, msgtype)
            _check_arrays(types)
            self._register(types, msgtype, renamed)
        text, _ = self._target.generate_msgdef(renamed, ros_version=2)
        return Topic(name, renamed, text)

    def _register(self, types: Typesdict, msgtype: str, renamed: str) -> None:
        """Register the types of a definition and generate the converter of its messages."""
        self._source.register({k: v for k, v in types.items() if k not in self._source.fielddefs})
        new = {k: v for k, v in types.items() if k not in self._target.fielddefs}
        new.pop('std_msgs/msg/Header', None)
        self._target.register(new)
        # The generator prints to standard output.
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
    Check that the time to read an array is bounded by the size of its data.

    Raises
    ------
    DamagedFile
        If the elements of an array have no data, so that a message can declare any number of
        them, or if the fixed-length arrays have too many elements in total.
    """
    lengths: dict[str, int] = {}
    for name in types:
        _check_type_arrays(name, types, lengths, ())


def _check_type_arrays(
    name: str, types: Typesdict, lengths: dict[str, int], parents: tuple[str, ...]
) -> int:
    """Return the minimum number of values in a message; 1 if the type is not defined."""
    if name not in types:
        return 1
    if name in parents or len(parents) > MAX_DEFINITION_DEPTH:
        raise DamagedFile(f'the type {printable(name)} contains itself or is nested too deeply')
    if name not in lengths:
        total = 0
        for field, description in types[name][1]:
            node, detail = cast('tuple[Nodetype, Any]', description)
            is_array = node in (Nodetype.ARRAY, Nodetype.SEQUENCE)
            (element, type_name), count = detail if is_array else ((node, detail), 1)
            size = 1
            if element == Nodetype.NAME:
                size = _check_type_arrays(type_name, types, lengths, (*parents, name))
            if is_array and size == 0:
                raise DamagedFile(f'the elements of the array {printable(field)} have no data')
            # An empty sequence still has a length field.
            total += 1 if node == Nodetype.SEQUENCE else count * size
        if total > MAX_ARRAY_LENGTH:
            raise DamagedFile(
                f'the type {printable(name)} has more than {MAX_ARRAY_LENGTH} values'
            )
        lengths[name] = total
    return lengths[name]
