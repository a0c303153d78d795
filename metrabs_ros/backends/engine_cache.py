"""
Cache of built inference engines on disk.

Deserialising an engine can execute code.  The cache therefore returns only files that were built
by the same user and have not changed since.
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
"""Period of the log messages during a build."""
MAX_LOCK_WAIT_S = 1800.0
"""Maximum waiting time for another process that builds the same engine."""
MAX_MANIFEST_BYTES = 64 << 10
MAX_FILES = 100
MAX_REASON_CHARS = 200
_LOGGER = logging.getLogger(__name__)

Engine = TypeVar('Engine')
Build = Callable[[pathlib.Path], None]


class StorageError(OSError):
    """An engine was built, but its files could not be written."""


class DamagedEntryError(RuntimeError):
    """A cached engine is damaged; the message contains the reason."""


class EngineCache:
    """
    A folder of engines, each in a subfolder with the hash of its key as name.

    Parameters
    ----------
    root
        The cache folder; None for a folder next to the weights.
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
        Load an engine from the cache; build it first if it is missing or damaged.

        If several processes request the same engine at the same time, one of them builds it.  If
        the cache is not available, the engine is built in a temporary folder, and if that is not
        available either, in memory.  This is logged as one warning.

        Parameters
        ----------
        key
            Everything that the engine depends on, for example versions and a hash of the weights.
        build
            Writes the files of the engine into an empty folder; raises an OSError if they cannot
            be written.
        read
            Creates the engine from the files in a folder, which may be removed afterwards.
        make
            Creates the engine without files.

        Returns
        -------
        The engine, as `read` or `make` returns it.

        Raises
        ------
        OSError, DamagedEntryError
            If the engine cannot be built in a folder, and `make` is None.
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
            _LOGGER.info('a temporary folder cannot be used either: %s', _reason(error))
        return _with_progress(make, key)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            _LOGGER.warning(
                '%s; the engine is built without it, now and at every start', self._problem(error)
            )
        self._has_warned = True

    def _problem(self, error: Exception) -> str:
        folder = '' if self._root is None else f' in {shown(self._root)}'
        return f'the engine cache{folder} cannot be used: {_reason(error)}'

    def _load_cached(
        self, key: Mapping[str, str], build: Build, read: Callable[[pathlib.Path], Engine]
    ) -> Engine:
        """
        Load an engine from the cache; build it there first if necessary.

        Raises
        ------
        OSError, metrabs_ros.weights.store.WeightsError
            If the cache is not available.
        DamagedEntryError
            If the engine that was just built cannot be read.
        """
        if self._root is None:
            self._root = store.cache_folder() / 'engines'
        root = self._root
        folder = root / key_hash(key)
        # The first attempt needs no lock, so that a cache on a read-only disk can be used.
        with contextlib.suppress(OSError, DamagedEntryError):
            check_ownership(root)
            return _read_entry(folder, key, read)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_ownership(root)
        if stat.S_IMODE(root.lstat().st_mode) != 0o700:
            root.chmod(0o700)
        with locked(root / f'{folder.name}.lock', MAX_LOCK_WAIT_S, _report_waiting):
            try:
                return _read_entry(folder, key, read)
            except DamagedEntryError as error:
                if os.path.lexists(folder):
                    _LOGGER.warning(
                        'the cached engine in %s is rebuilt: %s', shown(folder), _reason(error)
                    )
            self._build_into(folder, key, build)
            return _read(read, folder)

    def _build_into(self, folder: pathlib.Path, key: Mapping[str, str], build: Build) -> None:
        """Build an engine and move it into the cache atomically."""
        for abandoned in folder.parent.glob(f'{folder.name}.*.part'):
            shutil.rmtree(abandoned, ignore_errors=True)
        part = pathlib.Path(
            tempfile.mkdtemp(prefix=f'{folder.name}.', suffix='.part', dir=folder.parent)
        )
        try:
            _with_progress(lambda: build(part), key)
            manifest = {'key': dict(key), 'files': _describe(part, _names_in(part))}
            (part / MANIFEST).write_text(json.dumps(manifest))
            for file in part.iterdir():
                # With some umasks, other users could write to the files.
                file.chmod(0o600)
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            elif os.path.lexists(folder):
                folder.unlink()
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


class RequiredCache(EngineCache):
    """An engine cache for building in advance: engines that cannot be stored are errors."""

    def load(
        self,
        key: Mapping[str, str],
        build: Build,
        read: Callable[[pathlib.Path], Engine],
        make: Callable[[], Engine] | None = None,
    ) -> Engine:
        """
        Load an engine from the cache; see `EngineCache.load`.

        Raises
        ------
        OSError, metrabs_ros.weights.store.WeightsError
            If the cache is not available, in most cases before the engine is built.
        """
        try:
            return self._load_cached(key, build, read)
        except (OSError, DamagedEntryError) as error:
            raise OSError(
                f'{self._problem(error)}; correct that, or select another folder with '
                'METRABS_ROS_CACHE'
            ) from error


def check_ownership(path: pathlib.Path) -> None:
    """
    Check that other users cannot have written to a file or folder.

    Raises
    ------
    PermissionError
        If the path is a symbolic link, has another owner, or is writable by other users.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise PermissionError(f'{shown(path)} is a symbolic link')
    if status.st_uid != os.getuid():
        raise PermissionError(
            f'{shown(path)} belongs to user {status.st_uid}, not to {os.getuid()}'
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f'{shown(path)} is writable by other users; run chmod go-w on it')


def key_hash(key: Mapping[str, str]) -> str:
    """Return the folder name of a key."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def _read_entry(
    folder: pathlib.Path, key: Mapping[str, str], read: Callable[[pathlib.Path], Engine]
) -> Engine:
    """
    Read a cached engine.

    Raises
    ------
    DamagedEntryError
        If the engine is missing, or its files have changed since the build.
    """
    try:
        check_ownership(folder)
        names = _names_in(folder)
        for name in (MANIFEST, *names):
            check_ownership(folder / name)
        manifest = json.loads(read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES, False))
        if manifest['key'] != dict(key):
            raise ValueError('it was built for another key')
        _compare(folder, names, manifest['files'])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedEntryError(_reason(error)) from error
    return _read(read, folder)


def _read(read: Callable[[pathlib.Path], Engine], folder: pathlib.Path) -> Engine:
    """
    Create an engine from its files.

    Raises
    ------
    DamagedEntryError
        If the files cannot be read.
    """
    try:
        return read(folder)
    except ImportError:
        raise
    # The exceptions of OpenVINO and torch for damaged files are not documented.
    except Exception as error:
        raise DamagedEntryError(f'it cannot be read: {_reason(error)}') from error


def _names_in(folder: pathlib.Path) -> list[str]:
    """Return the file names of an engine, without the manifest."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name != MANIFEST:
                names.append(entry.name)
            if len(names) > MAX_FILES:
                raise ValueError(f'it contains more than {MAX_FILES} files')
    return sorted(names)


def _describe(folder: pathlib.Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the size and SHA-256 checksum of files, by name."""
    return {
        name: {
            'bytes': (folder / name).lstat().st_size,
            'sha256': sha256_of(folder / name, follow_links=False),
        }
        for name in names
    }


def _compare(folder: pathlib.Path, names: list[str], recorded: Mapping[str, Any]) -> None:
    """
    Compare files with the entries of a manifest.

    Only files in the folder are opened, not paths from the manifest.

    Raises
    ------
    ValueError
        If they differ.
    """
    if names != sorted(recorded):
        raise ValueError('its files are not those of the manifest')
    for name in names:
        # The size is checked first, because the checksum of a huge file would take long.
        with open_regular(folder / name, follow_links=False) as file:
            size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes != recorded[name]['bytes']:
            raise ValueError(f'{printable(name)} has {size_bytes} bytes')
    if _describe(folder, names) != recorded:
        raise ValueError('the checksums of its files are not those of the manifest')


def _with_progress(build: Callable[[], Engine], key: Mapping[str, str]) -> Engine:
    """Run a build and log its progress periodically."""
    start_s, finished = time.monotonic(), threading.Event()
    name = key.get('engine', 'engine')

    def report() -> None:
        while not finished.wait(PROGRESS_PERIOD_S):
            _LOGGER.info('still building %s: %.0f s', name, time.monotonic() - start_s)

    threading.Thread(target=report, name='progress', daemon=True).start()
    _LOGGER.info('building %s; later starts use the cached engine', name)
    try:
        built = build()
    finally:
        finished.set()
    _LOGGER.info('built %s in %.0f s', name, time.monotonic() - start_s)
    return built


def _report_waiting(waited_s: float) -> None:
    _LOGGER.info('waiting for another process that builds the same engine: %.0f s', waited_s)


def _reason(error: Exception) -> str:
    return printable(' '.join(str(error).split()) or type(error).__name__, MAX_REASON_CHARS)
