"""
Prepared engines on disk, so that they are built once.

Unpacking an engine can run code.  Only files that this user's own build has put here, and that
have not changed since, are handed out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import (
    locked,
    open_regular,
    read_limited,
    sha256_of,
    shown,
)
from metrabs_ros.weights import store

MANIFEST = 'manifest.json'
PROGRESS_PERIOD_S = 10.0
LONGEST_WAIT_S = 1800.0
"""For another process that builds the same engine."""
LARGEST_MANIFEST_BYTES = 64 << 10
LARGEST_FILE_COUNT = 100
REASON_CHARS = 200
_LOGGER = logging.getLogger(__name__)

Engine = TypeVar('Engine')
Build = Callable[[pathlib.Path], None]


class StorageError(OSError):
    """An engine was made, but its files could not be written."""


class DamagedEntryError(RuntimeError):
    """A cached engine cannot be used; the message says why."""


class EngineCache:
    """
    A folder of engines, each under the hash of all that it depends on.

    Parameters
    ----------
    root
        The folder; without it, one beside the weights.
    """

    def __init__(self, root: pathlib.Path | None = None) -> None:
        self._root = root
        self._has_warned = False

    def load(
        self,
        key: Mapping[str, str],
        build: Build,
        read: Callable[[pathlib.Path], Engine],
        make: Callable[[], Engine] | None = None,
    ) -> Engine:
        """
        Read an engine's files; build them first if they are missing or damaged.

        Of several processes that want the same engine at once, one builds it.  Where the cache
        cannot be used, the engine is built in a temporary folder, and where there is none either,
        it is made in memory; one warning says so.

        Parameters
        ----------
        key
            All that the engine depends on.
        build
            Writes the engine's files into an empty folder; raises an OSError if they cannot be
            written.
        read
            Makes an engine of the files in a folder, which may be gone afterwards.
        make
            Makes an engine without files.
        """
        try:
            return self._load_cached(key, build, read)
        except (OSError, DamagedEntryError, store.WeightsError) as error:
            self._warn(error)
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                _with_progress(lambda: build(pathlib.Path(folder)), key)
                return _read(read, pathlib.Path(folder))
        except (OSError, DamagedEntryError) as error:
            if make is None:
                raise
            _LOGGER.info('no temporary folder can be used either: %s', _reason(error))
        return _with_progress(make, key)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            _LOGGER.warning(
                'the engine cache%s cannot be used: %s; the engine is built without it, and '
                'again at the next start',
                '' if self._root is None else f' in {shown(self._root)}',
                _reason(error),
            )
        self._has_warned = True

    def _load_cached(
        self, key: Mapping[str, str], build: Build, read: Callable[[pathlib.Path], Engine]
    ) -> Engine:
        """
        Read an engine from the cache, into which it is built first if necessary.

        Raises
        ------
        OSError, metrabs_ros.weights.store.WeightsError
            If the cache cannot be used.
        DamagedEntryError
            If what was just built cannot be read.
        """
        if self._root is None:
            self._root = store.cache_folder() / 'engines'
        root = self._root
        folder = root / hashed(key)
        # Without the lock, so that a cache on a read-only disk can be used.
        with contextlib.suppress(OSError, DamagedEntryError):
            refuse_foreign(root)
            return _read_entry(folder, key, read)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_foreign(root)
        if stat.S_IMODE(root.lstat().st_mode) != 0o700:
            root.chmod(0o700)
        with locked(root / f'{folder.name}.lock', LONGEST_WAIT_S, _tell_waiting):
            try:
                return _read_entry(folder, key, read)
            except DamagedEntryError as error:
                if os.path.lexists(folder):
                    _LOGGER.warning(
                        'the cached engine in %s is built again: %s', shown(folder), _reason(error)
                    )
            self._build_into(folder, key, build)
            return _read(read, folder)

    def _build_into(self, folder: pathlib.Path, key: Mapping[str, str], build: Build) -> None:
        """Build an engine, and put it into its place whole or not at all."""
        for left_behind in folder.parent.glob(f'{folder.name}.*.part'):
            shutil.rmtree(left_behind, ignore_errors=True)
        part = pathlib.Path(
            tempfile.mkdtemp(prefix=f'{folder.name}.', suffix='.part', dir=folder.parent)
        )
        try:
            _with_progress(lambda: build(part), key)
            manifest = {'key': dict(key), 'files': _describe(part, _names_in(part))}
            (part / MANIFEST).write_text(json.dumps(manifest))
            for file in part.iterdir():
                # Under some umasks, others could write to them.
                file.chmod(0o600)
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            elif os.path.lexists(folder):
                folder.unlink()
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def refuse_foreign(path: pathlib.Path) -> None:
    """
    Raise an error if others can have written here.

    Raises
    ------
    PermissionError
        If the file or folder is not this user's own, is a link, or others may write to it.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(f'{shown(path)} is a symbolic link')
    if found.st_uid != os.getuid():
        raise PermissionError(
            f'{shown(path)} belongs to user {found.st_uid}, not to {os.getuid()}'
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f'{shown(path)} can be written to by others; chmod go-w it')


def hashed(key: Mapping[str, str]) -> str:
    """Return a name for all that an engine depends on."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def _read_entry(
    folder: pathlib.Path, key: Mapping[str, str], read: Callable[[pathlib.Path], Engine]
) -> Engine:
    """
    Read a cached engine.

    Raises
    ------
    DamagedEntryError
        If there is none, or it is not as it was built.
    """
    try:
        refuse_foreign(folder)
        names = _names_in(folder)
        for name in (MANIFEST, *names):
            refuse_foreign(folder / name)
        manifest = json.loads(read_limited(folder / MANIFEST, LARGEST_MANIFEST_BYTES, False))
        if manifest['key'] != dict(key):
            raise ValueError('it was built for something else')
        _compare(folder, names, manifest['files'])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedEntryError(_reason(error)) from error
    return _read(read, folder)


def _read(read: Callable[[pathlib.Path], Engine], folder: pathlib.Path) -> Engine:
    """
    Read an engine's files.

    Raises
    ------
    DamagedEntryError
        If they cannot be read.
    """
    try:
        return read(folder)
    except ImportError:
        raise
    # What OpenVINO and torch raise for damaged files is not documented.
    except Exception as error:
        raise DamagedEntryError(f'it cannot be read: {_reason(error)}') from error


def _names_in(folder: pathlib.Path) -> list[str]:
    """Return the names of an engine's files, without the manifest."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name != MANIFEST:
                names.append(entry.name)
            if len(names) > LARGEST_FILE_COUNT:
                raise ValueError(f'it holds more than {LARGEST_FILE_COUNT} files')
    return sorted(names)


def _describe(folder: pathlib.Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of files, by their names."""
    return {
        name: {
            'bytes': (folder / name).lstat().st_size,
            'sha256': sha256_of(folder / name, follow_links=False),
        }
        for name in names
    }


def _compare(folder: pathlib.Path, names: list[str], recorded: Mapping[str, Any]) -> None:
    """
    Compare files with what a manifest says; none outside of the folder is opened.

    Raises
    ------
    ValueError
        If they differ.
    """
    if names != sorted(recorded):
        raise ValueError('its files are not those that were built')
    for name in names:
        # Sizes first: the hash of a file that has grown may take long.
        with open_regular(folder / name, follow_links=False) as file:
            size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes != recorded[name]['bytes']:
            raise ValueError(f'{printable(name)} has {size_bytes} bytes')
    if _describe(folder, names) != recorded:
        raise ValueError('its files are not those that were built')


def _with_progress(build: Callable[[], Engine], key: Mapping[str, str]) -> Engine:
    """Build, and say from time to time that it still goes on."""
    start_s, finished = time.monotonic(), threading.Event()
    name = key.get('engine', 'engine')

    def tell() -> None:
        while not finished.wait(PROGRESS_PERIOD_S):
            _LOGGER.info('still building %s: %.0f s', name, time.monotonic() - start_s)

    threading.Thread(target=tell, name='progress', daemon=True).start()
    _LOGGER.info('building %s; later starts find it ready', name)
    try:
        built = build()
    finally:
        finished.set()
    _LOGGER.info('built %s in %.0f s', name, time.monotonic() - start_s)
    return built


def _tell_waiting(waited_s: float) -> None:
    _LOGGER.info('waiting for another process, which builds the same engine: %.0f s', waited_s)


def _reason(error: Exception) -> str:
    return printable(' '.join(str(error).split()) or type(error).__name__, REASON_CHARS)
