"""Unpack untrusted archives."""

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
"""Maximum size of the header and padding of a member, and of the data after the last member."""
MAX_PATH_CHARS = 1000
CHUNK_BYTES = 1 << 20


class ArchiveError(RuntimeError):
    """An archive is damaged or has forbidden members; the message contains its name."""


class _LimitedStream:
    """
    A stream with a limit on the number of bytes that can be read.

    `tarfile` reads names and attributes of members into memory without a size limit.

    Parameters
    ----------
    stream
        The decompressed stream.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left_bytes = 0

    def allow(self, count: int) -> None:
        """Increase the limit by a number of bytes."""
        self._left_bytes += count

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; raise a `tarfile.ReadError` if the limit is exceeded."""
        content = self._stream.read(size)
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise tarfile.ReadError('it contains much more data than its members have')
        return content


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """
    Unpack a .tar.gz into a folder.

    Raises
    ------
    ArchiveError
        If the archive is damaged or too large, or has members that are neither files nor folders
        or would be written outside of the folder.
    OSError
        If the archive is not a readable regular file, or the members cannot be written.
    """
    try:
        with open_regular(archive) as packed, gzip.open(packed) as stream:
            _unpack_stream(archive, _LimitedStream(stream), folder)
    except gzip.BadGzipFile as error:
        raise _damaged(archive, error) from error
    except OSError:
        raise
    # tarfile raises these for different kinds of invalid headers.
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
    # The checksum at the end of the stream is verified when everything has been read.
    while stream.read(CHUNK_BYTES):
        pass


def _damaged(archive: pathlib.Path, error: BaseException) -> ArchiveError:
    return ArchiveError(f'{archive.name} is damaged: {printable(error, 200)}')


def _safe_path(archive: pathlib.Path, member: tarfile.TarInfo) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(member.name)
    name = printable(repr(member.name))
    if path.is_absolute() or '..' in path.parts or '\\' in member.name:
        raise ArchiveError(f'{archive.name} has a member outside of the folder: {name}')
    is_plain = member.isfile() and not member.issparse()
    if not (is_plain or member.isdir()):
        raise ArchiveError(
            f'{archive.name} has a member that is neither a file nor a folder: {name}'
        )
    has_name = bool(path.parts) or member.isdir()
    if not has_name or not member.name.isprintable() or len(member.name) > MAX_PATH_CHARS:
        raise ArchiveError(f'{archive.name} has a member with an invalid name: {name}')
    if member.size < 0:
        raise ArchiveError(f'{archive.name} has a member of {member.size} bytes: {name}')
    return path


def _unpack_file(
    archive: pathlib.Path,
    members: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: pathlib.Path,
) -> None:
    content = members.extractfile(member)
    if content is None:
        raise ArchiveError(f'{archive.name} has a member without content: {target.name}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f'{archive.name} has two members with the same path: {printable(repr(member.name))}'
        ) from error
    with content, open(target, 'wb') as file:
        shutil.copyfileobj(content, file)
