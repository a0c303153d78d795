"""
Checks and file operations for outputs.

Only files that annotate wrote are replaced, and never an input.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.recordings.input_files import UnusableFile, error_reason, join_names, read_input
from metrabs_ros.recordings.limits import MIB
from metrabs_ros.recordings.metadata import METADATA_FILE, UnusableMetadata, read_metadata
from metrabs_ros.regular_file import open_own, shown

UNFINISHED = '.unfinished'
"""Suffix of files and folders that are not complete."""
MANIFEST = '.annotate.json'
"""Name of the file that lists the files of annotate in a folder of results."""
TABLE_FILES = ('joints.csv', 'joints.parquet')
LOCK, RESUME_LOG, RESULTS, TABLE_FOLDER = 'lock', 'resume_log', 'results', 'tables'
"""Names in the folder of unfinished results."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems without locks."""


class UnusableOutput(ValueError):  # noqa: N818
    """Results cannot be written to a path; the message states the reason."""


class Pair(NamedTuple):
    """A recording and the folder of its results."""

    source: pathlib.Path
    output: pathlib.Path


class UnfinishedFolder(NamedTuple):
    """Paths in the folder of unfinished results."""

    resume_log: pathlib.Path
    results: pathlib.Path
    """Folder of the new results, with the name of the output folder in valid UTF-8."""
    tables: pathlib.Path
    """Folder of tables that are moved to other places."""


@contextlib.contextmanager
def translate_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Convert an `OSError` in the context to an `UnusableOutput` that names a path."""
    try:
        yield
    except OSError as error:
        where = f' ({shown(error.filename)})' if isinstance(error.filename, str) else ''
        hint = '; free disk space and run the same command again to continue'
        raise UnusableOutput(
            f'{shown(path)} cannot be written: {error_reason(error)}{where}'
            f'{hint if error.errno in NO_SPACE else ""}'
        ) from error


def absolute(path: pathlib.Path) -> pathlib.Path:
    """Return an absolute path without symbolic links; the path need not exist."""
    return pathlib.Path(os.path.realpath(path))


def unfinished_path(output: pathlib.Path) -> pathlib.Path:
    """Return the path of the folder of unfinished results."""
    return output.parent / f'{output.name}{UNFINISHED}'


def find_conflicts(pairs: Sequence[Pair]) -> list[str]:
    """
    Return an error message for each pair; '' if its output can be used.

    An output must not be, contain, or be inside the recording of any pair.  It must not be, or be
    inside, the output of an earlier pair.
    """
    sources = [absolute(pair.source) for pair in pairs]
    source_keys = {key: source for source in sources for key in _path_keys(source)}
    parent_keys = {key: source for source in sources for key in _parent_keys(source)}
    for source in sources:
        for target in _link_targets(source):
            parent_keys |= dict.fromkeys([*_path_keys(target), *_parent_keys(target)], source)
    used: dict[object, pathlib.Path] = {}
    errors = []
    for pair in pairs:
        output = absolute(pair.output)
        error = ''
        for folder in (output, unfinished_path(output)):
            error = error or _overlap(folder, source_keys, parent_keys)
        for key in (*_path_keys(output), *_parent_keys(output)):
            if key in used and not error:
                error = (
                    f'the output {shown(output)} is, or is in, the output of {shown(used[key])}; '
                    'give another --output'
                )
        if not error:
            used |= dict.fromkeys(_path_keys(output), pair.source)
        errors.append(error)
    return errors


def check_output(output: pathlib.Path, overwrite: bool, names: Iterable[str]) -> None:
    """
    Check that results can be written to a folder.

    Parameters
    ----------
    output
        The folder; it need not exist.
    overwrite
        Whether existing results are replaced.
    names
        Names of the files of the results.

    Raises
    ------
    FileExistsError
        If the path exists and `overwrite` is false.
    UnusableOutput
        If the path is not a folder, or the folder has files of these names that annotate did not
        write.
    """
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise FileExistsError(f'{shown(output)} already exists; use --overwrite to replace it')
    if not os.path.isdir(output):
        raise UnusableOutput(f'{shown(output)} is not a folder; give another --output')
    written = _written_files(output)
    foreign = [name for name in names if name not in written and os.path.lexists(output / name)]
    if foreign:
        raise UnusableOutput(
            f'{shown(output)} has files that annotate did not write and does not replace '
            f'({join_names(foreign)}); give another --output'
        )


def check_file_output(
    file: pathlib.Path, output: pathlib.Path, inputs: Sequence[pathlib.Path]
) -> None:
    """
    Check that a table can be written to a file outside of the results.

    Parameters
    ----------
    file
        The file.
    output
        The folder of the results.
    inputs
        Files and folders that are read.

    Raises
    ------
    UnusableOutput
        If the file is an input or inside one, is a folder or another file of the results, or its
        folder does not exist.
    """
    resolved = absolute(file)
    for path in inputs:
        source = absolute(path)
        keys = {*_path_keys(resolved), *_parent_keys(resolved)}
        if keys & set(_path_keys(source)):
            raise UnusableOutput(f'{shown(file)} is, or is in, the input {shown(path)}')
    if resolved == output or os.path.isdir(resolved):
        raise UnusableOutput(f'{shown(file)} is a folder; give the name of a file')
    if resolved.parent == output:
        if resolved.name in (METADATA_FILE, MANIFEST, *TABLE_FILES) or resolved.suffix == '.mcap':
            raise UnusableOutput(f'{shown(file)} is a file of the results; give another name')
    elif not resolved.parent.is_dir():
        raise UnusableOutput(f'{shown(file)} cannot be written: its folder does not exist')


@contextlib.contextmanager
def unfinished_folder(output: pathlib.Path) -> Iterator[UnfinishedFolder]:
    """
    Create the folder of unfinished results, and remove it when the context ends.

    If the context ends with an exception, the resume log is kept.

    Raises
    ------
    UnusableOutput
        If the folder cannot be created, has other files, or is used by another run.
    """
    folder = unfinished_path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise UnusableOutput(f'{shown(folder)} is not a folder; move it to another place')
    names = set(os.listdir(folder))
    foreign = names - {LOCK, RESUME_LOG, RESULTS, TABLE_FOLDER}
    # Every run creates the lock first.
    if foreign or (names and LOCK not in names):
        raise UnusableOutput(
            f'{shown(folder)} has files that annotate did not write '
            f'({join_names(sorted(foreign or names))}); move it to another place'
        )
    with _lock(folder / LOCK, output):
        results, tables = folder / RESULTS, folder / TABLE_FOLDER
        for part in (results, tables):
            _remove(part)
            part.mkdir()
        try:
            yield UnfinishedFolder(folder / RESUME_LOG, results / _utf8_name(output), tables)
        finally:
            # A resumed run writes them again from the resume log.
            for part in (results, tables):
                with contextlib.suppress(OSError):
                    _remove(part)
        for name in (RESUME_LOG, LOCK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder / name)
        folder.rmdir()


def publish(results: pathlib.Path, output: pathlib.Path) -> None:
    """
    Move complete results to the output folder.

    The files of an earlier run are replaced; other files in the folder are kept.

    Raises
    ------
    UnusableOutput
        If the folder has files of the same names that annotate did not write.
    """
    names = sorted(os.listdir(results))
    _write_manifest(results, names)
    if not os.path.lexists(output):
        os.replace(results, output)
        return
    check_output(output, True, names)
    written = _written_files(output)
    # If the run is interrupted from here on, the next run recognizes all files in the manifest.
    _write_manifest(output, sorted({*written, *names}))
    # Without metadata, a mixture of old and new files is not a bag.
    for name in (METADATA_FILE, *sorted(written - set(names) - {MANIFEST})):
        _unlink(output / name)
    for name in sorted(names, key=lambda name: name == METADATA_FILE):
        os.replace(results / name, output / name)
    os.replace(results / MANIFEST, output / MANIFEST)


def move_file(file: pathlib.Path, target: pathlib.Path) -> None:
    """Move a file atomically, also to another file system."""
    try:
        os.replace(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(f'.{target.name}{UNFINISHED}')
        try:
            shutil.copyfile(file, copy, follow_symlinks=False)
            os.replace(copy, target)
        finally:
            _unlink(copy)
        os.unlink(file)


def is_stream(path: pathlib.Path) -> bool:
    """Return whether a path is a pipe or a device such as /dev/stdout."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_stream(path: pathlib.Path) -> None:
    """Raise an `OSError` if a stream cannot be written, such as a pipe without a reader."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _overlap(
    folder: pathlib.Path,
    source_keys: dict[object, pathlib.Path],
    parent_keys: dict[object, pathlib.Path],
) -> str:
    """Return an error message if an output overlaps an input; '' if it does not."""
    for key in _path_keys(folder):
        if key in source_keys:
            return f'the output {shown(folder)} is the input; give another --output'
        if key in parent_keys:
            return (
                f'the output {shown(folder)} contains the input {shown(parent_keys[key])}; give '
                'another --output'
            )
    for key in _parent_keys(folder):
        if key in source_keys:
            return (
                f'the output {shown(folder)} is in the input {shown(source_keys[key])}; give '
                'another --output'
            )
    return ''


def _path_keys(path: pathlib.Path) -> list[object]:
    """Return keys that identify a path: its name, and its device and inode if it exists."""
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        return [str(path), (status.st_dev, status.st_ino)]
    return [str(path)]


def _parent_keys(path: pathlib.Path) -> list[object]:
    return [key for parent in path.parents for key in _path_keys(parent)]


def _link_targets(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the targets of the symbolic links in a folder."""
    try:
        with os.scandir(folder) as entries:
            return [absolute(folder / entry.name) for entry in entries if entry.is_symlink()]
    except OSError:
        return []


def _written_files(output: pathlib.Path) -> set[str]:
    """Return the names of the files in a folder that annotate wrote."""
    names: list[object] = []
    with contextlib.suppress(UnusableFile, ValueError, RecursionError):
        manifest = json.loads(read_input(output / MANIFEST, MIB))
        if isinstance(manifest, dict) and isinstance(manifest.get('files'), list):
            names = [*manifest['files'], MANIFEST]
    if not names:
        # Results of version 0.1 have no manifest, but a summary of annotate in their metadata.
        with contextlib.suppress(UnusableMetadata):
            metadata = read_metadata(output)
            if metadata.summary:
                names = [METADATA_FILE, *metadata.files, *TABLE_FILES]
    return {name for name in names if isinstance(name, str) and _is_file_name(name)}


def _is_file_name(name: str) -> bool:
    return bool(name) and '/' not in name and '\0' not in name and name not in ('.', '..')


def _write_manifest(folder: pathlib.Path, names: Sequence[str]) -> None:
    temporary = folder / f'{MANIFEST}{UNFINISHED}'
    _unlink(temporary)
    with open(temporary, 'x', encoding='utf-8') as file:
        json.dump({'written_by': 'metrabs_ros annotate', 'files': list(names)}, file)
    os.replace(temporary, folder / MANIFEST)


@contextlib.contextmanager
def _lock(file: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    with open_own(file, 'r+b') as lock:
        # The run that held the lock may have removed the file before this one locked it.
        if not (_try_lock(lock.fileno()) and _is_same_file(file, lock.fileno())):
            raise UnusableOutput(f'another run is writing {shown(output)}')
        yield


def _try_lock(descriptor: int) -> bool:
    """Lock an open file if its file system has locks; return False if another run holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _is_same_file(file: pathlib.Path, descriptor: int) -> bool:
    """Return whether a path refers to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _remove(path: pathlib.Path) -> None:
    """Remove a folder with its content, or a file or link with the name of the folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        _unlink(path)


def _unlink(path: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(path)


def _utf8_name(output: pathlib.Path) -> str:
    """Return the name of an output in valid UTF-8, as the metadata of a bag requires."""
    return os.fsencode(output.name).decode('utf-8', 'replace') or RESULTS
