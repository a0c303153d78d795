"""Read SQLite files of ROS 2 bags, with limits on declared sizes and on running time."""

from __future__ import annotations

import array
import contextlib
import os
import pathlib
import sqlite3
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.chunks import VALID_TIMES_NS
from metrabs_ros.recordings.input_files import open_input
from metrabs_ros.recordings.limits import (
    MAX_DEFINITION_CHARS,
    MAX_NAME_CHARS,
    MAX_TOPICS,
    MIB,
    DamagedFile,
    ReadBudget,
)
from metrabs_ros.recordings.profiles import MAX_TEXT_CHARS, parse_profiles
from metrabs_ros.recordings.progress import Advance

MAGIC = b'SQLite format 3\0'
MIN_VALUE_LIMIT_BYTES, MAX_VALUE_LIMIT_BYTES = MIB, 1_000_000_000
"""Range of the maximum size of a value, which is otherwise the size of the file."""
STEPS_BETWEEN_CHECKS = 1_000_000
STEPS_PER_BYTE, UNRESTRICTED_STEPS = 20, 200_000_000
"""Maximum instructions of SQLite's virtual machine for a statement: per byte, and in addition."""


class SqliteFile:
    """
    An SQLite file of a ROS 2 bag.  A damaged file is read up to the damage.

    Parameters
    ----------
    path
        The file.
    advance
        Called after each message that is counted.

    Raises
    ------
    UnusableFile
        If the file cannot be opened.
    DamagedFile
        If the file is not a database of messages.
    """

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._path = path
        with open_input(path) as file:
            self._size = os.fstat(file.fileno()).st_size
            if file.read(len(MAGIC)) != MAGIC:
                raise DamagedFile('the file does not start with the magic bytes of SQLite')
        self._steps = 0
        self._connection: sqlite3.Connection | None = None
        self.damage = ''
        # Row and topic id of each message, sorted by time.
        self._rows, self._topic_ids = array.array('q'), array.array('q')
        try:
            self._check_tables()
            self._topics = self._read_topics()
            counts = self._index_messages(advance)
        except BaseException as error:
            self.close()
            if isinstance(error, (sqlite3.Error, sqlite3.Warning)):
                raise DamagedFile(
                    f'the database cannot be read: {printable(error, 200)}'
                ) from error
            raise
        self.counts: Counter[Topic] = Counter()
        for number, topic in self._topics.items():
            self.counts[topic] += counts[number]

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics; see `Storage`."""
        selected = set(topics)
        by_id = {number: topic for number, topic in self._topics.items() if topic in selected}
        remaining_bytes = self._size
        for row, topic_id in zip(self._rows, self._topic_ids):
            topic = by_id.get(topic_id)
            if topic is None:
                continue
            self._steps = 0
            try:
                result = self._database.execute(
                    'SELECT timestamp, data FROM messages WHERE rowid = ?', (row,)
                ).fetchone()
            except sqlite3.Error as error:
                if self.damage:
                    return
                raise DamagedFile(printable(error, 200)) from error
            if result is None or not isinstance(result[1], bytes):
                continue
            # A valid file stores each message in its own pages.
            remaining_bytes -= len(result[1])
            if remaining_bytes < 0:
                raise DamagedFile('the messages are larger than the file')
            yield BagMessage(topic, int(result[0]), result[1])

    def close(self) -> None:
        """Close the file; it is reopened when it is read again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _open_database(self._path, self._size, self._check_steps)
        return self._connection

    def _check_steps(self) -> int:
        """Return 1 to abort a statement that takes too many steps for the size of the file."""
        self._steps += STEPS_BETWEEN_CHECKS
        return int(self._steps > UNRESTRICTED_STEPS + STEPS_PER_BYTE * self._size)

    def _check_tables(self) -> None:
        """Raise a `DamagedFile` if rows are computed rather than stored."""
        for name in ('topics', 'messages'):
            result = self._database.execute(
                'SELECT type, sql FROM sqlite_master WHERE name = ?', (name,)
            ).fetchone()
            if result is None:
                raise DamagedFile(f'the database has no table {name}; it is not a bag')
            kind, statement = result
            is_stored = kind == 'table' and str(statement).upper().startswith('CREATE TABLE')
            columns = self._database.execute(f'PRAGMA table_xinfo({name})').fetchall()
            if not is_stored or any(column[6] for column in columns):
                raise DamagedFile(f'{name} is not a table of stored rows')

    def _read_topics(self) -> dict[int, Topic]:
        columns = {row[1] for row in self._database.execute('PRAGMA table_info(topics)')}
        profiles = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
        topics: dict[int, Topic] = {}
        rows = self._database.execute(f'SELECT id, name, type, {profiles} FROM topics')
        for number, name, msgtype, text in rows:
            if not (isinstance(number, int) and _is_name(name) and _is_name(msgtype)):
                continue
            if len(topics) >= MAX_TOPICS:
                raise DamagedFile(f'the file has more than {MAX_TOPICS} topics')
            is_text = isinstance(text, str) and len(text) <= MAX_TEXT_CHARS
            topics[number] = Topic(
                name,
                msgtype,
                self._definition_of(msgtype),
                qos=parse_profiles(text) if is_text else (),
            )
        return topics

    def _definition_of(self, msgtype: str) -> str:
        """Return the definition of a message type; empty in bags of older versions."""
        with contextlib.suppress(sqlite3.Error):
            result = self._database.execute(
                'SELECT encoded_message_definition FROM message_definitions '
                'WHERE topic_type = ? AND length(encoded_message_definition) <= ?',
                (msgtype, MAX_DEFINITION_CHARS),
            ).fetchone()
            if result is not None and isinstance(result[0], str):
                return result[0]
        return ''

    def _index_messages(self, advance: Advance) -> Counter[int]:
        """Return the number of messages of each topic, and store the rows sorted by time."""
        counts: Counter[int] = Counter()
        budget = ReadBudget(self._size)
        times_ns = array.array('q')
        is_sorted, last_ns = True, 0
        self._steps = 0
        # Selecting no data is fast: SQLite stores most of a large message in other pages.
        rows = self._database.execute('SELECT rowid, topic_id, timestamp FROM messages')
        try:
            for row, topic_id, time_ns in rows:
                budget.take_records()
                self._steps = 0
                if not (isinstance(topic_id, int) and isinstance(time_ns, int)):
                    continue
                if topic_id not in self._topics:
                    continue
                if time_ns not in VALID_TIMES_NS:
                    raise DamagedFile(f'the time {time_ns} ns of a message is invalid')
                counts[topic_id] += 1
                self._rows.append(row)
                self._topic_ids.append(topic_id)
                times_ns.append(time_ns)
                is_sorted &= time_ns >= last_ns
                last_ns = time_ns
                advance(1)
        except (sqlite3.Error, DamagedFile) as error:
            self.damage = printable(error, 200)
        if not is_sorted:
            order = sorted(range(len(times_ns)), key=times_ns.__getitem__)
            self._rows = array.array('q', [self._rows[i] for i in order])
            self._topic_ids = array.array('q', [self._topic_ids[i] for i in order])
        return counts


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME_CHARS


def _open_database(
    path: pathlib.Path, size: int, check_steps: Callable[[], int]
) -> sqlite3.Connection:
    """Open a database read-only; a journal that the recorder left next to it is ignored."""
    quoted = urllib.parse.quote(os.fsencode(path))
    try:
        database = sqlite3.connect(
            f'file:{quoted}?immutable=1&mode=ro', uri=True, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise DamagedFile(f'the database cannot be opened: {printable(error, 200)}') from error
    # Names may not be valid UTF-8.
    database.text_factory = lambda data: data.decode('utf-8', 'replace')
    database.set_progress_handler(check_steps, STEPS_BETWEEN_CHECKS)
    if hasattr(database, 'setlimit'):  # Python 3.11 and later
        # SQLite rejects a larger value before it allocates memory.
        limit = min(max(size, MIN_VALUE_LIMIT_BYTES), MAX_VALUE_LIMIT_BYTES)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    with contextlib.suppress(sqlite3.Error):
        # Without it, SQLite does not open truncated databases.
        database.execute('PRAGMA writable_schema = ON')
        database.execute('PRAGMA trusted_schema = OFF')
        database.execute('PRAGMA cell_size_check = ON')
        database.execute('PRAGMA mmap_size = 0')
    return database
