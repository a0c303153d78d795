"""
Safe access to files of unknown type, size and owner.

Opening a FIFO blocks until another process opens its other end, reading a device may never end,
and opening a symbolic link for writing truncates its target.  All files of checkpoints, the engine
cache and recordings are opened by this module.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import IO

from metrabs_ros.foreign_text import printable

CHUNK_BYTES = 1 << 20
MAX_PATH_CHARS = 300
"""Maximum length of a path in a message."""
PRIVATE, SHARED = 0o600, 0o666
"""Permissions of files of this program alone, and of files that users pass on."""
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
    """Return the type of a file from its `os.stat` mode, with an article, for messages."""
    return _KINDS.get(stat.S_IFMT(mode), 'not a file')


class NotARegularFileError(OSError):
    """The path is not a regular file; the message contains its type."""


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
    # Opening some devices has side effects, so the type is checked before and after.
    _require_regular(file, os.stat(file, follow_symlinks=follow_links))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(file, flags if follow_links else flags | os.O_NOFOLLOW)
    return _checked(file, descriptor, 'rb')


def open_own(file: pathlib.Path, mode: str) -> IO[bytes]:
    """
    Open a file of this package for writing, without following links or truncating other files.

    Parameters
    ----------
    file
        The file.  If it does not exist, it is created with permissions for the owner only.
    mode
        ``ab`` to append, ``wb`` to truncate, ``r+b`` to keep the content.

    Raises
    ------
    NotARegularFileError
        If the path is not a regular file, or the file has several hard links.
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
        If the file is larger than `limit_bytes`.
    OSError
        See `open_regular`.
    """
    with open_regular(file, follow_links) as opened:
        return read_opened(opened, limit_bytes)


def read_opened(opened: IO[bytes], limit_bytes: int) -> bytes:
    """
    Read a whole file of limited size that `open_regular` has opened.

    Raises
    ------
    ValueError
        If the file is larger than `limit_bytes`.
    OSError
        If it cannot be read.
    """
    size_bytes = os.fstat(opened.fileno()).st_size
    content = b'' if size_bytes > limit_bytes else opened.read(limit_bytes + 1)
    if max(size_bytes, len(content)) > limit_bytes:
        raise ValueError(
            f'it has {max(size_bytes, len(content))} bytes, more than the limit of {limit_bytes}'
        )
    return content


def sha256_of(file: pathlib.Path, follow_links: bool = True) -> str:
    """
    Return the SHA-256 checksum of a regular file, in hexadecimal.

    Raises
    ------
    OSError
        See `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(file, follow_links) as opened:
        while chunk := opened.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(file: pathlib.Path, content: bytes, mode: int = PRIVATE) -> None:
    """
    Write a file atomically; an existing symbolic link is replaced, not followed.

    Parameters
    ----------
    file
        The file.
    content
        Its content.
    mode
        Permissions, from which the umask of the process is removed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    part = file.parent / f'.{file.name}.{secrets.token_hex(8)}.part'
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, 'wb') as opened:
            opened.write(content)
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


@contextlib.contextmanager
def locked(
    file: pathlib.Path, timeout_s: float, report_waiting: Callable[[float], None]
) -> Iterator[None]:
    """
    Hold the lock of a file.

    The kernel releases the lock when the process ends, also after a crash.

    Parameters
    ----------
    file
        The lock file.  It is created if it does not exist, and its content does not change.
    timeout_s
        Maximum waiting time.
    report_waiting
        Called with the waiting time so far, in seconds: immediately if another process has the
        lock, then every `LOCK_MESSAGE_PERIOD_S`.

    Raises
    ------
    TimeoutError
        If another process holds the lock for longer than the timeout.
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
            if waited_s > timeout_s:
                raise TimeoutError(
                    f'another process has held the lock {shown(file)} for more than '
                    f'{timeout_s:.0f} s; end that process or try again later'
                )
            if waited_s >= next_message_s:
                report_waiting(waited_s)
                next_message_s += LOCK_MESSAGE_PERIOD_S
            time.sleep(LOCK_POLL_S)
        yield


def shown(file: pathlib.Path | str) -> str:
    """Format a path for a message: printable and truncated."""
    return printable(file, MAX_PATH_CHARS)


def _require_regular(file: pathlib.Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = kind_of(status.st_mode)
        raise NotARegularFileError(f'{shown(file)} is {kind}; expected: a regular file')


def _checked(file: pathlib.Path, descriptor: int, mode: str) -> IO[bytes]:
    """Open the file of a descriptor; close the descriptor if it is not a regular file."""
    try:
        _require_regular(file, os.fstat(descriptor))
        # POSIX ignores O_NONBLOCK for regular files, but some file systems do not.
        os.set_blocking(descriptor, True)
        return open(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
