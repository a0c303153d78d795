"""Access to input files: only regular files, since others can block or be endless."""

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

MAX_LISTED = 10
"""Maximum number of names in a message."""


class UnusableFile(ValueError):  # noqa: N818
    """A path is not a readable file or folder; the message states the reason."""


def join_names(names: Iterable[str]) -> str:
    """Return names separated by commas, and the number of names beyond the first `MAX_LISTED`."""
    names = list(names)
    first = ', '.join(printable(name) or "''" for name in names[:MAX_LISTED])
    return first if len(names) <= MAX_LISTED else f'{first} and {len(names) - MAX_LISTED} more'


def error_reason(error: OSError) -> str:
    """Return the reason of a failed file operation, without the path."""
    return (error.strerror or printable(error)).lower()


def check_input(path: pathlib.Path) -> None:
    """
    Check that a path is a readable regular file or folder.

    Raises
    ------
    UnusableFile
        If it is not.
    """
    mode = _status(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnusableFile(f'{shown(path)} is {kind_of(mode)}, not a file or folder')
    access = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK
    if not os.access(path, access):
        raise UnusableFile(f'{shown(path)} cannot be read: permission denied')


def check_file(path: pathlib.Path) -> None:
    """Check that a path is a regular file; raise an `UnusableFile` if it is not."""
    mode = _status(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnusableFile(f'{shown(path)} is {kind_of(mode)}, not a file')


def open_input(path: pathlib.Path) -> IO[bytes]:
    """
    Open a regular file for reading.

    Raises
    ------
    UnusableFile
        If it is not a regular file or cannot be read.
    """
    check_file(path)
    try:
        return open_regular(path)
    except NotARegularFileError as error:
        raise UnusableFile(printable(error, MAX_PATH_CHARS)) from error
    except OSError as error:
        raise UnusableFile(f'{shown(path)} cannot be read: {error_reason(error)}') from error


class PositionedFile:
    """
    A regular file that is read at given offsets.  A closed file is reopened when it is read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UnusableFile
        If the file cannot be opened.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = open_input(path)
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """
        Return the bytes at an offset.

        Raises
        ------
        DamagedFile
            If the range is not in the file.  No memory is allocated in this case.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise DamagedFile(f'the file ends within a record at byte {offset}')
        if self._file is None:
            self._file = open_input(self._path)
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise DamagedFile(
                f'the file cannot be read at byte {offset}: {error_reason(error)}'
            ) from error
        # The file may have been truncated since it was opened, and one call returns at most 2 GiB.
        if len(data) != length:
            raise DamagedFile(f'the file ends within a record at byte {offset}')
        return data

    def close(self) -> None:
        """Close the file; it is reopened when it is read again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_input(path: pathlib.Path, limit_bytes: int) -> bytes:
    """
    Return the content of a regular file.

    Raises
    ------
    UnusableFile
        If the file cannot be read, or is larger than the limit.
    """
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise UnusableFile(
                f'{shown(path)} has {size} bytes; files of this kind may have {limit_bytes}'
            )
        try:
            return file.read(limit_bytes + 1)[:limit_bytes]
        except OSError as error:
            raise UnusableFile(f'{shown(path)} cannot be read: {error_reason(error)}') from error


def read_start(path: pathlib.Path, count: int) -> bytes:
    """Return the first bytes of a regular file; raise an `UnusableFile` if it cannot be read."""
    with open_input(path) as file:
        return file.read(count)


def list_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """
    Return the paths in a folder, sorted by name.

    Raises
    ------
    UnusableFile
        If the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UnusableFile(f'{shown(folder)} cannot be read: {error_reason(error)}') from error


def is_folder(path: pathlib.Path) -> bool:
    """Return whether a path is a folder; False if it cannot be accessed."""
    return os.path.isdir(path)


def _status(path: pathlib.Path) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise UnusableFile(f'{shown(path)} is a link to a file that does not exist') from error
        raise UnusableFile(f'the file or folder {shown(path)} does not exist') from error
    except (OSError, ValueError) as error:
        cause = error_reason(error) if isinstance(error, OSError) else printable(error)
        raise UnusableFile(f'{shown(path)} cannot be read: {cause}') from error
