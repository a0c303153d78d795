"""Reading zip archives of unknown origin: sizes are checked before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from metrabs_ros.foreign_text import printable

CHUNK_BYTES = 1 << 20
MAX_DIRECTORY_BYTES = 4 << 20
MAX_ENTRIES = 20_000
MAX_COMPRESSION_RATIO = 200
"""Of the unpacked to the packed size of a member; arrays of numbers reach a few times 10."""
MIN_RATIO_CHECK_BYTES = 1 << 20
"""Smaller members may have any ratio."""


class _DirectoryLimitedFile(io.BufferedReader):
    """
    A file that refuses to be read in large parts.

    `zipfile` reads the directory, of whatever size it claims to be, at once.  Members must be read
    in smaller parts.
    """

    def read(self, size: int | None = -1) -> bytes:
        wanted = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        content = super().read(min(wanted, MAX_DIRECTORY_BYTES + 1))
        if len(content) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f'its directory has more than {MAX_DIRECTORY_BYTES} bytes')
        return content


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """
    Open a zip archive, whose directory is limited in size and number of entries.

    Parameters
    ----------
    file
        A binary file; it must stay open as long as the archive.

    Raises
    ------
    zipfile.BadZipFile
        If it is no zip archive or has an unreasonable directory.
    """
    raw = io.FileIO(file.fileno(), closefd=False)
    archive = zipfile.ZipFile(_DirectoryLimitedFile(raw))
    if len(archive.infolist()) > MAX_ENTRIES:
        raise zipfile.BadZipFile(
            f'it has {len(archive.infolist())} entries, more than {MAX_ENTRIES}'
        )
    return archive


def read_member(archive: zipfile.ZipFile, name: str, limit_bytes: int) -> bytes:
    """
    Unpack a member of limited size into memory.

    Raises
    ------
    zipfile.BadZipFile
        If it is missing, larger, packed unreasonably well, or its size is not the declared one.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise zipfile.BadZipFile(f'it has no member {printable(name)}') from None
    declared_bytes = info.file_size
    if declared_bytes > limit_bytes:
        raise zipfile.BadZipFile(
            f'{printable(name)} unpacks to {declared_bytes} bytes, more than the limit of '
            f'{limit_bytes}'
        )
    packed_bytes = max(info.compress_size, 1)
    if declared_bytes > max(MIN_RATIO_CHECK_BYTES, MAX_COMPRESSION_RATIO * packed_bytes):
        raise zipfile.BadZipFile(
            f'{printable(name)} unpacks to {declared_bytes} bytes from {packed_bytes}'
        )
    with archive.open(info) as member:
        content = b''.join(iter(lambda: member.read(CHUNK_BYTES), b''))
    if len(content) != declared_bytes:
        raise zipfile.BadZipFile(
            f'{printable(name)} has {len(content)} bytes instead of {declared_bytes}'
        )
    return content
