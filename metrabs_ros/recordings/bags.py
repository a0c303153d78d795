"""Bags of ROS 1 and ROS 2 as streams of serialized messages; damaged bags are read in part."""

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
    error_reason,
    is_folder,
    list_folder,
    open_input,
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
from metrabs_ros.recordings.metadata import METADATA_FILE, UnusableMetadata, read_metadata
from metrabs_ros.recordings.progress import Advance, Progress, no_progress
from metrabs_ros.recordings.ros1_file import Ros1File
from metrabs_ros.recordings.sqlite_file import SqliteFile
from metrabs_ros.recordings.typestore import SKELETONS
from metrabs_ros.regular_file import shown

FILE_NUMBER = re.compile(r'_(\d{1,18})(?=\.\w+$)')
"""Number at the end of the file names of a split bag."""
ROS2_SUFFIXES = ('.mcap', '.db3')
COMPRESSED_SUFFIX = '.zstd'
BAG_SUFFIXES = ('.bag', '.active', *ROS2_SUFFIXES, COMPRESSED_SUFFIX)
MIN_FREE_DISK_BYTES = 256 * MIB
"""Minimum free disk space that remains after a file is decompressed."""
MAX_OPEN_FILES = 100
"""Files of larger bags are closed while they are not read."""
MAX_FILES = 10_000
MAX_LISTED = 5
"""Maximum number of files that a message lists."""
MAX_PASSES = 50
"""Maximum number of passes over a bag to find the first message of each topic."""


class UnreadableRecording(ValueError):  # noqa: N818
    """No messages can be read from a recording; the message states the reason."""


class Storage(Protocol):
    """
    A file of a bag.

    Parameters
    ----------
    counts
        Number of messages of each topic.
    damage
        Reason why the file can be read only in part; empty if it is intact.
    """

    counts: Counter[Topic]
    damage: str

    def messages(self, topics: Sequence[Topic]) -> Iterator[BagMessage]:
        """Return the messages of topics in the order of recording."""
        ...

    def close(self) -> None:
        """Close the file; it is reopened when it is read again."""
        ...


class Bag:
    """
    A ROS 1 or ROS 2 bag.

    Parameters
    ----------
    path
        The folder of a ROS 2 bag, with or without metadata.yaml, one of its files, or a ROS 1 bag.
    warn
        Called with each warning message, for example about damage.
    progress
        Displays the progress of scanning files that have no usable index.

    Raises
    ------
    UnusableFile
        If the path does not exist, or is neither a file nor a folder.
    UnreadableRecording
        If no messages can be read.
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
                # Topics without messages are included.
                self.counts[self._topics[topic]] += count

    def sorted_topics(self) -> list[Topic]:
        """Return all topics, sorted by name and type."""
        return sorted(self.counts, key=lambda topic: (topic.name, topic.msgtype))

    def skeleton_topics(self) -> list[Topic]:
        """
        Return the topics of type SkeletonArray, sorted by name.

        Raises
        ------
        UnreadableRecording
            If the bag has no such topic.
        """
        topics = [topic for topic in self.sorted_topics() if topic.msgtype == SKELETONS]
        if not topics:
            raise UnreadableRecording(
                f'{shown(self.path)} has no skeletons; run metrabs_ros annotate '
                f'{shown(self.path)} first'
            )
        return topics

    def messages(self, topics: Sequence[Topic] = ()) -> Iterator[BagMessage]:
        """Return the messages of topics, by default of all topics, up to damaged data."""
        selected = set(topics or self.counts)
        for storage in self._storages:
            in_storage = [topic for topic in storage.counts if self._topics[topic] in selected]
            if in_storage:
                yield from self._read_until_damage(storage.messages(in_storage))
                if len(self._storages) > MAX_OPEN_FILES:
                    storage.close()

    def first_messages(self, topics: Sequence[Topic]) -> dict[Topic, BagMessage]:
        """Return the first message of each topic that has messages."""
        first: dict[Topic, BagMessage] = {}
        for number in range(MAX_PASSES):
            missing = [topic for topic in topics if self.counts[topic] and topic not in first]
            before = len(first)
            for message in self.messages(missing) if missing else ():
                first.setdefault(message.topic, message)
                # A new pass skips the parts of the bag that lack the remaining topics.  The last
                # pass reads on, so that the number of passes is limited.
                if len(first) > before and number < MAX_PASSES - 1:
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
        except Exception as error:  # Damaged data can raise any exception in the readers.
            self._warn(
                f'{shown(self.path)} is damaged after {count} messages '
                f'({printable(error, 300) or type(error).__name__}); the messages before the '
                'damage are used'
            )

    def _open(self, progress: Progress, stack: contextlib.ExitStack) -> None:
        """Open the files of the bag, and warn about files that are damaged or unreadable."""
        check_input(self.path)
        files, compression, problem = _bag_files(self.path)
        unreadable: list[str] = []
        for file in files:
            try:
                storage = _open_storage(file, progress, stack)
            except (UnusableFile, DamagedFile, OSError) as error:
                unreadable.append(f'{printable(file.name)}: {printable(error, 300)}')
                continue
            if compression == 'message':
                storage = _MessageDecompressor(storage, file.stat().st_size)
            self._storages.append(storage)
            if storage.damage:
                problem = problem or f'{printable(file.name)}: {storage.damage}'
            if len(files) > MAX_OPEN_FILES:
                storage.close()
        count = sum(sum(storage.counts.values()) for storage in self._storages)
        if not (problem or unreadable) and self._storages:
            return
        if not count:
            reasons = '; '.join(filter(None, [problem, *unreadable[:MAX_LISTED]]))
            raise UnreadableRecording(
                f'{shown(self.path)} cannot be read as a bag: {reasons or "it has no files"}'
            )
        problem = problem or f'{len(unreadable)} of its {len(files)} files cannot be read'
        self._warn(f'{shown(self.path)} is incomplete: {problem}; {count} messages can be read')
        for file_and_reason in unreadable[:MAX_LISTED]:
            self._warn(f'no messages can be read from {file_and_reason}')


class _MessageDecompressor:
    """
    A file with zstd-compressed messages.

    Parameters
    ----------
    storage
        The file.
    file_bytes
        Size of the file.
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
        """Close the file; it is reopened when it is read again."""
        self._storage.close()


def is_bag(path: pathlib.Path) -> bool:
    """
    Return whether a path is a bag, by its name or by the files in the folder.

    Raises
    ------
    UnusableFile
        If the path is a folder that cannot be read.
    """
    if not is_folder(path):
        return path.suffix in BAG_SUFFIXES
    if os.path.lexists(path / METADATA_FILE):
        return True
    # A recorder that was killed leaves no metadata: one file, or a split bag's numbered files.
    names = {FILE_NUMBER.sub('', file.name) for file in _list_ros2_files(path)}
    return len(names) == 1


def find_bags(path: pathlib.Path) -> list[pathlib.Path]:
    """
    Return the bags in a folder, except results of annotate; the path itself if it has none.

    If the folder itself is a bag, it is returned.

    Raises
    ------
    UnusableFile
        If the path is a folder that cannot be read.
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


def _bag_files(path: pathlib.Path) -> tuple[list[pathlib.Path], str, str]:
    """Return the files of a bag, its compression mode, and an error in its metadata or ''."""
    if not is_folder(path):
        return [path], '', ''
    if not os.path.lexists(path / METADATA_FILE):
        return _list_ros2_files(path), '', f'it has no {METADATA_FILE}'
    try:
        metadata = read_metadata(path)
    except UnusableMetadata as error:
        return _list_ros2_files(path), '', printable(error, 300)
    return [path / name for name in metadata.files], metadata.compression, ''


def _list_ros2_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files of a ROS 2 bag in the order of recording."""

    def sort_key(file: pathlib.Path) -> tuple[int, str]:
        matched = FILE_NUMBER.search(file.name)
        return (int(matched[1]) if matched else 0, file.name)

    files = [file for file in list_folder(folder) if file.suffix in ROS2_SUFFIXES]
    if len(files) > MAX_FILES:
        raise UnusableFile(f'{shown(folder)} has {len(files)} files; at most {MAX_FILES} are read')
    return sorted(files, key=sort_key)


def _open_storage(file: pathlib.Path, progress: Progress, stack: contextlib.ExitStack) -> Storage:
    """Open a file according to its suffix; decompress it first if necessary."""
    name = printable(file.name)
    if file.suffix == COMPRESSED_SUFFIX:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with progress(f'decompressing {name}', None, 'B') as advance:
            file = _decompress_file(file, folder, advance)
    if file.suffix == '.db3':
        with progress(f'counting messages of {name}', None, ' messages') as advance:
            return SqliteFile(file, advance)
    if file.suffix not in BAG_SUFFIXES:
        raise DamagedFile(
            f'the suffix {printable(file.suffix)!r} is not supported; supported: '
            f'{" ".join(BAG_SUFFIXES)}'
        )
    reader = McapFile if file.suffix == '.mcap' else Ros1File
    size = os.stat(file).st_size
    with progress(f'scanning {name}', size, 'B') as advance:
        return reader(file, advance)


def _decompress_file(file: pathlib.Path, folder: pathlib.Path, advance: Advance) -> pathlib.Path:
    target = folder / file.stem
    with open_input(file) as source, target.open('wb') as decompressed_file:
        size = os.fstat(source.fileno()).st_size
        available = shutil.disk_usage(folder).free - MIN_FREE_DISK_BYTES
        limit = min(UNRESTRICTED_FILE_BYTES + MAX_COMPRESSION_RATIO * size, available)
        try:
            decompress_file(source, decompressed_file, limit, advance)
        except OSError as error:
            raise DamagedFile(f'the file cannot be decompressed: {error_reason(error)}') from error
    return target


def _merge_topics(path: pathlib.Path, storages: Sequence[Storage]) -> dict[Topic, Topic]:
    """
    Return a mapping from the topics of the files to the topics of the bag.

    Files, and publishers within a file, may differ in QoS profiles and definitions.  The first
    definition within the limits of `DefinitionBudget` is used.
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
    for parts in by_name.values():
        texts = [topic.definition for topic in parts if topic.definition]
        accepted = next((text for text in texts if definitions.accepts(text)), '')
        profiles = dict.fromkeys(profile for topic in parts for profile in topic.qos)
        combined = parts[0]._replace(definition=accepted, qos=tuple(profiles))
        merged.update(dict.fromkeys(parts, combined))
    return merged
