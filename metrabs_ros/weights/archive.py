"""Unpacking downloaded archives, which are not trusted."""

from __future__ import annotations

import gzip
import pathlib
import shutil
import tarfile
import zlib

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import open_regular

MAX_UNPACKED_BYTES = 8 << 30
MAX_MEMBERS = 10_000
MAX_HEADER_BYTES = 1 << 20
"""Of a member, with its name and what pads it, and of what follows the last one."""
MAX_PATH_CHARS = 1000
CHUNK_BYTES = 1 << 20


class ArchiveError(RuntimeError):
    """An archive is damaged or holds what it should not; the message names it."""


class _LimitedStream:
    """
    A stream that ends with an error once more is read than has been allowed.

    `tarfile` reads names and attributes of members of any size into memory.

    Parameters
    ----------
    stream
        The stream.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left_bytes = 0

    def allow(self, count: int) -> None:
        """Allow so many bytes more."""
        self._left_bytes += count

    def read(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the end."""
        content = self._stream.read(size)
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise tarfile.ReadError('it unpacks to much more than its members')
        return content


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """
    Unpack a .tar.gz into a folder.

    Raises
    ------
    ArchiveError
        If it is damaged, is of an absurd size, or has members that are neither files nor folders
        or that would come to lie outside of the folder.
    OSError
        If it cannot be read, is no regular file, or the members cannot be written.
    """
    try:
        with open_regular(archive) as packed, gzip.open(packed) as stream:
            _unpack_stream(archive, _LimitedStream(stream), folder)
    except gzip.BadGzipFile as error:
        raise _damaged(archive, error) from error
    except OSError:
        raise
    # Numbers and names in headers are parsed in many ways.
    except (tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise _damaged(archive, error) from error


def _unpack_stream(archive: pathlib.Path, stream: _LimitedStream, folder: pathlib.Path) -> None:
    total_bytes = 0
    stream.allow(MAX_HEADER_BYTES)
    with tarfile.open(fileobj=stream, mode='r|') as members:  # type: ignore[call-overload]
        for count, member in enumerate(members, start=1):
            path = _safe_path(archive, member)
            total_bytes += member.size
            if total_bytes > MAX_UNPACKED_BYTES:
                raise ArchiveError(
                    f'{archive.name} unpacks to more than {MAX_UNPACKED_BYTES} bytes'
                )
            if count > MAX_MEMBERS:
                raise ArchiveError(f'{archive.name} has more than {MAX_MEMBERS} members')
            stream.allow(member.size + MAX_HEADER_BYTES)
            if member.isfile():
                _unpack_file(archive, members, member, folder / path)
    # The checksum is at the very end.
    while stream.read(CHUNK_BYTES):
        pass


def _damaged(archive: pathlib.Path, error: BaseException) -> ArchiveError:
    return ArchiveError(f'{archive.name} is damaged: {printable(error, 200)}')


def _safe_path(archive: pathlib.Path, member: tarfile.TarInfo) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(member.name)
    shown = printable(repr(member.name))
    if path.is_absolute() or '..' in path.parts or '\\' in member.name:
        raise ArchiveError(f'{archive.name} has a member outside: {shown}')
    is_plain = member.isfile() and not member.issparse()
    if not (is_plain or member.isdir()):
        raise ArchiveError(f'{archive.name} has a member that is no file: {shown}')
    has_name = bool(path.parts) or member.isdir()
    if not has_name or not member.name.isprintable() or len(member.name) > MAX_PATH_CHARS:
        raise ArchiveError(f'{archive.name} has a member without a usable name: {shown}')
    if member.size < 0:
        raise ArchiveError(f'{archive.name} has a member of {member.size} bytes: {shown}')
    return path


def _unpack_file(
    archive: pathlib.Path,
    members: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: pathlib.Path,
) -> None:
    content = members.extractfile(member)
    if content is None:
        raise ArchiveError(f'{archive.name} has a member that is no file: {target.name}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f'{archive.name} has two members in one place: {printable(repr(member.name))}'
        ) from error
    with content, open(target, 'wb') as file:
        shutil.copyfileobj(content, file)
