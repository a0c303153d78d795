"""
Opening files whose kind, size and owner are not known beforehand.

Opening a FIFO blocks until another process opens its other end, a device never ends, and opening
a symbolic link for writing truncates the file that it points to.  All files of checkpoints, the
engine cache and recordings are opened here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from metrabs_ros.foreign_text import printable

CHUNK_BYTES = 1 << 20
PATH_CHARS = 300
LOCK_POLL_S = 0.1
LOCK_MESSAGE_PERIOD_S = 10.0

_KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFLNK: 'a symbolic link',
    stat.S_IFIFO: 'a named pipe (FIFO)',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def kind_of(mode: int) -> str:
    """Return what kind of file a mode of `os.stat` describes, with an article."""
    return _KINDS.get(stat.S_IFMT(mode), 'no file')


class NotARegularFileError(OSError):
    """There is something else than a regular file; the message names it."""


def open_regular(file: pathlib.Path, follow_links: bool = True) -> IO[bytes]:
    """
    Open a regular file for reading.

    Parameters
    ----------
    file
        The file.
    follow_links
        Whether the file may be a symbolic link to a regular file.

    Raises
    ------
    NotARegularFileError
        If it is a directory, a FIFO, a socket, a device, or a link that may not be followed.
    OSError
        If it is missing or cannot be read.
    """
    # Opening some devices has side effects, so the kind is checked before and after.
    _require_regular(file, os.stat(file, follow_symlinks=follow_links))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(file, flags if follow_links else flags | os.O_NOFOLLOW)
    return _checked(file, descriptor, 'rb')


def open_own(file: pathlib.Path, mode: str) -> IO[bytes]:
    """
    Open a file that only this package writes, without following links or truncating other files.

    Parameters
    ----------
    file
        The file; it is created, for its owner only, if it does not exist.
    mode
        ``ab`` to append, ``wb`` to begin anew, ``r+b`` to leave the content as it is.

    Raises
    ------
    NotARegularFileError
        If there is something else than a regular file with a single name.
    OSError
        If it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        _require_regular(file, os.lstat(file))
    try:
        descriptor = os.open(file, flags | (os.O_APPEND if mode == 'ab' else 0), 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotARegularFileError(f'{shown(file)} is a symbolic link; remove it') from error
        raise
    opened = _checked(file, descriptor, mode)
    if os.fstat(descriptor).st_nlink > 1:
        opened.close()
        raise NotARegularFileError(f'{shown(file)} is a hard link to another file; remove it')
    if mode == 'wb':
        opened.truncate(0)
    return opened


def read_limited(file: pathlib.Path, limit_bytes: int, follow_links: bool = True) -> bytes:
    """
    Read a whole regular file of limited size.

    Raises
    ------
    ValueError
        If it is larger.
    OSError
        As `open_regular` does.
    """
    with open_regular(file, follow_links) as opened:
        size_bytes = os.fstat(opened.fileno()).st_size
        content = b'' if size_bytes > limit_bytes else opened.read(limit_bytes + 1)
    if max(size_bytes, len(content)) > limit_bytes:
        raise ValueError(
            f'it has {max(size_bytes, len(content))} bytes, more than the limit of {limit_bytes}'
        )
    return content


def sha256_of(file: pathlib.Path, follow_links: bool = True) -> str:
    """
    Return the SHA-256 of a regular file.

    Raises
    ------
    OSError
        As `open_regular` does.
    """
    digest = hashlib.sha256()
    with open_regular(file, follow_links) as opened:
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(file: pathlib.Path, content: bytes) -> None:
    """
    Write a file whole or not at all; a link in its place is replaced, not followed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f'.{file.name}.', suffix='.part')
    try:
        with open(descriptor, 'wb') as opened:
            opened.write(content)
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


@contextlib.contextmanager
def locked(file: pathlib.Path, limit_s: float, waiting: Callable[[float], None]) -> Iterator[None]:
    """
    Hold the lock of a file, which the kernel releases when the process ends, however it ends.

    Parameters
    ----------
    file
        The lock file; it is created if it does not exist, and its content is left as it is.
    limit_s
        How long to wait for another process.
    waiting
        Called with the seconds waited: at first, then every `LOCK_MESSAGE_PERIOD_S`.

    Raises
    ------
    TimeoutError
        If another process holds the lock for longer.
    OSError
        If the file cannot be opened or locked.
    """
    with open_own(file, 'r+b') as lock:
        start_s, next_message_s = time.monotonic(), 0.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited_s = time.monotonic() - start_s
            if waited_s > limit_s:
                raise TimeoutError(
                    f'another process has held {shown(file)} for more than {limit_s:.0f} s'
                )
            if waited_s >= next_message_s:
                waiting(waited_s)
                next_message_s += LOCK_MESSAGE_PERIOD_S
            time.sleep(LOCK_POLL_S)
        yield


def shown(file: pathlib.Path | str) -> str:
    """Return a path for a message."""
    return printable(file, PATH_CHARS)


def _require_regular(file: pathlib.Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = kind_of(found.st_mode)
        raise NotARegularFileError(f'{shown(file)} is {kind}; expected: a regular file')


def _checked(file: pathlib.Path, descriptor: int, mode: str) -> IO[bytes]:
    """Return an open file of a descriptor, which is closed if it is no regular file."""
    try:
        _require_regular(file, os.fstat(descriptor))
        # Without effect on regular files, but not all file systems agree.
        os.set_blocking(descriptor, True)
        return open(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
