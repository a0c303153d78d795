"""Reading bags from their start, where the index at their end is lost or cut off."""

from __future__ import annotations

import io
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import BinaryIO

from rosbags.rosbag1.reader import (
    Header,
    ReaderError,
    RecordType,
    decompressors,
    normalize,
    read_bytes,
    read_uint32,
)
from rosbags.typesys.msg import normalize_msgtype

from metrabs_ros.recordings.recorded import Topic

Message = tuple[Topic, int, bytes]

MCAP_NEEDED = 'bags in mcap that are cut off need the package mcap: pip install mcap'


class DamagedFile(ValueError):  # noqa: N818
    """A file does not even begin as it should."""


def scan_mcap(file: pathlib.Path) -> Iterator[Message]:
    """Return the messages of an mcap file up to where it is damaged, as they lie in it."""
    try:
        from mcap import records as kinds
        from mcap.stream_reader import StreamReader
    except ImportError as error:
        raise DamagedFile(MCAP_NEEDED) from error

    schemas = {}
    topics: dict[int, Topic] = {}
    with open(file, 'rb') as stream:
        records = StreamReader(stream).records
        while True:
            try:
                record = next(records)
            except Exception:  # The end, or whatever half a record makes the library stumble in.
                return
            if isinstance(record, kinds.Schema):
                schemas[record.id] = record
            elif isinstance(record, kinds.Channel):
                schema = schemas.get(record.schema_id)
                topics[record.id] = Topic(
                    record.topic,
                    schema.name if schema else '',
                    schema.data.decode(errors='replace') if schema else '',
                )
            elif isinstance(record, kinds.Message) and record.channel_id in topics:
                yield topics[record.channel_id], record.log_time, record.data


def scan_sqlite(file: pathlib.Path) -> Iterator[Message]:
    """Return the messages of a db3 file up to where it is damaged, as they lie in it."""
    # Not changed, and read even where a journal of the recorder lies beside it.
    database = sqlite3.connect(f'file:{file}?immutable=1', uri=True, check_same_thread=False)
    try:
        # Otherwise no database is opened that says that it is longer than it is.
        database.execute('PRAGMA writable_schema = ON')
        topics = {
            key: Topic(name, msgtype, *_definition_in(database, msgtype))
            for key, name, msgtype in database.execute('SELECT id, name, type FROM topics')
        }
        rows = database.execute('SELECT topic_id, timestamp, data FROM messages')
        while True:
            try:
                row = next(rows, None)
            except sqlite3.DatabaseError:
                return
            if row is None:
                return
            if row[0] in topics:
                yield topics[row[0]], row[1], row[2]
    except sqlite3.DatabaseError as error:
        raise DamagedFile(f'the database cannot be read: {error}') from error
    finally:
        database.close()


def _definition_in(database: sqlite3.Connection, msgtype: str) -> tuple[str, str]:
    """Return the text of a definition and its hash, empty in bags of older versions."""
    try:
        found = database.execute(
            'SELECT encoded_message_definition, type_description_hash FROM message_definitions '
            'WHERE topic_type = ?',
            (msgtype,),
        ).fetchone()
    except sqlite3.DatabaseError:
        return '', ''
    return found or ('', '')


def scan_ros1(file: pathlib.Path) -> Iterator[Message]:
    """Return the messages of a ROS 1 bag up to where it is damaged, as ROS 1 serialises them."""
    with open(file, 'rb') as stream:
        if not stream.readline().startswith(b'#ROSBAG V2.0'):
            raise DamagedFile('it does not begin as a ROS 1 bag of version 2.0 does')
        try:
            yield from _ros1_records(stream, {})
        except (ReaderError, KeyError, ValueError, RuntimeError, EOFError, OSError):
            return


def _ros1_records(stream: BinaryIO, topics: dict[int, Topic]) -> Iterator[Message]:
    """Return the messages in a row of records, and in the chunks among them."""
    while True:
        try:
            header = Header.read(stream)
        except ReaderError:
            return
        kind = header.get_uint8('op')
        if kind == RecordType.CONNECTION:
            about = Header.read(stream)
            topics[header.get_uint32('conn')] = Topic(
                normalize(header.get_string('topic')),
                normalize_msgtype(about.get_string('type')),
                about.get_string('message_definition'),
            )
            continue
        data = read_bytes(stream, read_uint32(stream))
        if kind == RecordType.CHUNK:
            whole = decompressors[header.get_string('compression')](data)
            yield from _ros1_records(io.BytesIO(whole), topics)
        elif kind == RecordType.MSGDATA:
            yield topics[header.get_uint32('conn')], header.get_time('time'), data
