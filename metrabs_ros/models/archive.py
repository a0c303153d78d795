"""Unpacking downloaded archives, which are not trusted."""

from __future__ import annotations

import gzip
import pathlib
import shutil
import tarfile
import zlib

LARGEST_BYTES = 8 << 30
READ_BYTES = 1 << 20


class ArchiveError(RuntimeError):
    """An archive is damaged or holds what it should not; the message names it."""


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """
    Unpack a .tar.gz into a folder.

    Raises
    ------
    ArchiveError
        If it is damaged, is of an absurd size, or has members that are neither files nor folders
        or that would come to lie outside of the folder.
    """
    total_bytes = 0
    try:
        with (
            gzip.open(archive) as stream,
            tarfile.open(fileobj=stream, mode='r|') as members,
        ):
            for member in members:
                path = _safe_path(archive, member)
                total_bytes += member.size
                if total_bytes > LARGEST_BYTES:
                    raise ArchiveError(
                        f'{archive.name} unpacks to more than {LARGEST_BYTES} bytes'
                    )
                if member.isfile():
                    _unpack_file(members, member, folder / path)
            # The sum of all that was packed stands at the very end.
            while stream.read(READ_BYTES):
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArchiveError(f'{archive.name} is damaged: {error}') from error


def _safe_path(archive: pathlib.Path, member: tarfile.TarInfo) -> pathlib.PurePosixPath:
    path = pathlib.PurePosixPath(member.name)
    if path.is_absolute() or '..' in path.parts or '\\' in member.name:
        raise ArchiveError(f'{archive.name} has a member outside: {member.name!r}')
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(f'{archive.name} has a member that is no file: {member.name!r}')
    return path


def _unpack_file(members: tarfile.TarFile, member: tarfile.TarInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = members.extractfile(member)
    if content is None:
        raise ArchiveError(f'{member.name} cannot be read')
    with content, open(target, 'wb') as file:
        shutil.copyfileobj(content, file)
