"""Cache of model weights: location, download and verification of checksums."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import (
    locked,
    open_regular,
    read_limited,
    sha256_of,
    shown,
    write_atomically,
)
from metrabs_ros.weights.archive import ArchiveError, unpack
from metrabs_ros.weights.download import Download, DownloadError
from metrabs_ros.weights.zip_archive import open_zip, verify_stored

_LOG = logging.getLogger(__name__)

BLAZEPOSE = 'blazepose'
BUNDLED = {BLAZEPOSE: 'pose_landmark_full.tflite', 'blazepose_lite': 'pose_landmark_lite.tflite'}
"""Landmark networks that are part of the package, by the names of the models."""
BLAZEPOSE_HEAVY = 'blazepose_heavy'
HEAVY_FILE = 'pose_landmark_heavy.tflite'
HEAVY_URL = f'https://storage.googleapis.com/mediapipe-assets/{HEAVY_FILE}'
HEAVY_SHA256 = '59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe'

MAX_RECORD_BYTES = 64 << 10
MAX_LOCK_WAIT_S = 3600.0
"""Maximum waiting time for another process that downloads the same weights."""
MAX_MESSAGE_CHARS = 400

MARKER_FILE = 'config.yaml'
"""The folder of an archive that contains this file is the folder of the checkpoint."""

_RESEARCH_ONLY = (
    'weights were trained on datasets that do not allow commercial use. They are licensed for '
    'non-commercial research only, independent of the licence of this package'
)
METRABS_LICENCE = f'The MeTRAbs {_RESEARCH_ONLY}.'
NLF_LICENCE = f'The NLF {_RESEARCH_ONLY} and of the MIT licence of the official code.'


@dataclasses.dataclass(frozen=True)
class Release:
    """
    A published set of weights.

    Parameters
    ----------
    url
        Address of a .tar.gz archive, or of the file with the weights.
    licence
        Licence notice that is logged at the download.
    sha256
        Known SHA-256 checksums by file name; empty if they are not published.
    """

    url: str
    licence: str = METRABS_LICENCE
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the downloaded file."""
        return self.url.rpartition('/')[-1]

    @property
    def is_packed(self) -> bool:
        """Whether the file is a .tar.gz archive."""
        return self.url.endswith('.tar.gz')


_NLF_URL = 'https://github.com/isarandi/nlf/releases/download'
_METRABS_URL = 'https://omnomnom.vision.rwth-aachen.de/data/metrabs'
RELEASES = {
    'metrabs_l': Release(
        f'{_METRABS_URL}/metrabs_eff2l_384px_800k_28ds_pytorch.tar.gz',
        sha256={
            'ckpt.pt': 'cd9be4587f364d1c19bcdecfa2a5db1baa457ae1f100fe3aca29aef23437c1c3',
            'config.yaml': '2ae9620540d6487c071d88bed723cae28e68e040fe38ee0e819c6be695af0d95',
            'joint_info.npz': 'de211b8679238955ada9a0f0b06bfccc2ea8fc5914d6feb9b3fd2d0b2b1cd97b',
            'joint_transform_matrix.npy': (
                'a1dd2b3c4807c1abd447300f142fe97673c40b510fac7d2cd2d6aa132a6a27cc'
            ),
            'skeleton_infos.pkl': (
                '952849909e6ad179ea297365e91534a2d06f0884e0a34cb7b5998ff1522a96c5'
            ),
        },
    ),
    'metrabs_s': Release(f'{_METRABS_URL}/metrabs_eff2s_256px_800k_28ds_pytorch.tar.gz'),
    'nlf_l': Release(f'{_NLF_URL}/v0.3.2/nlf_l_multi_0.3.2.torchscript', NLF_LICENCE),
    'nlf_s': Release(f'{_NLF_URL}/v0.2.2/nlf_s_multi_0.2.2.torchscript', NLF_LICENCE),
}
BLAZEPOSE_MODELS = (*BUNDLED, BLAZEPOSE_HEAVY)
MODELS = (*BLAZEPOSE_MODELS, *RELEASES)
DOWNLOADED = (BLAZEPOSE_HEAVY, *RELEASES)
"""Models with weights that are not part of the package."""
_SHA256 = re.compile(r'[0-9a-f]{64}')


class WeightsError(RuntimeError):
    """Weights are missing, damaged or cannot be downloaded; the message says what to do."""


def cache_folder() -> pathlib.Path:
    """
    Return the cache folder: METRABS_ROS_CACHE, or a subfolder of XDG_CACHE_HOME or ~/.cache.

    Raises
    ------
    WeightsError
        If the path refers to an unknown home directory.
    """
    named = os.environ.get('METRABS_ROS_CACHE')
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    try:
        if named:
            return pathlib.Path(named).expanduser()
        return pathlib.Path(base).expanduser() / 'metrabs_ros'
    except RuntimeError as error:
        raise WeightsError(
            f'the cache folder {printable(named or base)} is not available ({error}); set '
            'METRABS_ROS_CACHE to a writable folder'
        ) from error


def weights_folder(name: str) -> pathlib.Path:
    """
    Return the folder with the weights of one of `DOWNLOADED`, downloading them if necessary.

    The checksums of the files are verified.

    Raises
    ------
    WeightsError
        If a file does not have the expected checksum, or the download fails.
    """
    folder = cache_folder() / name
    expected = _expected_checksums(name)
    if not expected or not all(os.path.lexists(folder / file) for file in expected):
        return fetch(name)
    for file, sha256 in expected.items():
        _verify_checksum(folder / file, sha256, name)
    return folder


def fetch(name: str, url: str | None = None) -> pathlib.Path:
    """
    Download the weights of one of `DOWNLOADED` into the cache, unless they are complete there.

    Parameters
    ----------
    name
        Name of the model.
    url
        Alternative address, for example of a mirror; for `BLAZEPOSE_HEAVY` also the path of a
        local file.

    Returns
    -------
    pathlib.Path
        The folder of the weights.

    Raises
    ------
    WeightsError
        If the weights are not available, do not have the expected checksums, or cannot be stored.
    """
    folder = cache_folder() / name
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _fetch_lock(name):
            if _is_complete(name):
                return folder
            prefix = f'.fetch-{name}-'
            # Processes that were killed leave their temporary folders behind.
            for abandoned in cache_folder().glob(f'{prefix}*'):
                shutil.rmtree(abandoned, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=prefix) as scratch:
                if name == BLAZEPOSE_HEAVY:
                    fetched = _fetch_heavy(url, pathlib.Path(scratch))
                else:
                    fetched = _fetch_release(name, url, pathlib.Path(scratch))
                _replace_folder(fetched, folder)
    except (DownloadError, ArchiveError) as error:
        raise WeightsError(
            f'{printable(error, MAX_MESSAGE_CHARS)}; {_retry_hint(name)}'
        ) from error
    except OSError as error:
        raise WeightsError(
            f'the weights could not be stored in {shown(folder)}: '
            f'{printable(error, MAX_MESSAGE_CHARS)}; free disk space or set METRABS_ROS_CACHE to '
            'a writable folder'
        ) from error
    return folder


@contextlib.contextmanager
def _fetch_lock(name: str) -> Iterator[None]:
    """Hold the lock that prevents simultaneous downloads of the same weights."""

    def report_waiting(waited_s: float) -> None:
        _LOG.info('waiting for another process that downloads %s: %.0f s', name, waited_s)

    with locked(cache_folder() / f'.{name}.lock', MAX_LOCK_WAIT_S, report_waiting):
        yield


def _is_complete(name: str) -> bool:
    expected = _expected_checksums(name)
    folder = cache_folder() / name
    try:
        return bool(expected) and all(
            sha256_of(folder / file) == sha256 for file, sha256 in expected.items()
        )
    except OSError:
        return False


def _expected_checksums(name: str) -> Mapping[str, str]:
    """Return the published or recorded checksums by file name; empty if there are none."""
    if name == BLAZEPOSE_HEAVY:
        return {HEAVY_FILE: HEAVY_SHA256}
    record = _checksum_file(name)
    try:
        if not os.path.lexists(record):
            return RELEASES[name].sha256
        checksums = json.loads(read_limited(record, MAX_RECORD_BYTES, follow_links=False))
        for file, sha256 in checksums.items():
            if not (_is_file_name(file) and _SHA256.fullmatch(sha256)):
                raise ValueError('it must contain only file names and SHA-256 checksums')
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(
            f'{shown(record)} is damaged ({printable(error, MAX_MESSAGE_CHARS)}); remove it, '
            f'then {_retry_hint(name)}'
        ) from error
    return {**checksums, **RELEASES[name].sha256}


def _is_file_name(file: str) -> bool:
    """Return whether a text is a printable file name without a path."""
    return file.isprintable() and '/' not in file and file not in ('', '.', '..')


def _checksum_file(name: str) -> pathlib.Path:
    """Return the file with the checksums of the first download; it is never removed."""
    return cache_folder() / f'{name}.sha256.json'


def _fetch_heavy(url: str | None, scratch: pathlib.Path) -> pathlib.Path:
    """Download the landmark network `HEAVY_FILE`, or copy it if `url` is that of a local file."""
    folder = scratch / BLAZEPOSE_HEAVY
    folder.mkdir()
    if url is None or url.startswith(('http://', 'https://')):
        return _download_heavy(url or HEAVY_URL, folder)
    source = _local_file(url)
    _copy_local(source, folder / HEAVY_FILE)
    if problem := _heavy_problem(folder / HEAVY_FILE):
        raise DownloadError(f'{shown(source)} {problem}; use the file from {HEAVY_URL}')
    return folder


def _download_heavy(url: str, folder: pathlib.Path) -> pathlib.Path:
    _LOG.info('downloading %s (28 MB, Apache-2.0) from %s ...', HEAVY_FILE, url)
    # Not in the temporary folder, so that an interrupted download is resumed.
    file = cache_folder() / HEAVY_FILE
    download = Download(url, file)
    download.run()
    problem = _heavy_problem(file)
    if problem and download.is_resumed:
        # The parts of a resumed download may come from different files.
        download.discard()
        download.run()
        problem = _heavy_problem(file)
    if problem:
        download.discard()
        raise DownloadError(
            f'the file from {printable(url, MAX_MESSAGE_CHARS)} {problem}; use the file from '
            f'{HEAVY_URL}'
        )
    os.replace(file, folder / HEAVY_FILE)
    return folder


def _heavy_problem(file: pathlib.Path) -> str:
    """Return what is wrong with a file that should be `HEAVY_FILE`; empty if nothing is."""
    actual = sha256_of(file)
    return '' if actual == HEAVY_SHA256 else f'has the sha256 {actual}, expected {HEAVY_SHA256}'


def _local_file(url: str) -> pathlib.Path:
    """Return the path of a local file, given as a path or as an address with file://."""
    if not url.startswith('file://'):
        return pathlib.Path(url)
    try:
        return pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    except ValueError as error:
        raise DownloadError(f"'{printable(url, MAX_MESSAGE_CHARS)}' is not valid") from error


def _copy_local(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        opened = open_regular(source)
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"'{shown(source)}' is neither an http or https address nor a file that can be read "
            f'({printable(error, MAX_MESSAGE_CHARS)}); use the file from {HEAVY_URL}'
        ) from error
    with opened, target.open('wb') as copy:
        shutil.copyfileobj(opened, copy)


def _fetch_release(name: str, url: str | None, scratch: pathlib.Path) -> pathlib.Path:
    release = RELEASES[name]
    downloaded = cache_folder() / f'{name}{".tar.gz" if release.is_packed else ".download"}'
    download = Download(url or release.url, downloaded)
    _LOG.info('downloading %s from %s ...', name, url or release.url)
    _LOG.info('%s', release.licence)
    extract = _unpack_checkpoint if release.is_packed else _move_zip
    content = scratch / 'content'
    download.run()
    try:
        folder = extract(downloaded, content, release.file_name)
    except ArchiveError:
        download.discard()
        if not download.is_resumed:
            raise
        # The parts of a resumed download may come from different versions of the file.
        shutil.rmtree(content, ignore_errors=True)
        download.run()
        folder = extract(downloaded, content, release.file_name)
    checksums = {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}
    for file in checksums:
        if not _is_file_name(file):
            download.discard()
            raise ArchiveError(
                f'{downloaded.name} contains a file with the invalid name {printable(repr(file))}'
            )
    expected = _expected_checksums(name)
    for file, sha256 in expected.items():
        if checksums.get(file) != sha256:
            download.discard()
            raise ArchiveError(
                f'the downloaded {name} differs from the expected release: {file} has the sha256 '
                f'{checksums.get(file, "(missing file)")}, expected {sha256}'
                + ('' if file in release.sha256 else f' as recorded in {_checksum_file(name)}')
            )
    download.discard()
    if not expected.keys() >= checksums.keys():
        write_atomically(
            _checksum_file(name), json.dumps({**checksums, **expected}, indent=1).encode()
        )
    return folder


def _unpack_checkpoint(archive: pathlib.Path, folder: pathlib.Path, _: str) -> pathlib.Path:
    """Unpack an archive into a folder, and return the folder of the checkpoint in it."""
    unpack(archive, folder)
    markers = sorted(folder.rglob(MARKER_FILE))
    if not markers:
        raise ArchiveError(f'{archive.name} does not contain {MARKER_FILE}')
    return markers[0].parent


def _move_zip(file: pathlib.Path, folder: pathlib.Path, name: str) -> pathlib.Path:
    """Move a zip archive, which is not unpacked, into a new folder, and return the folder."""
    try:
        with open_regular(file, follow_links=False) as opened, open_zip(opened) as archive:
            if not any(member.endswith('/data.pkl') for member in archive.namelist()):
                raise zipfile.BadZipFile('it does not contain data.pkl')
            verify_stored(archive)
    except OSError:
        raise
    # zipfile raises exceptions of many types for damaged files.
    except Exception as error:
        raise ArchiveError(
            f'{name} is damaged or another file: {printable(error, MAX_MESSAGE_CHARS)}'
        ) from error
    folder.mkdir()
    os.replace(file, folder / name)
    return folder


def _replace_folder(source: pathlib.Path, folder: pathlib.Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    elif folder.is_symlink():
        folder.unlink()
    os.replace(source, folder)


def _verify_checksum(file: pathlib.Path, sha256: str, name: str) -> None:
    try:
        actual = sha256_of(file)
    except OSError as error:
        reason = printable(error, MAX_MESSAGE_CHARS)
        raise WeightsError(
            f'{shown(file)} cannot be read: {reason}; {_retry_hint(name)}'
        ) from error
    if actual != sha256:
        raise WeightsError(
            f'{shown(file)} is damaged or not the published file: its sha256 is {actual}, '
            f'expected {sha256}; to download it again, run: metrabs_ros fetch {name}'
        )


def _retry_hint(name: str) -> str:
    return f'to try again, run: metrabs_ros fetch {name}'
