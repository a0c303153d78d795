"""Files of ROS 2 bags in SQLite, read with limits on what they claim."""

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
MIN_VALUE_LIMIT_BYTES = MIB
MAX_VALUE_LIMIT_BYTES = 1_000_000_000
STEPS_BETWEEN_CHECKS = 1_000_000
STEPS_PER_BYTE, UNRESTRICTED_STEPS = 20, 200_000_000
"""Of SQLite's virtual machine, for one statement."""


class SqliteFile:
    """
    A file of a ROS 2 bag in SQLite, read up to where it is damaged.

    Parameters
    ----------
    path
        The file.
    advance
        Is told of the progress of counting the messages.

    Raises
    ------
    UnusableFile
        If it cannot be read at all.
    DamagedFile
        If it is no database of messages.
    """

    def __init__(self, path: pathlib.Path, advance: Advance) -> None:
        self._path = path
        with open_input(path) as file:
            self._size = os.fstat(file.fileno()).st_size
            if file.read(len(MAGIC)) != MAGIC:
                raise DamagedFile('it does not begin as an SQLite database does')
        self._steps = 0
        self._connection: sqlite3.Connection | None = None
        self.damage = ''
        # Of each message, in the order of their times.
        self._rows, self._numbers = array.array('q'), array.array('q')
        try:
            self._check_tables()
            self._topics = self._read_topics()
            counts = self._count(advance)
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
        chosen = set(topics)
        wanted = {number: topic for number, topic in self._topics.items() if topic in chosen}
        left = self._size
        for row, number in zip(self._rows, self._numbers):
            topic = wanted.get(number)
            if topic is None:
                continue
            self._steps = 0
            try:
                found = self._database.execute(
                    'SELECT timestamp, data FROM messages WHERE rowid = ?', (row,)
                ).fetchone()
            except sqlite3.Error as error:
                if self.damage:
                    return
                raise DamagedFile(printable(error, 200)) from error
            if found is None or not isinstance(found[1], bytes):
                continue
            # No page can belong to two messages.
            left -= len(found[1])
            if left < 0:
                raise DamagedFile('its messages are larger than the file')
            yield BagMessage(topic, int(found[0]), found[1])

    def close(self) -> None:
        """Close the file until it is read again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connection(self._path, self._size, self._check_steps)
        return self._connection

    def _check_steps(self) -> int:
        """Tell SQLite whether to stop a statement that takes too long for the file's size."""
        self._steps += STEPS_BETWEEN_CHECKS
        return int(self._steps > UNRESTRICTED_STEPS + STEPS_PER_BYTE * self._size)

    def _check_tables(self) -> None:
        """Refuse tables whose rows are computed rather than stored."""
        for name in ('topics', 'messages'):
            found = self._database.execute(
                'SELECT type, sql FROM sqlite_master WHERE name = ?', (name,)
            ).fetchone()
            if found is None:
                raise DamagedFile(f'it has no table {name}; it is no bag')
            kind, statement = found
            is_stored = kind == 'table' and str(statement).upper().startswith('CREATE TABLE')
            columns = self._database.execute(f'PRAGMA table_xinfo({name})').fetchall()
            if not is_stored or any(column[6] for column in columns):
                raise DamagedFile(f'{name} is no plain table; it is not read')

    def _read_topics(self) -> dict[int, Topic]:
        columns = {row[1] for row in self._database.execute('PRAGMA table_info(topics)')}
        profiles = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
        topics: dict[int, Topic] = {}
        rows = self._database.execute(f'SELECT id, name, type, {profiles} FROM topics')
        for number, name, msgtype, text in rows:
            if not (isinstance(number, int) and _is_name(name) and _is_name(msgtype)):
                continue
            if len(topics) >= MAX_TOPICS:
                raise DamagedFile(f'it has more than {MAX_TOPICS} topics')
            is_text = isinstance(text, str) and len(text) <= MAX_TEXT_CHARS
            topics[number] = Topic(
                name,
                msgtype,
                self._definition_of(msgtype),
                qos=parse_profiles(text) if is_text else (),
            )
        return topics

    def _definition_of(self, msgtype: str) -> str:
        """Return the text of a definition, empty in bags of older versions."""
        with contextlib.suppress(sqlite3.Error):
            found = self._database.execute(
                'SELECT encoded_message_definition FROM message_definitions '
                'WHERE topic_type = ? AND length(encoded_message_definition) <= ?',
                (msgtype, MAX_DEFINITION_CHARS),
            ).fetchone()
            if found is not None and isinstance(found[0], str):
                return found[0]
        return ''

    def _count(self, advance: Advance) -> Counter[int]:
        """Return how many messages each topic has, and note their order."""
        counts: Counter[int] = Counter()
        budget = ReadBudget(self._size)
        times_ns = array.array('q')
        is_sorted, last_ns = True, 0
        self._steps = 0
        # The data is not read: most of a large message lies elsewhere in the file.
        rows = self._database.execute('SELECT rowid, topic_id, timestamp FROM messages')
        try:
            for row, number, time_ns in rows:
                budget.take_records()
                self._steps = 0
                if not (isinstance(number, int) and isinstance(time_ns, int)):
                    continue
                if number not in self._topics:
                    continue
                if time_ns not in VALID_TIMES_NS:
                    raise DamagedFile(f'the time {time_ns} ns of a message is invalid')
                counts[number] += 1
                self._rows.append(row)
                self._numbers.append(number)
                times_ns.append(time_ns)
                is_sorted &= time_ns >= last_ns
                last_ns = time_ns
                advance(1)
        except (sqlite3.Error, DamagedFile) as error:
            self.damage = printable(error, 200)
        if not is_sorted:
            order = sorted(range(len(times_ns)), key=times_ns.__getitem__)
            self._rows = array.array('q', [self._rows[i] for i in order])
            self._numbers = array.array('q', [self._numbers[i] for i in order])
        return counts


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME_CHARS


def _connection(
    path: pathlib.Path, size: int, check_steps: Callable[[], int]
) -> sqlite3.Connection:
    """Open a database that is not changed, even where a journal of the recorder lies beside it."""
    quoted = urllib.parse.quote(os.fsencode(path))
    try:
        database = sqlite3.connect(
            f'file:{quoted}?immutable=1&mode=ro', uri=True, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise DamagedFile(f'the database cannot be opened: {printable(error, 200)}') from error
    # Names may consist of any bytes.
    database.text_factory = lambda data: data.decode('utf-8', 'replace')
    database.set_progress_handler(check_steps, STEPS_BETWEEN_CHECKS)
    if hasattr(database, 'setlimit'):  # from Python 3.11
        # A value that claims to be larger than the file is refused before it is allocated.
        limit = min(max(size, MIN_VALUE_LIMIT_BYTES), MAX_VALUE_LIMIT_BYTES)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
    with contextlib.suppress(sqlite3.Error):
        # Otherwise no database is opened that says that it is longer than it is.
        database.execute('PRAGMA writable_schema = ON')
        database.execute('PRAGMA trusted_schema = OFF')
        database.execute('PRAGMA cell_size_check = ON')
        database.execute('PRAGMA mmap_size = 0')
    return database
