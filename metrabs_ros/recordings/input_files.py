"""Opening input files: only regular ones, since others can block or never end."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterable
from typing import IO

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.limits import DamagedFile
from metrabs_ros.regular_file import (
    MAX_PATH_CHARS,
    NotARegularFileError,
    kind_of,
    open_regular,
    shown,
)

LISTED = 10


class UnusableFile(ValueError):  # noqa: N818
    """A path does not lead to a readable file; the message says why."""


def listed(names: Iterable[str]) -> str:
    """Return the first names of several, separated by commas, and how many more there are."""
    names = list(names)
    first = ', '.join(printable(name) or "''" for name in names[:LISTED])
    return first if len(names) <= LISTED else f'{first} and {len(names) - LISTED} more'


def reason(error: OSError) -> str:
    """Return why an operation on a file failed, without the path that the message names."""
    return (error.strerror or printable(error)).lower()


def check_input(path: pathlib.Path) -> None:
    """
    Check that a path leads to a regular file or a folder that can be read.

    Raises
    ------
    UnusableFile
        If it does not.
    """
    mode = _status(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnusableFile(f'{shown(path)} is {kind_of(mode)}, not a file or folder')
    wanted = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK
    if not os.access(path, wanted):
        raise UnusableFile(f'{shown(path)} cannot be read: permission denied')


def check_file(path: pathlib.Path) -> None:
    """Check that a path leads to a regular file; raises an UnusableFile."""
    mode = _status(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnusableFile(f'{shown(path)} is {kind_of(mode)}, not a file')


def open_input(path: pathlib.Path) -> IO[bytes]:
    """
    Open a regular file for reading.

    Raises
    ------
    UnusableFile
        If it is no regular file or cannot be read.
    """
    check_file(path)
    try:
        return open_regular(path)
    except NotARegularFileError as error:
        raise UnusableFile(printable(error, MAX_PATH_CHARS)) from error
    except OSError as error:
        raise UnusableFile(f'{shown(path)} cannot be read: {reason(error)}') from error


class PositionedFile:
    """
    A regular file that is read at given positions; it is opened whenever it is needed.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UnusableFile
        If it cannot be opened.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = open_input(path)
        self.size = os.fstat(self._file.fileno()).st_size

    def at(self, offset: int, length: int) -> bytes:
        """
        Return bytes of the file.

        Raises
        ------
        DamagedFile
            If the file has no such bytes; nothing is allocated for them then.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DamagedFile(f'the file ends within a record at byte {offset}')
        if self._file is None:
            self._file = open_input(self._path)
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise DamagedFile(f'it cannot be read at byte {offset}: {reason(error)}') from error
        # The file may have become shorter, and one call returns at most 2 GiB.
        if len(data) != length:
            raise DamagedFile(f'the file ends within a record at byte {offset}')
        return data

    def close(self) -> None:
        """Close the file until it is read again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_input(path: pathlib.Path, limit_bytes: int) -> bytes:
    """
    Return the content of a regular file.

    Raises
    ------
    UnusableFile
        If it cannot be read, or is larger than the limit.
    """
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise UnusableFile(
                f'{shown(path)} has {size} bytes; at most {limit_bytes} are read of such a file'
            )
        try:
            return file.read(limit_bytes + 1)[:limit_bytes]
        except OSError as error:
            raise UnusableFile(f'{shown(path)} cannot be read: {reason(error)}') from error


def read_start(path: pathlib.Path, count: int) -> bytes:
    """Return the first bytes of a regular file; raises an UnusableFile."""
    with open_input(path) as file:
        return file.read(count)


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """
    Return what is in a folder, sorted by name.

    Raises
    ------
    UnusableFile
        If the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UnusableFile(f'{shown(folder)} cannot be read: {reason(error)}') from error


def is_folder(path: pathlib.Path) -> bool:
    """Tell whether a path leads to a folder; what cannot be looked at is none."""
    return os.path.isdir(path)


def _status(path: pathlib.Path) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise UnusableFile(f'{shown(path)} is a link to a file that does not exist') from error
        raise UnusableFile(f'there is no file or folder {shown(path)}') from error
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else printable(error)
        raise UnusableFile(f'{shown(path)} cannot be read: {why}') from error
