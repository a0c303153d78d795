"""Small bags that need much memory or time if they are read without limits."""

from __future__ import annotations

import bz2
import os
import pathlib
import sqlite3
import struct
import sys

import lz4.frame
import numpy as np
from recorded_bags import SQLITE, write_bag
from rosbags.rosbag2 import CompressionMode

from metrabs_ros.recordings.typestore import IMAGE, typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 2**20
MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 1, 2, 3, 4, 5, 6
CHUNK_INDEX, STATISTICS = 8, 11
UNKNOWN_RECORD = 0x80
"""Opcode of records that readers must skip."""
IMAGES = [np.full((60, 80, 3), 90, np.uint8)] * 3
DEFINITION = typestore().generate_msgdef(IMAGE, ros_version=2)[0]


def record(kind, content):
    return struct.pack('<BQ', kind, len(content)) + content


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack('<I', len(data)) + data


def schema(number=1, name=IMAGE, definition=DEFINITION, encoding='ros2msg'):
    content = struct.pack('<H', number) + text(name) + text(encoding) + text(definition)
    return record(SCHEMA, content)


def channel(number=1, topic='/camera/image_raw', profiles='', schema_number=1):
    content = struct.pack('<HH', number, schema_number) + text(topic) + text('cdr')
    metadata = text('offered_qos_profiles') + text(profiles)
    return record(CHANNEL, content + text(metadata))


def message(number=1, data=b'', time_ns=1):
    return record(MESSAGE, struct.pack('<HIQQ', number, 0, time_ns, time_ns) + data)


def chunk(records, compression='zstd', declared_size=None, compressed=None):
    compressed = zstd.compress(records) if compressed is None else compressed
    size = len(records) if declared_size is None else declared_size
    head = struct.pack('<QQQI', 1, 1, size, 0) + text(compression)
    return record(CHUNK, head + struct.pack('<Q', len(compressed)) + compressed)


def chunk_index(offset, length, size, compressed, numbers=(1,)):
    table = b''.join(struct.pack('<HQ', number, 0) for number in numbers)
    content = struct.pack('<QQQQ', 1, 1, offset, length) + struct.pack('<I', len(table)) + table
    return record(
        CHUNK_INDEX,
        content + struct.pack('<Q', 0) + text('zstd') + struct.pack('<QQ', compressed, size),
    )


def statistics(counts, chunks=0, total=None):
    table = b''.join(struct.pack('<HQ', *item) for item in counts.items())
    total = sum(counts.values()) if total is None else total
    head = struct.pack('<QHIIIIQQ', total, 1, len(counts), 0, 0, chunks, 1, 1)
    return record(STATISTICS, head + struct.pack('<I', len(table)) + table)


def mcap(*records, summary=None, summary_offset=None):
    """Return the content of an mcap file with or without a summary."""
    data = MAGIC + record(HEADER, text('ros2') + text('')) + b''.join(records)
    start = 0
    if summary is not None:
        start = len(data)
        data += summary
    start = start if summary_offset is None else summary_offset
    return data + record(FOOTER, struct.pack('<QQI', start, 0, 0)) + MAGIC


IMAGE_TOPIC = schema() + channel()


def compress_repeatedly(unit, times):
    """Compress a block repeatedly, without all of the data in memory."""
    compressor = zstd.ZstdCompressor()
    parts = [compressor.compress(unit) for _ in range(times)]
    return b''.join([*parts, compressor.flush()])


def bomb_of(unit, size):
    """Return a schema, a channel, and a chunk of a repeated unit."""
    block = unit * (MIB // len(unit))
    times = size // len(block)
    compressed = compress_repeatedly(block, times)
    return IMAGE_TOPIC + chunk(b'', compressed=compressed, declared_size=times * len(block))


def same_chunk_listed_often(times):
    whole = chunk(IMAGE_TOPIC + message() * 10_000)
    offset = len(MAGIC) + len(record(HEADER, text('ros2') + text('')))
    lists = chunk_index(offset, len(whole), 40 * 10_000, 1000) * times
    return mcap(whole, summary=IMAGE_TOPIC + lists + statistics({1: 10_000 * times}, chunks=times))


def overlapping_chunks(count):
    whole = chunk(b'', compressed=compress_repeatedly(bytes(MIB), 60), declared_size=60 * MIB)
    return mcap(IMAGE_TOPIC, *[whole] * count)


BILLION_LAUGHS = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join([f"*{chr(97 + i)}"] * 9)}]\n' for i in range(9)
)
PARENTHESES = (
    f'{"=" * 80}\nIDL: sensor_msgs/msg/Odd\nmodule sensor_msgs {{ module msg {{ '
    f'module Odd_Constants {{ const long X = {"(" * 9}1{")" * 9}; }}; '
    'struct Odd { long x; }; }; };\n'
)
SHIFT = PARENTHESES.replace('(' * 9, '').replace('1' + ')' * 9, '1 << 99999999999')
UNUSUAL_TYPE = 'sensor_msgs/msg/Odd'


def of_type(definition, encoding='ros2msg', times=1):
    """Return a file with an image topic and topics of an unusual type."""
    return mcap(
        IMAGE_TOPIC,
        *(
            schema(2 + i, f'{UNUSUAL_TYPE}{i or ""}', definition, encoding)
            + channel(2 + i, f'/odd{i}', schema_number=2 + i)
            + message(2 + i, b'\x00\x01\x00\x00')
            for i in range(times)
        ),
    )


MCAP_FILES = {
    'zeros': lambda: mcap(bomb_of(bytes(1), 256 * MIB)),
    'more zeros': lambda: mcap(bomb_of(bytes(1), 256 * MIB) * 20),
    'unknown records': lambda: mcap(bomb_of(record(UNKNOWN_RECORD, b''), 256 * MIB)),
    'unknown records within the limit': lambda: mcap(
        bomb_of(record(UNKNOWN_RECORD, b''), 60 * MIB)
    ),
    'tiny messages': lambda: mcap(bomb_of(message(), 60 * MIB)),
    'tiny messages not chunked': lambda: mcap(IMAGE_TOPIC, message() * 50_000),
    'large chunk': lambda: mcap(IMAGE_TOPIC, chunk(b'', declared_size=2**62)),
    'negative chunk': lambda: mcap(IMAGE_TOPIC, chunk(b'', declared_size=2**64 - 1)),
    'understated size': lambda: mcap(
        IMAGE_TOPIC,
        chunk(b'', compressed=compress_repeatedly(bytes(MIB), 1024), declared_size=100),
    ),
    'many chunks': lambda: overlapping_chunks(300),
    'nested chunks': lambda: mcap(IMAGE_TOPIC, chunk(chunk(chunk(b'')))),
    'lz4': lambda: mcap(
        IMAGE_TOPIC, chunk(b'', 'lz4', 60 * MIB, lz4.frame.compress(bytes(60 * MIB)))
    ),
    'lz4 with understated size': lambda: mcap(
        IMAGE_TOPIC, chunk(b'', 'lz4', 10, lz4.frame.compress(bytes(200 * MIB)))
    ),
    'unknown compression': lambda: mcap(IMAGE_TOPIC, chunk(b'', 'x' * 10_000, 10, b'abc')),
    'same chunk': lambda: same_chunk_listed_often(3000),
    'chunk beyond the file': lambda: mcap(
        IMAGE_TOPIC,
        summary=IMAGE_TOPIC
        + chunk_index(2**63, 2**63, 2**63, 2**63)
        + statistics({1: 1}, chunks=1),
    ),
    'huge counts': lambda: mcap(
        IMAGE_TOPIC, message(), summary=IMAGE_TOPIC + statistics({1: 2**63 - 1})
    ),
    'inconsistent counts': lambda: mcap(
        IMAGE_TOPIC, message(), summary=IMAGE_TOPIC + statistics({1: 1}, total=2**63)
    ),
    'summary in itself': lambda: mcap(IMAGE_TOPIC, summary_offset=len(MAGIC)),
    'summary after the end': lambda: mcap(IMAGE_TOPIC, summary_offset=2**63),
    'long record': lambda: mcap(IMAGE_TOPIC, struct.pack('<BQ', MESSAGE, 2**63 - 1)),
    'long texts': lambda: mcap(
        record(SCHEMA, struct.pack('<HI', 1, 2**32 - 1)),
        record(CHANNEL, struct.pack('<HHI', 1, 1, 2**32 - 1)),
    ),
    'many channels': lambda: mcap(schema(), *(channel(i, f'/t{i}') for i in range(60_000))),
    'many image topics': lambda: mcap(
        schema(),
        schema(2, 'sensor_msgs/msg/CameraInfo', ''),
        *(channel(i, f'/{i}/image_raw') for i in range(1, 300)),
        *(channel(i, f'/{i}/camera_info', schema_number=2) for i in range(300, 600)),
        *(message(i) for i in range(1, 600)),
    ),
    'long topic': lambda: mcap(schema(), channel(topic='/' + 'x' * MIB), message()),
    'unusual topic names': lambda: mcap(
        schema(),
        *(
            channel(i, topic) + message(i)
            for i, topic in enumerate(
                ('', '\x1b[31m/red', '/a\n/b', '<script>', '/\u202eabc', b'/\xff\xfe', '/a\0b')
            )
        ),
    ),
    'invalid types': lambda: mcap(
        IMAGE_TOPIC,
        *(
            schema(i, name, '') + channel(i, f'/t{i}', schema_number=i) + message(i)
            for i, name in enumerate(('', 'x', 'a/b', '../../x', '/msg/', 'a/msg/\n'), start=2)
        ),
    ),
    'profiles': lambda: mcap(schema(), channel(profiles=BILLION_LAUGHS), message()),
    'parentheses': lambda: of_type(PARENTHESES, 'ros2idl'),
    'shift': lambda: of_type(SHIFT, 'ros2idl'),
    'long array': lambda: of_type('uint8[999999999999] x\n'),
    'array of empty type': lambda: of_type(f'Nothing[] x\n{"=" * 80}\nMSG: sensor_msgs/Nothing\n'),
    'contains itself': lambda: of_type('Odd x\n'),
    'many fields': lambda: of_type(''.join(f'int32 f{i}\n' for i in range(20_000))),
    'many values': lambda: of_type(f'int32[] x [{"1, " * 60_000}1]\n'),
    'many definitions': lambda: of_type(''.join(f'int32 f{i}\n' for i in range(100)), times=300),
}
"""Functions that return the content of an mcap file, by name."""


def ros1_record(fields, data):
    head = b''.join(
        struct.pack('<I', len(name) + 1 + len(value)) + name + b'=' + value
        for name, value in fields.items()
    )
    return struct.pack('<I', len(head)) + head + struct.pack('<I', len(data)) + data


def ros1_connection(number=0, msgtype=b'sensor_msgs/Image', definition=b'', topic=b'/image'):
    about = {b'type': msgtype, b'md5sum': b'x', b'message_definition': definition}
    data = b''.join(
        struct.pack('<I', len(name) + 1 + len(value)) + name + b'=' + value
        for name, value in about.items()
    )
    return ros1_record({b'op': b'\x07', b'conn': struct.pack('<I', number), b'topic': topic}, data)


def ros1_message(data, number=0):
    fields = {b'op': b'\x02', b'conn': struct.pack('<I', number), b'time': bytes(8)}
    return ros1_record(fields, data)


def ros1_chunk(data, compression=b'none', size=None):
    size = len(data) if size is None else size
    fields = {b'op': b'\x05', b'compression': compression, b'size': struct.pack('<I', size)}
    return ros1_record(fields, data)


def ros1_bag(*records, index_pos=0, connections=0, chunks=0):
    head = {
        b'op': b'\x03',
        b'index_pos': struct.pack('<Q', index_pos),
        b'conn_count': struct.pack('<I', connections),
        b'chunk_count': struct.pack('<I', chunks),
    }
    return b'#ROSBAG V2.0\n' + ros1_record(head, b' ' * 100) + b''.join(records)


EMPTY_TYPE = b'Nothing[] x\n' + b'=' * 80 + b'\nMSG: a/Nothing\n'

ROS1_FILES = {
    'bz2': lambda: ros1_bag(ros1_chunk(bz2.compress(bytes(100 * MIB)), b'bz2', 100 * MIB)),
    'bz2 with understated size': lambda: ros1_bag(
        ros1_chunk(bz2.compress(bytes(100 * MIB)), b'bz2', 100)
    ),
    'lz4': lambda: ros1_bag(
        *[ros1_chunk(lz4.frame.compress(bytes(60 * MIB)), b'lz4', 60 * MIB)] * 2
    ),
    'long header': lambda: ros1_bag(struct.pack('<I', 2**32 - 1) + bytes(1000)),
    'long data': lambda: ros1_bag(
        struct.pack('<I', 9) + struct.pack('<I', 5) + b'op=\x02' + struct.pack('<I', 2**32 - 1)
    ),
    'index beyond the file': lambda: ros1_bag(
        index_pos=2**63, connections=2**32 - 1, chunks=2**32 - 1
    ),
    'index in itself': lambda: ros1_bag(index_pos=13, connections=2**32 - 1, chunks=2**32 - 1),
    'array of empty type': lambda: ros1_bag(
        ros1_connection(definition=EMPTY_TYPE, msgtype=b'a/Odd', topic=b'/odd'),
        ros1_connection(1),
        ros1_message(struct.pack('<I', 2**32 - 1)),
    ),
    'tiny records': lambda: ros1_bag(
        ros1_chunk(
            bz2.compress(ros1_record({b'op': b'\x63'}, b'') * 2_000_000), b'bz2', 17 * 2_000_000
        )
    ),
    'invalid op': lambda: ros1_bag(ros1_record({b'op': b''}, b''), ros1_record({}, b'')),
}


def write_database(file, *statements):
    """Write an SQLite file."""
    database = sqlite3.connect(file)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return file


TOPICS = (
    'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)',
    f"INSERT INTO topics VALUES(1, '/camera/image_raw', '{IMAGE}', 'cdr')",
)
MESSAGES = 'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)'
ENDLESS_ROWS = (
    'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) '
    "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"
)
DATABASES = {
    'endless view': (*TOPICS, f'CREATE VIEW messages AS {ENDLESS_ROWS}'),
    'endless topics': (
        'CREATE VIEW topics AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) '
        "SELECT i AS id, '/x' AS name, 'x' AS type, 'cdr' AS serialization_format FROM n",
        MESSAGES,
    ),
    'computed data': (
        *TOPICS,
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, '
        'data BLOB AS (zeroblob(999999999)) VIRTUAL)',
        'INSERT INTO messages(topic_id, timestamp) VALUES(1, 1), (1, 2), (1, 3)',
    ),
    'other types': (
        *TOPICS,
        MESSAGES,
        "INSERT INTO messages VALUES(1, '1', 'x', 5), (2, 1.0, 1.5, 'text'), (3, 1, 9e99, NULL)",
        "INSERT INTO topics VALUES(2, NULL, x'ff', 3), (3, x'ff', 5, 'cdr')",
    ),
    'negative times': (*TOPICS, MESSAGES, "INSERT INTO messages VALUES(1, 1, -5, x'00')"),
    'no topics': (MESSAGES,),
    'other tables': ('CREATE TABLE x(y)',),
    'many topics': (
        *TOPICS,
        MESSAGES,
        'WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n LIMIT 9000) '
        "INSERT INTO topics SELECT i, '/t' || i, 'std_msgs/msg/String', 'cdr' FROM n",
    ),
    'trigger': (
        *TOPICS,
        MESSAGES,
        'CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM topics; END',
    ),
}


def write_looped_database(file):
    """Write a database in which the pages of a message form a loop."""
    write_database(file, *TOPICS, MESSAGES)
    database = sqlite3.connect(file)
    with database:
        database.execute('INSERT INTO messages VALUES(1, 1, 1, zeroblob(20000))')
    database.close()
    data = bytearray(file.read_bytes())
    page = struct.unpack_from('>H', data, 16)[0]
    # Overflow pages start with the number of the next page.
    for start in range(page, len(data), page):
        (following,) = struct.unpack_from('>I', data, start)
        if following == start // page + 2:
            struct.pack_into('>I', data, start, start // page + 1)
    file.write_bytes(data)
    return file


METADATA = {
    'billion laughs': BILLION_LAUGHS,
    'a list': '[1, 2, 3]',
    'text': 'rosbag2_bagfile_information: yes',
    'empty': '',
    'binary': '\0\1\2',
    'deep': '[' * 100_000,
    'numbers': 'rosbag2_bagfile_information: {relative_file_paths: [1, 2, {a: b}], version: x}',
    'other paths': 'rosbag2_bagfile_information: {relative_file_paths: [../../etc/passwd, '
    '/dev/zero]}',
    'many files': 'rosbag2_bagfile_information: {relative_file_paths: ['
    + 'bag.mcap, ' * 20_000
    + ']}',
    'same file': 'rosbag2_bagfile_information: {relative_file_paths: ['
    + 'bag.mcap, ' * 200
    + ']}',
    'invalid compression': 'rosbag2_bagfile_information: {relative_file_paths: [bag.mcap], '
    'compression_mode: [x], compression_format: {a: b}}',
    'python': '!!python/object/apply:os.system ["touch hacked"]',
}


def write_all(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write all bags to a folder; return their paths by their names."""
    bags = {}
    for name, content in MCAP_FILES.items():
        bags[f'mcap: {name}'] = file = folder / f'{len(bags)}.mcap'
        file.write_bytes(content())
    for name, content in ROS1_FILES.items():
        bags[f'ROS 1: {name}'] = file = folder / f'{len(bags)}.bag'
        file.write_bytes(content())
    for name, statements in DATABASES.items():
        file = write_database(folder / f'{len(bags)}.db3', *statements)
        bags[f'SQLite: {name}'] = file
    bags['SQLite: loop'] = write_looped_database(folder / 'loop.db3')
    for name, content in METADATA.items():
        bags[f'metadata: {name}'] = bag = write_bag(folder / f'{len(bags)}' / 'bag', IMAGES)
        (bag / 'metadata.yaml').write_text(content)
    bags |= _bombs_in_folders(folder)
    return bags


def _bombs_in_folders(folder):
    bags = {}
    bomb = compress_repeatedly(bytes(MIB), 2000)
    for plugin, suffix in ((None, '.mcap'), (SQLITE, '.db3')):
        options = {'plugin': plugin} if plugin else {}
        bag = write_bag(
            folder / f'packed{suffix}' / 'bag', IMAGES, compression=CompressionMode.FILE, **options
        )
        (file,) = (f for f in bag.iterdir() if f.suffix != '.yaml')
        file.write_bytes(bomb)
        bags[f'compressed file: {suffix}'] = bag
    alone = folder / 'alone.db3.zstd'
    alone.write_bytes(bomb)
    bags['compressed file alone'] = alone
    bag = write_bag(
        folder / 'messages' / 'bag', IMAGES, plugin=SQLITE, compression=CompressionMode.MESSAGE
    )
    database = sqlite3.connect(bag / 'bag.db3')
    with database:
        database.execute('UPDATE messages SET data = ?', (compress_repeatedly(bytes(MIB), 1024),))
    database.close()
    bags['compressed messages'] = bag
    linked = folder / 'linked' / 'bag'
    write_bag(linked, IMAGES)
    (linked / 'bag.mcap').unlink()
    os.mkfifo(linked / 'bag.mcap')
    bags['a named pipe in a bag'] = linked
    device = folder / 'device' / 'bag'
    write_bag(device, IMAGES)
    (device / 'bag.mcap').unlink()
    (device / 'bag.mcap').symlink_to('/dev/zero')
    bags['a device in a bag'] = device
    piped = folder / 'piped' / 'bag'
    write_bag(piped, IMAGES)
    (piped / 'metadata.yaml').unlink()
    os.mkfifo(piped / 'metadata.yaml')
    bags['a named pipe as metadata'] = piped
    return bags
