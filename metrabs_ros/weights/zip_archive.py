"""Read untrusted zip archives; sizes are checked before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from metrabs_ros.foreign_text import printable

CHUNK_BYTES = 1 << 20
MAX_DIRECTORY_BYTES = 4 << 20
MAX_ENTRIES = 20_000
MAX_COMPRESSION_RATIO = 200
"""Maximum ratio of the unpacked to the packed size of a member.  Typical arrays have less than
100."""
MIN_RATIO_CHECK_BYTES = 1 << 20
"""Members of up to this unpacked size may have any compression ratio."""


class _DirectoryLimitedFile(io.BufferedReader):
    """
    A file with a limit on the number of bytes of a single read.

    `zipfile` reads the whole directory in one call, without a limit on its declared size.
    Members must be read in smaller parts.
    """

    def read(self, size: int | None = -1) -> bytes:
        requested = MAX_DIRECTORY_BYTES + 1 if size is None or size < 0 else size
        content = super().read(min(requested, MAX_DIRECTORY_BYTES + 1))
        if len(content) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f'its directory has more than {MAX_DIRECTORY_BYTES} bytes')
        return content


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """
    Open a zip archive with limits on the size and number of entries of its directory.

    Parameters
    ----------
    file
        A binary file.  It must stay open as long as the archive is used.

    Raises
    ------
    zipfile.BadZipFile
        If it is not a zip archive, or its directory exceeds a limit.
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
        If the member is missing or larger than `limit_bytes`, its compression ratio exceeds
        `MAX_COMPRESSION_RATIO`, or its size differs from the declared size.
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
            f'{printable(name)} unpacks from {packed_bytes} to {declared_bytes} bytes, more than '
            f'the limit of {MAX_COMPRESSION_RATIO} times'
        )
    with archive.open(info) as member:
        content = b''.join(iter(lambda: member.read(CHUNK_BYTES), b''))
    if len(content) != declared_bytes:
        raise zipfile.BadZipFile(
            f'{printable(name)} has {len(content)} bytes instead of {declared_bytes}'
        )
    return content


def verify_stored(archive: zipfile.ZipFile) -> None:
    """
    Verify the checksums of the members that are not compressed.

    Raises
    ------
    zipfile.BadZipFile
        If a checksum is wrong, there are no such members, or they overlap.
    """
    stored = [info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
    if not stored:
        raise zipfile.BadZipFile('it contains no data')
    # Otherwise many entries could refer to the same data, and take very long.
    if sum(info.compress_size for info in stored) > archive.start_dir:
        raise zipfile.BadZipFile('its members are larger than the file')
    for info in stored:
        with archive.open(info) as member:
            while member.read(CHUNK_BYTES):
                pass
