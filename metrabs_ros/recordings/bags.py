"""Bags of ROS 1 and ROS 2 as streams of serialised messages, damaged ones as far as they go."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import RESULTS_SUFFIX, BagMessage, Topic
from metrabs_ros.recordings.decompression import decompress_file, decompress_message
from metrabs_ros.recordings.input_files import (
    UnusableFile,
    check_input,
    is_folder,
    list_folder,
    open_input,
    reason,
)
from metrabs_ros.recordings.limits import (
    MAX_COMPRESSION_RATIO,
    MAX_MESSAGE_BYTES,
    MAX_TOPICS,
    MIB,
    UNRESTRICTED_CHUNK_BYTES,
    UNRESTRICTED_FILE_BYTES,
    DamagedFile,
    DefinitionBudget,
    ReadBudget,
)
from metrabs_ros.recordings.mcap_file import McapFile
from metrabs_ros.recordings.message_types import SKELETONS
from metrabs_ros.recordings.metadata import NAME, UnusableMetadata, read_metadata
from metrabs_ros.recordings.progress import Advance, Progress, no_progress
from metrabs_ros.recordings.ros1_file import Ros1File
from metrabs_ros.recordings.sqlite_file import SqliteFile
from metrabs_ros.regular_file import shown

FILE_NUMBER = re.compile(r'_(\d{1,18})(?=\.\w+$)')
"""Of a file of a split bag."""
ROS2_SUFFIXES = ('.mcap', '.db3')
COMPRESSED_SUFFIX = '.zstd'
BAG_SUFFIXES = ('.bag', '.active', *ROS2_SUFFIXES, COMPRESSED_SUFFIX)
MIN_FREE_DISK_BYTES = 256 * MIB
"""Are left on the disk on which files are decompressed."""
MAX_OPEN_FILES = 100
"""If a bag has more files, they are closed while they are not read."""
MAX_FILES = 10_000
MAX_LISTED = 5
"""So many files are listed in messages."""
MAX_PASSES = 50
"""Over a bag, to find the first message of each topic."""


class UnreadableRecording(ValueError):  # noqa: N818
    """Nothing can be read of a recording; the message says why."""


class Storage(Protocol):
    """
    A file with messages.

    Parameters
    ----------
    counts
        The topics, and how many messages each has.
    damage
        Why it cannot be read as a whole; empty if it can.
    """

    counts: Counter[Topic]
    damage: str

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics in the order in which they were recorded."""
        ...

    def close(self) -> None:
        """Close the file until it is read again."""
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
    progress
        Shows how far files have been read that have no usable index.

    Raises
    ------
    UnusableFile
        If it does not exist, or is neither a file nor a folder.
    UnreadableRecording
        If nothing can be read of it.
    """

    def __init__(
        self, path: pathlib.Path, warn: Callable[[str], None], progress: Progress = no_progress
    ) -> None:
        self.path = path
        self._warn = warn
        self._storages: list[Storage] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_files)
            self._open(progress, stack)
            self._topics = _merge_topics(path, self._storages)
            self._stack = stack.pop_all()
        self.counts: Counter[Topic] = Counter()
        for storage in self._storages:
            for topic, count in storage.counts.items():
                # Topics without messages are in there, too.
                self.counts[self._topics[topic]] += count

    def sorted_topics(self) -> list[Topic]:
        """Return all topics, sorted."""
        return sorted(self.counts, key=lambda topic: (topic.name, topic.msgtype))

    def skeleton_topics(self) -> list[Topic]:
        """
        Return the topics with people in them, sorted.

        Raises
        ------
        UnreadableRecording
            If there are none.
        """
        topics = [topic for topic in self.sorted_topics() if topic.msgtype == SKELETONS]
        if not topics:
            raise UnreadableRecording(
                f'{shown(self.path)} has no skeletons in it; metrabs_ros annotate '
                f'{shown(self.path)} finds people first'
            )
        return topics

    def messages(self, topics: Sequence[Topic] = ()) -> Iterator[BagMessage]:
        """Return the messages of topics, by default of all; where data is damaged, they end."""
        wanted = set(topics or self.counts)
        for storage in self._storages:
            own = [topic for topic in storage.counts if self._topics[topic] in wanted]
            if own:
                yield from self._read_until_damage(storage.messages(own))
                if len(self._storages) > MAX_OPEN_FILES:
                    storage.close()

    def first_messages(self, topics: Sequence[Topic]) -> dict[Topic, BagMessage]:
        """Return the first message of each topic that has any."""
        first: dict[Topic, BagMessage] = {}
        for turn in range(MAX_PASSES):
            missing = [topic for topic in topics if self.counts[topic] and topic not in first]
            before = len(first)
            for message in self.messages(missing) if missing else ():
                first.setdefault(message.topic, message)
                # Parts of the bag without the remaining topics are skipped by beginning again,
                # but not for any number of topics.
                if len(first) > before and turn < MAX_PASSES - 1:
                    break
                if len(first) == before + len(missing):
                    break
            if len(first) == before:
                break
        return first

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _close_files(self) -> None:
        for storage in self._storages:
            storage.close()

    def _read_until_damage(self, messages: Iterator[BagMessage]) -> Iterator[BagMessage]:
        count = 0
        try:
            for message in messages:
                count += 1
                yield message._replace(topic=self._topics[message.topic])
        except Exception as error:  # Damaged data makes readers fail in many ways.
            self._warn(
                f'{shown(self.path)} is damaged after {count} messages '
                f'({printable(error, 300) or type(error).__name__}); what comes before is used'
            )

    def _open(self, progress: Progress, stack: contextlib.ExitStack) -> None:
        """Open each of the bag's files as far as that goes."""
        check_input(self.path)
        files, compression, problem = _files_of(self.path)
        lost: list[str] = []
        for file in files:
            try:
                storage = _open_storage(file, progress, stack)
            except (UnusableFile, DamagedFile, OSError) as error:
                lost.append(f'{printable(file.name)}: {printable(error, 300)}')
                continue
            if compression == 'message':
                storage = _MessageDecompressor(storage, file.stat().st_size)
            self._storages.append(storage)
            if storage.damage:
                problem = problem or f'{printable(file.name)}: {storage.damage}'
            if len(files) > MAX_OPEN_FILES:
                storage.close()
        found = sum(sum(storage.counts.values()) for storage in self._storages)
        if not (problem or lost) and self._storages:
            return
        if not found:
            reasons = '; '.join(filter(None, [problem, *lost[:MAX_LISTED]])) or 'it has no files'
            raise UnreadableRecording(f'{shown(self.path)} cannot be read as a bag: {reasons}')
        problem = problem or f'{len(lost)} of its {len(files)} files cannot be read'
        self._warn(f'{shown(self.path)} is not whole: {problem}; {found} messages can be read')
        for loss in lost[:MAX_LISTED]:
            self._warn(f'nothing can be read of {loss}')


class _MessageDecompressor:
    """
    A file whose messages are compressed with zstd one by one.

    Parameters
    ----------
    storage
        The file.
    file_bytes
        Its size.
    """

    def __init__(self, storage: Storage, file_bytes: int) -> None:
        self._storage = storage
        self._file_bytes = file_bytes
        self.counts, self.damage = storage.counts, storage.damage

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics; see `Storage`."""
        budget = ReadBudget(self._file_bytes)
        for message in self._storage.messages(topics):
            limit = max(UNRESTRICTED_CHUNK_BYTES, MAX_COMPRESSION_RATIO * len(message.data))
            data = decompress_message(message.data, min(limit, MAX_MESSAGE_BYTES))
            budget.take_bytes(len(data))
            yield message._replace(data=data)

    def close(self) -> None:
        """Close the file until it is read again."""
        self._storage.close()


def is_bag(path: pathlib.Path) -> bool:
    """
    Tell whether a path looks like a bag.

    Raises
    ------
    UnusableFile
        If it is a folder that cannot be read.
    """
    if not is_folder(path):
        return path.suffix in BAG_SUFFIXES
    if os.path.lexists(path / NAME):
        return True
    # What a recorder leaves that was killed: one file, or several with a number each.
    names = {FILE_NUMBER.sub('', file.name) for file in _list_ros2_files(path)}
    return len(names) == 1


def find_bags(path: pathlib.Path) -> list[pathlib.Path]:
    """
    Return the bags in a folder that is none itself and has some, without results; else it.

    Raises
    ------
    UnusableFile
        If it is a folder that cannot be read.
    """
    if not is_folder(path) or is_bag(path):
        return [path]
    children = [child for child in list_folder(path) if not child.name.endswith(RESULTS_SUFFIX)]
    return [child for child in children if _is_readable_bag(child)] or [path]


def _is_readable_bag(path: pathlib.Path) -> bool:
    try:
        return is_bag(path)
    except UnusableFile:
        return False


def _files_of(path: pathlib.Path) -> tuple[list[pathlib.Path], str, str]:
    """Return a bag's files, how they are compressed, and what is wrong with its metadata."""
    if not is_folder(path):
        return [path], '', ''
    if not os.path.lexists(path / NAME):
        return _list_ros2_files(path), '', f'it has no {NAME}'
    try:
        metadata = read_metadata(path)
    except UnusableMetadata as error:
        return _list_ros2_files(path), '', printable(error, 300)
    return [path / name for name in metadata.files], metadata.compression, ''


def _list_ros2_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a bag's files in the order in which they were written."""

    def number(file: pathlib.Path) -> tuple[int, str]:
        found = FILE_NUMBER.search(file.name)
        return (int(found[1]) if found else 0, file.name)

    files = [file for file in list_folder(folder) if file.suffix in ROS2_SUFFIXES]
    if len(files) > MAX_FILES:
        raise UnusableFile(f'{shown(folder)} has {len(files)} files; at most {MAX_FILES} are read')
    return sorted(files, key=number)


def _open_storage(file: pathlib.Path, progress: Progress, stack: contextlib.ExitStack) -> Storage:
    """Open a file by its suffix, decompressed if need be."""
    name = printable(file.name)
    if file.suffix == COMPRESSED_SUFFIX:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with progress(f'decompressing {name}', None, 'B') as advance:
            file = _decompress_file(file, folder, advance)
    if file.suffix == '.db3':
        with progress(f'counting the messages of {name}', None, ' messages') as advance:
            return SqliteFile(file, advance)
    if file.suffix not in BAG_SUFFIXES:
        raise DamagedFile(f'files ending in {printable(file.suffix)!r} are not known')
    reader = McapFile if file.suffix == '.mcap' else Ros1File
    size = os.stat(file).st_size
    with progress(f'scanning {name}', size, 'B') as advance:
        return reader(file, advance)


def _decompress_file(file: pathlib.Path, folder: pathlib.Path, advance: Advance) -> pathlib.Path:
    target = folder / file.stem
    with open_input(file) as source, target.open('wb') as unpacked_file:
        size = os.fstat(source.fileno()).st_size
        room = shutil.disk_usage(folder).free - MIN_FREE_DISK_BYTES
        limit = min(UNRESTRICTED_FILE_BYTES + MAX_COMPRESSION_RATIO * size, room)
        try:
            decompress_file(source, unpacked_file, limit, advance)
        except OSError as error:
            raise DamagedFile(f'it cannot be decompressed: {reason(error)}') from error
    return target


def _merge_topics(path: pathlib.Path, storages: Sequence[Storage]) -> dict[Topic, Topic]:
    """
    Return for each topic of each file the topic of the whole bag.

    Files, and publishers within a file, may differ in profiles and definitions; the first
    definition that is not too long to be parsed counts.
    """
    definitions = DefinitionBudget()
    by_name: dict[tuple[str, str], list[Topic]] = {}
    for storage in storages:
        for topic in storage.counts:
            by_name.setdefault((topic.name, topic.msgtype), []).append(topic)
    if len(by_name) > MAX_TOPICS:
        raise UnreadableRecording(
            f'{shown(path)} has {len(by_name)} topics; at most {MAX_TOPICS} are read'
        )
    merged = {}
    for same in by_name.values():
        texts = [topic.definition for topic in same if topic.definition]
        accepted = next((text for text in texts if definitions.accepts(text)), '')
        profiles = dict.fromkeys(profile for topic in same for profile in topic.qos)
        whole = same[0]._replace(definition=accepted, qos=tuple(profiles))
        merged.update(dict.fromkeys(same, whole))
    return merged
