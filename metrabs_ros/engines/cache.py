"""
Prepared engines on disk, so that they are built once.

Unpacking an engine can run code, so only files that this user's own build has put here, and that
are still what was put here, are ever handed out.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from metrabs_ros.models import store

MANIFEST = 'manifest.json'
PROGRESS_PERIOD_S = 10.0
_CHUNK_BYTES = 1 << 20
_LOGGER = logging.getLogger(__name__)

Engine = TypeVar('Engine')
Build = Callable[[pathlib.Path], None]


class EngineCache:
    """
    A folder of engines, each under the hash of all that it depends on.

    Parameters
    ----------
    root
        The folder; without it, one beside the weights.
    """

    def __init__(self, root: pathlib.Path | None = None) -> None:
        self._root = store.cache_folder() / 'engines' if root is None else root
        self._told = False

    def load(
        self, key: Mapping[str, str], build: Build, read: Callable[[pathlib.Path], Engine]
    ) -> Engine:
        """
        Read an engine's files; build them first if they are not there.

        Of several processes that want the same engine at once, one builds it.  Where the disk
        cannot hold it, it is built for this process only, and that is said once.

        Parameters
        ----------
        key
            All that the engine depends on.
        build
            Writes the engine's files into an empty folder.
        read
            Makes an engine of the files in a folder, which may be gone afterwards.
        """
        try:
            with self._locked(key) as folder:
                if not _is_whole(folder, key):
                    self._build_into(folder, key, build)
                return read(folder)
        except OSError as error:
            if not self._told:
                _LOGGER.warning(
                    'goes on without the engine cache in %s, which cannot be used: %s; the next '
                    'start has to build the engine again',
                    self._root,
                    error,
                )
            self._told = True
        with tempfile.TemporaryDirectory() as folder:
            _with_progress(build, pathlib.Path(folder), key)
            return read(pathlib.Path(folder))

    @contextlib.contextmanager
    def _locked(self, key: Mapping[str, str]) -> Iterator[pathlib.Path]:
        """Give an engine's folder to this process alone."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_foreign(self._root)
        self._root.chmod(0o700)
        name = hashed(key)
        # The lock ends with the process, however that ends.
        with (self._root / f'{name}.lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOGGER.info('waits for another process, which builds the same engine')
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._root / name

    def _build_into(self, folder: pathlib.Path, key: Mapping[str, str], build: Build) -> None:
        """Build an engine, and put it into its place whole or not at all."""
        for left_behind in self._root.glob(f'{folder.name}.*.part'):
            shutil.rmtree(left_behind, ignore_errors=True)
        part = pathlib.Path(
            tempfile.mkdtemp(prefix=f'{folder.name}.', suffix='.part', dir=self._root)
        )
        try:
            _with_progress(build, part, key)
            manifest = {'key': dict(key), 'files': hashes(part)}
            (part / MANIFEST).write_text(json.dumps(manifest))
            if folder.is_symlink() or folder.is_file():
                folder.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
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
        raise PermissionError(f'{path} is a link')
    if found.st_uid != os.getuid():
        raise PermissionError(f'{path} belongs to user {found.st_uid}, not to {os.getuid()}')
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f'{path} can be written to by others; chmod go-w it')


def hashed(key: Mapping[str, str]) -> str:
    """Return a name for all that an engine depends on."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder but its manifest."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def _is_whole(folder: pathlib.Path, key: Mapping[str, str]) -> bool:
    """Tell whether a folder holds what was once built for this key; say why if it does not."""
    if not os.path.lexists(folder):
        return False
    try:
        for path in (folder, *folder.iterdir()):
            refuse_foreign(path)
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest['key'] != dict(key):
            raise ValueError('it was built for something else')
        if manifest['files'] != hashes(folder):
            raise ValueError('its files are not those that were built')
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOGGER.warning('the cached engine in %s is built again: %s', folder, error)
        return False
    return True


def _with_progress(build: Build, folder: pathlib.Path, key: Mapping[str, str]) -> None:
    """Build, and say from time to time that it still goes on."""
    start_s, finished = time.monotonic(), threading.Event()
    name = key.get('engine', 'engine')

    def tell() -> None:
        while not finished.wait(PROGRESS_PERIOD_S):
            _LOGGER.info('still building %s: %.0f s', name, time.monotonic() - start_s)

    threading.Thread(target=tell, name='progress', daemon=True).start()
    _LOGGER.info('building %s; later starts find it ready', name)
    try:
        build(folder)
    finally:
        finished.set()
    _LOGGER.info('built %s in %.0f s', name, time.monotonic() - start_s)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
