"""Bags of ROS 1 and ROS 2 as streams of serialised messages, damaged ones as far as they go."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from rosbags import rosbag1, rosbag2
from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES, generate_message_converter
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from metrabs_ros.recordings import salvage
from metrabs_ros.recordings.message_types import SKELETONS
from metrabs_ros.recordings.recorded import RESULTS_SUFFIX, Recorded, Topic

NUMBER = re.compile(r'_(\d+)(?=\.\w+$)')
"""Of a file of a split bag."""
BAG_SUFFIXES = ('.bag', '.mcap', '.db3', '.active')


class UnreadableRecording(ValueError):  # noqa: N818
    """Nothing can be had from a recording; the message says why."""


class Storage(Protocol):
    """
    Where messages lie.

    Parameters
    ----------
    counts
        The topics, and how many messages each has.
    """

    counts: Counter[Topic]

    def messages(self, topics: Sequence[Topic]) -> Iterator[Recorded]:
        """Return the messages of topics in the order in which they were recorded."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Bag:
    """
    A bag.

    Parameters
    ----------
    path
        A ROS 2 bag's folder, with or without its metadata.yaml, one of its files, or a ROS 1 bag.
    tell
        Is told in a sentence of everything that is not as it should be.

    Raises
    ------
    UnreadableRecording
        If there is nothing to be had from it.
    """

    def __init__(self, path: pathlib.Path, tell: Callable[[str], None]) -> None:
        self.path = path
        self._tell = tell
        self._storages = _open(path, tell)
        self.counts: Counter[Topic] = Counter()
        for storage in self._storages:
            # Not by adding, which would leave out topics without messages.
            self.counts.update(storage.counts)

    def topics_by_name(self) -> list[Topic]:
        """Return all topics, sorted."""
        return sorted(self.counts, key=lambda topic: topic.name)

    def skeleton_topics(self) -> list[Topic]:
        """
        Return the topics with people in them, sorted.

        Raises
        ------
        UnreadableRecording
            If there are none.
        """
        topics = [topic for topic in self.topics_by_name() if topic.msgtype == SKELETONS]
        if not topics:
            raise UnreadableRecording(
                f'{self.path} has no skeletons in it; metrabs_ros annotate {self.path} finds '
                'people first'
            )
        return topics

    def messages(self, topics: Sequence[Topic] = ()) -> Iterator[Recorded]:
        """Return the messages of topics, by default of all; where data is damaged, they end."""
        for storage in self._storages:
            own = [topic for topic in topics or self.counts if topic in storage.counts]
            if own:
                yield from self._until_damage(storage.messages(own))

    def close(self) -> None:
        """Let go of the files."""
        for storage in self._storages:
            storage.close()

    def _until_damage(self, messages: Iterator[Recorded]) -> Iterator[Recorded]:
        count = 0
        try:
            for message in messages:
                count += 1
                yield message
        except Exception as error:  # Broken data makes readers stumble in many ways.
            self._tell(
                f'{self.path} is damaged after {count} messages ({error}); what comes before is '
                'used'
            )


def is_bag(path: pathlib.Path) -> bool:
    """Tell whether a path looks like a bag."""
    if not path.is_dir():
        return path.suffix in BAG_SUFFIXES
    if (path / 'metadata.yaml').exists():
        return True
    # What a recorder leaves that was killed: one file, or several with a number each.
    names = {NUMBER.sub('', file.name) for file in _files_in(path)}
    return len(names) == 1


def bags_in(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the bags in a folder that is none itself and has some, without results; else it."""
    if not path.is_dir() or is_bag(path):
        return [path]
    children = sorted(child for child in path.iterdir() if is_bag(child))
    return [child for child in children if not child.name.endswith(RESULTS_SUFFIX)] or [path]


def _open(path: pathlib.Path, tell: Callable[[str], None]) -> list[Storage]:
    """Open a bag as a whole, or else each of its files as far as that goes."""
    if not path.exists():
        raise UnreadableRecording(f'there is no bag {path}')
    try:
        return [_open_whole(path)]
    except Exception as error:  # As above.
        why = str(error) or type(error).__name__
    files = _files_in(path) if path.is_dir() else [path]
    storages: list[Storage] = []
    lost = []
    for file in files:
        try:
            storages.append(_open_if_whole(file) or _salvage(file))
        except ValueError as error:
            lost.append(f'{file.name}: {error}')
    found = sum(sum(storage.counts.values()) for storage in storages)
    if not found:
        details = f' ({"; ".join(lost)})' if lost else ''
        raise UnreadableRecording(f'{path} cannot be read as a bag: {why}{details}')
    tell(f'{path} is not whole: {why.rstrip(".")}; {found} messages can be read')
    for loss in lost:
        tell(f'nothing can be read of {loss}')
    return storages


def _open_if_whole(file: pathlib.Path) -> Storage | None:
    with contextlib.suppress(Exception):  # As above.
        return _open_whole(file)
    return None


def _open_whole(path: pathlib.Path) -> Storage:
    if path.is_dir() or path.suffix in ('.mcap', '.db3'):
        return _Ros2Storage(path)
    return _Ros1Storage(path)


def _salvage(file: pathlib.Path) -> Storage:
    if file.suffix == '.mcap':
        return _Scanned(file, salvage.scan_mcap)
    if file.suffix == '.db3':
        return _Scanned(file, salvage.scan_sqlite)
    if file.suffix in ('.bag', '.active'):
        return _Ros1Scanned(file)
    raise UnreadableRecording(f'files ending in {file.suffix!r} are not known')


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a bag's files in the order in which they were written."""

    def number(file: pathlib.Path) -> tuple[int, str]:
        found = NUMBER.search(file.name)
        return (int(found[1]) if found else 0, file.name)

    files = [file for file in folder.iterdir() if file.suffix in ('.mcap', '.db3')]
    return sorted(files, key=number)


def _counts(connections: Sequence[Connection], topics: dict[int, Topic]) -> Counter[Topic]:
    """Return how many messages each topic has on all its connections."""
    counts: Counter[Topic] = Counter()
    for connection in connections:
        counts[topics[connection.id]] += connection.msgcount
    return counts


class _Ros2Storage:
    """A ROS 2 bag, or one of its files, that is whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self._reader = rosbag2.Reader(path)
        self._reader.open()
        self._topics = {
            connection.id: Topic(
                connection.topic,
                connection.msgtype,
                connection.msgdef.data,
                connection.digest,
                tuple(getattr(connection.ext, 'offered_qos_profiles', ())),
            )
            for connection in self._reader.connections
        }
        self.counts = _counts(self._reader.connections, self._topics)

    def messages(self, topics: Sequence[Topic]) -> Iterator[Recorded]:
        """Return the messages of topics; see `Storage`."""
        wanted = [c for c in self._reader.connections if self._topics[c.id] in topics]
        for connection, time_ns, data in self._reader.messages(wanted):
            yield Recorded(self._topics[connection.id], time_ns, data)

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


class _Ros1Storage:
    """A ROS 1 bag that is whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self._reader = rosbag1.Reader(path)
        self._reader.open()
        self._convert = _FromRos1()
        self._topics = {
            connection.id: self._convert.topic(
                connection.topic, connection.msgtype, connection.msgdef.data
            )
            for connection in self._reader.connections
        }
        self.counts = _counts(self._reader.connections, self._topics)

    def messages(self, topics: Sequence[Topic]) -> Iterator[Recorded]:
        """Return the messages of topics; see `Storage`."""
        wanted = [c for c in self._reader.connections if self._topics[c.id] in topics]
        for connection, time_ns, data in self._reader.messages(wanted):
            topic = self._topics[connection.id]
            yield Recorded(topic, time_ns, self._convert.data(topic, data))

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


class _Scanned:
    """A file of a ROS 2 bag that is read from its start, as its index is lost."""

    def __init__(
        self,
        file: pathlib.Path,
        scan: Callable[[pathlib.Path], Iterator[tuple[Topic, int, bytes]]],
    ) -> None:
        self._file = file
        self._scan = scan
        self.counts = Counter(topic for topic, _, _ in scan(file))

    def messages(self, topics: Sequence[Topic]) -> Iterator[Recorded]:
        """Return the messages of topics; see `Storage`."""
        for topic, time_ns, data in self._scan(self._file):
            if topic in topics:
                yield Recorded(topic, time_ns, data)

    def close(self) -> None:
        """Have nothing to let go of."""


class _Ros1Scanned(_Scanned):
    """A ROS 1 bag that is read from its start, as its index is lost."""

    def __init__(self, file: pathlib.Path) -> None:
        convert = _FromRos1()

        def scan(file: pathlib.Path) -> Iterator[tuple[Topic, int, bytes]]:
            for topic, time_ns, data in salvage.scan_ros1(file):
                converted = convert.topic(topic.name, topic.msgtype, topic.definition)
                yield converted, time_ns, bytes(convert.data(converted, data))

        super().__init__(file, scan)


class _FromRos1:
    """Turns ROS 1's serialised messages into ROS 2's."""

    def __init__(self) -> None:
        self._source = get_typestore(Stores.EMPTY)
        self._target = get_typestore(Stores.ROS2_JAZZY)
        self._converters: dict[str, Callable[[Any], Any]] = {}
        self._topics: dict[tuple[str, str], Topic] = {}
        self._cache: dict[str, object] = {}

    def topic(self, name: str, msgtype: str, definition: str) -> Topic:
        """Return a topic with its definition as ROS 2 has it."""
        if (name, msgtype) not in self._topics:
            self._topics[name, msgtype] = self._take_in(name, msgtype, definition)
        return self._topics[name, msgtype]

    def data(self, topic: Topic, data: bytes | memoryview) -> bytes | memoryview:
        """Return a message's data as ROS 2 has it."""
        converted: memoryview = self._converters[topic.msgtype](data)
        return converted

    def _take_in(self, name: str, msgtype: str, definition: str) -> Topic:
        types = get_types_from_msg(definition, msgtype)
        self._source.register({k: v for k, v in types.items() if k not in self._source.fielddefs})
        renamed = STATIC_MSGTYPE_RENAMES.get(msgtype, msgtype)
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
        text, _ = self._target.generate_msgdef(renamed, ros_version=2)
        return Topic(name, renamed, text, self._target.hash_rihs01(renamed))
