"""Writing results: only files that were written here before are replaced, and never an input."""

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

from metrabs_ros.recordings.input_files import UnusableFile, join_names, read_input, reason
from metrabs_ros.recordings.limits import MIB
from metrabs_ros.recordings.metadata import NAME as METADATA
from metrabs_ros.recordings.metadata import UnusableMetadata, read_metadata
from metrabs_ros.regular_file import open_own, shown

UNFINISHED = '.unfinished'
MANIFEST = '.annotate.json'
"""In a folder of results; lists the files that annotate wrote there."""
TABLE_FILES = ('joints.csv', 'joints.parquet')
LOCK, RESUME_LOG, RESULTS, TABLE_FOLDER = 'lock', 'journal', 'results', 'tables'
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that have no locks."""


class UnusableOutput(ValueError):  # noqa: N818
    """Results cannot be written to a path; the message says why."""


class Pair(NamedTuple):
    """A recording, and the folder of its results."""

    source: pathlib.Path
    output: pathlib.Path


class UnfinishedFolder(NamedTuple):
    """What a run keeps beside its results until they are complete."""

    resume_log: pathlib.Path
    results: pathlib.Path
    """The new results; its name is that of the output, as far as that is text."""
    tables: pathlib.Path


@contextlib.contextmanager
def translate_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Raise what goes wrong with files in the context as an UnusableOutput that names a path."""
    try:
        yield
    except OSError as error:
        where = f' ({shown(error.filename)})' if isinstance(error.filename, str) else ''
        hint = '; the same command continues after space was freed'
        raise UnusableOutput(
            f'{shown(path)} cannot be written: {reason(error)}{where}'
            f'{hint if error.errno in NO_SPACE else ""}'
        ) from error


def absolute(path: pathlib.Path) -> pathlib.Path:
    """Return a path without links in it, whatever it leads to."""
    return pathlib.Path(os.path.realpath(path))


def unfinished_path(output: pathlib.Path) -> pathlib.Path:
    """Return the folder for what is not yet complete."""
    return output.parent / f'{output.name}{UNFINISHED}'


def find_conflicts(pairs: Sequence[Pair]) -> list[str]:
    """
    Return for each pair why its output cannot be used, or ''.

    An output must not be a recording, contain one, or be contained in one, whichever of the pairs
    that belongs to, and it must not be the output of a pair before.
    """
    sources = [absolute(pair.source) for pair in pairs]
    places = {place: source for source in sources for place in _path_keys(source)}
    above = {place: source for source in sources for place in _parent_keys(source)}
    for source in sources:
        for link in _link_targets(source):
            above |= dict.fromkeys([*_path_keys(link), *_parent_keys(link)], source)
    taken: dict[object, pathlib.Path] = {}
    complaints = []
    for pair in pairs:
        output = absolute(pair.output)
        complaint = ''
        for folder in (output, unfinished_path(output)):
            complaint = complaint or _overlap(folder, places, above)
        for place in (*_path_keys(output), *_parent_keys(output)):
            if place in taken and not complaint:
                complaint = (
                    f'the results of {shown(taken[place])} go to {shown(output)}, too, or around '
                    'it; give another --output'
                )
        if not complaint:
            taken |= dict.fromkeys(_path_keys(output), pair.source)
        complaints.append(complaint)
    return complaints


def check_output(output: pathlib.Path, overwrite: bool, names: Iterable[str]) -> None:
    """
    Check that results with files of these names can be put into a folder.

    Raises
    ------
    FileExistsError
        If there is something and it is not to be overwritten.
    UnusableOutput
        If other files have the names, or the path is no folder.
    """
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise FileExistsError(f'{shown(output)} is there already; --overwrite replaces it')
    if not os.path.isdir(output):
        raise UnusableOutput(f'{shown(output)} is no folder; give another --output')
    own = _written_files(output)
    foreign = [name for name in names if name not in own and os.path.lexists(output / name)]
    if foreign:
        raise UnusableOutput(
            f'{shown(output)} has files that annotate did not write ({join_names(foreign)}) and does '
            'not replace; give another --output'
        )


def check_file_output(
    file: pathlib.Path, output: pathlib.Path, inputs: Sequence[pathlib.Path]
) -> None:
    """
    Check that a single file may be written where a user wants it.

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
        If it is an input or in one, is the folder of the results or one of its other files, or is
        in no folder.
    """
    whole = absolute(file)
    for path in inputs:
        source = absolute(path)
        within = {*_path_keys(whole), *_parent_keys(whole)}
        if within & set(_path_keys(source)):
            raise UnusableOutput(f'{shown(file)} is, or is in, the input {shown(path)}')
    if whole == output or os.path.isdir(whole):
        raise UnusableOutput(f'{shown(file)} is a folder; name a file')
    if whole.parent == output:
        if whole.name in (METADATA, MANIFEST, *TABLE_FILES) or whole.suffix == '.mcap':
            raise UnusableOutput(f'{shown(file)} is a file of the results; give another name')
    elif not whole.parent.is_dir():
        raise UnusableOutput(f'{shown(file)} cannot be written: there is no folder for it')


@contextlib.contextmanager
def unfinished(output: pathlib.Path) -> Iterator[UnfinishedFolder]:
    """
    Give a folder for what is not yet complete; it stays if the context ends by an exception.

    Raises
    ------
    UnusableOutput
        If it cannot be made, has files of others in it, or another run is using it.
    """
    folder = unfinished_path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise UnusableOutput(f'{shown(folder)} is in the way: it is no folder; move it away')
    names = set(os.listdir(folder))
    foreign = names - {LOCK, RESUME_LOG, RESULTS, TABLE_FOLDER}
    # Every run makes the lock first.
    if foreign or (names and LOCK not in names):
        raise UnusableOutput(
            f'{shown(folder)} is in the way: it has files that annotate did not write '
            f'({join_names(sorted(foreign or names))}); move it away'
        )
    with _lock(folder / LOCK, output):
        results, tables = folder / RESULTS, folder / TABLE_FOLDER
        for part in (results, tables):
            _remove(part)
            part.mkdir()
        try:
            yield UnfinishedFolder(folder / RESUME_LOG, results / _utf8_name(output), tables)
        finally:
            # They are written anew, from the journal.
            for part in (results, tables):
                with contextlib.suppress(OSError):
                    _remove(part)
        for name in (RESUME_LOG, LOCK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder / name)
        folder.rmdir()


def publish(results: pathlib.Path, output: pathlib.Path) -> None:
    """
    Put a folder of complete results where it belongs.

    What an earlier run wrote there is replaced, and all other files are left alone.

    Raises
    ------
    UnusableOutput
        If there are other files of the same names.
    """
    names = sorted(os.listdir(results))
    _write_manifest(results, names)
    if not os.path.lexists(output):
        os.replace(results, output)
        return
    check_output(output, True, names)
    own = _written_files(output)
    # From now on, an interruption leaves files that the next run knows as its own.
    _write_manifest(output, sorted({*own, *names}))
    # Without the metadata nobody takes a mixture of files for a bag.
    for name in (METADATA, *sorted(own - set(names) - {MANIFEST})):
        _unlink(output / name)
    for name in sorted(names, key=lambda name: name == METADATA):
        os.replace(results / name, output / name)
    os.replace(results / MANIFEST, output / MANIFEST)


def move_file(file: pathlib.Path, target: pathlib.Path) -> None:
    """Move a complete file where it belongs, on whichever disk that is."""
    try:
        os.replace(file, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f'.{target.name}{UNFINISHED}')
        try:
            shutil.copyfile(file, beside, follow_symlinks=False)
            os.replace(beside, target)
        finally:
            _unlink(beside)
        os.unlink(file)


def is_stream(path: pathlib.Path) -> bool:
    """Tell whether a path leads to a pipe or a device such as /dev/stdout."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_stream(path: pathlib.Path) -> None:
    """Raise an OSError if writing to a pipe would wait for a reader that there is not."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _overlap(
    folder: pathlib.Path, places: dict[object, pathlib.Path], above: dict[object, pathlib.Path]
) -> str:
    for place in _path_keys(folder):
        if place in places:
            return f'the output {shown(folder)} is the input; give another --output'
        if place in above:
            return (
                f'the output {shown(folder)} contains the input {shown(above[place])}; give '
                'another --output'
            )
    for place in _parent_keys(folder):
        if place in places:
            return (
                f'the output {shown(folder)} is within the input {shown(places[place])}; give '
                'another --output'
            )
    return ''


def _path_keys(path: pathlib.Path) -> list[object]:
    """Return by what a path is known: its name, and what is there, by whatever name."""
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        return [str(path), (status.st_dev, status.st_ino)]
    return [str(path)]


def _parent_keys(path: pathlib.Path) -> list[object]:
    return [place for parent in path.parents for place in _path_keys(parent)]


def _link_targets(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return what the links in a folder lead to."""
    try:
        with os.scandir(folder) as entries:
            return [absolute(folder / entry.name) for entry in entries if entry.is_symlink()]
    except OSError:
        return []


def _written_files(output: pathlib.Path) -> set[str]:
    """Return the names of the files in a folder that annotate wrote."""
    names: list[object] = []
    with contextlib.suppress(UnusableFile, ValueError, RecursionError):
        about = json.loads(read_input(output / MANIFEST, MIB))
        if isinstance(about, dict) and isinstance(about.get('files'), list):
            names = [*about['files'], MANIFEST]
    if not names:
        # Results of version 0.1 have no manifest, but say in their metadata who wrote them.
        with contextlib.suppress(UnusableMetadata):
            metadata = read_metadata(output)
            if metadata.about:
                names = [METADATA, *metadata.files, *TABLE_FILES]
    return {name for name in names if isinstance(name, str) and _is_plain(name)}


def _is_plain(name: str) -> bool:
    return bool(name) and '/' not in name and '\0' not in name and name not in ('.', '..')


def _write_manifest(folder: pathlib.Path, names: Sequence[str]) -> None:
    beside = folder / f'{MANIFEST}{UNFINISHED}'
    _unlink(beside)
    with open(beside, 'x', encoding='utf-8') as file:
        json.dump({'written_by': 'metrabs_ros annotate', 'files': list(names)}, file)
    os.replace(beside, folder / MANIFEST)


@contextlib.contextmanager
def _lock(file: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    with open_own(file, 'r+b') as lock:
        # The run before may have removed it in the meantime.
        if not (_try_lock(lock.fileno()) and _is_same_file(file, lock.fileno())):
            raise UnusableOutput(f'another run is writing {shown(output)}')
        yield


def _try_lock(descriptor: int) -> bool:
    """Lock an open file where its file system has locks; return False if another run did."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _is_same_file(file: pathlib.Path, descriptor: int) -> bool:
    """Tell whether a path leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _remove(path: pathlib.Path) -> None:
    """Remove a folder of unfinished results, or what is in its place."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        _unlink(path)


def _unlink(path: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(path)


def _utf8_name(output: pathlib.Path) -> str:
    """Return the name of an output as it can stand in a bag's metadata, which is text."""
    return os.fsencode(output.name).decode('utf-8', 'replace') or RESULTS
