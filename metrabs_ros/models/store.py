"""Where weights live on this machine, how they get there, and whether they are what they claim."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping

from metrabs_ros.models.archive import ArchiveError, unpack
from metrabs_ros.models.download import Download, DownloadError, download_wheel, sha256_of

_LOG = logging.getLogger(__name__)

BLAZEPOSE = 'blazepose'
BLAZEPOSE_WHEEL = 'mediapipe==0.10.21'
BLAZEPOSE_FILES = {
    'pose_detection.tflite': (
        'mediapipe/modules/pose_detection/pose_detection.tflite',
        '9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c',
    ),
    'pose_landmark_full.tflite': (
        'mediapipe/modules/pose_landmark/pose_landmark_full.tflite',
        'e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f',
    ),
}
"""For each file its place in the wheel and its sha256."""

LANDMARK_FILE = 'config.yaml'
"""Where this file is in a release's archive, there are the others."""

METRABS_LICENCE = (
    'The MeTRAbs weights were trained on datasets that allow no commercial use: they are licensed '
    'for non-commercial research only, whatever the licence of this package.'
)


@dataclasses.dataclass(frozen=True)
class Release:
    """
    Weights that somebody has published.

    Parameters
    ----------
    url
        Of a .tar.gz.
    licence
        What who fetches them must know.
    sha256
        By the files' names, as far as known beforehand.
    """

    url: str
    licence: str = METRABS_LICENCE
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
}
MODELS = (BLAZEPOSE, *RELEASES)


class WeightsError(RuntimeError):
    """Weights are missing, damaged or cannot be fetched; the message says what to do."""


def cache_folder() -> pathlib.Path:
    """Return the folder for weights: METRABS_ROS_CACHE, else below XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get('METRABS_ROS_CACHE')
    if named:
        return pathlib.Path(named).expanduser()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return pathlib.Path(base).expanduser() / 'metrabs_ros'


def weights_folder(name: str) -> pathlib.Path:
    """
    Return the folder with the checked weights of one of `MODELS`, fetching them if there are none.

    Raises
    ------
    WeightsError
        If a file is not the published one, or fetching fails.
    """
    folder = cache_folder() / name
    expected = _expected_sums(name)
    if not expected or not all((folder / file).exists() for file in expected):
        return fetch(name)
    for file, sha256 in expected.items():
        _check(folder / file, sha256, name)
    return folder


def fetch(name: str, url: str | None = None) -> pathlib.Path:
    """
    Put the weights of one of `MODELS` into the cache, unless they are there and whole.

    Parameters
    ----------
    name
        Of the model.
    url
        Where to fetch a release from instead of where it was published.

    Raises
    ------
    WeightsError
        If they cannot be had, are not those that were published, or cannot be stored.
    """
    folder = cache_folder() / name
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _alone(name):
            if _is_whole(name):
                return folder
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix='.fetch-') as scratch:
                if name == BLAZEPOSE:
                    found = _fetch_blazepose(pathlib.Path(scratch))
                else:
                    found = _fetch_release(name, url, pathlib.Path(scratch))
                _put_in_place(found, folder)
    except (DownloadError, ArchiveError) as error:
        raise WeightsError(f'{error}; {_again(name)}') from error
    except OSError as error:
        raise WeightsError(
            f'the weights could not be stored in {folder}: {error}; free some room or set '
            'METRABS_ROS_CACHE to a folder that can be written'
        ) from error
    return folder


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other process fetches the same."""
    with open(cache_folder() / f'.{name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(name: str) -> bool:
    expected = _expected_sums(name)
    files = [cache_folder() / name / file for file in expected]
    return bool(files) and all(
        file.is_file() and sha256_of(file) == expected[file.name] for file in files
    )


def _expected_sums(name: str) -> Mapping[str, str]:
    """Return the sums that are known or were recorded, by the files' names; none if none are."""
    if name == BLAZEPOSE:
        return {file: sha256 for file, (_, sha256) in BLAZEPOSE_FILES.items()}
    recorded = _record(name)
    try:
        sums = json.loads(recorded.read_text()) if recorded.exists() else {}
        return {**{str(k): str(v) for k, v in sums.items()}, **RELEASES[name].sha256}
    except (ValueError, AttributeError) as error:
        raise WeightsError(
            f'{recorded} is damaged ({error}); remove it, then {_again(name)}'
        ) from error


def _record(name: str) -> pathlib.Path:
    """Return the file with the sums of the first download, which outlives the weights."""
    return cache_folder() / f'{name}.sha256.json'


def _fetch_blazepose(scratch: pathlib.Path) -> pathlib.Path:
    """Take the networks out of a wheel, of which nothing else is kept or run."""
    _LOG.info('fetching the BlazePose networks (36 MB wheel %s) ...', BLAZEPOSE_WHEEL)
    wheel = download_wheel(BLAZEPOSE_WHEEL, scratch)
    folder = scratch / BLAZEPOSE
    folder.mkdir()
    for name, (member, sha256) in BLAZEPOSE_FILES.items():
        try:
            with zipfile.ZipFile(wheel) as archive:
                (folder / name).write_bytes(archive.read(member))
        except (KeyError, zipfile.BadZipFile) as error:
            raise ArchiveError(f'{wheel.name} does not hold {member}: {error}') from error
        _check(folder / name, sha256, BLAZEPOSE)
    return folder


def _fetch_release(name: str, url: str | None, scratch: pathlib.Path) -> pathlib.Path:
    release = RELEASES[name]
    archive = cache_folder() / f'{name}.tar.gz'
    download = Download(url or release.url, archive)
    _LOG.info('fetching %s from %s ...', name, url or release.url)
    _LOG.info('%s', release.licence)
    unpacked = scratch / 'unpacked'
    download.run()
    try:
        unpack(archive, unpacked)
    except ArchiveError:
        download.forget()
        if not download.resumed:
            raise
        # Its parts may have been of different versions.
        shutil.rmtree(unpacked, ignore_errors=True)
        download.run()
        unpack(archive, unpacked)
    places = sorted(unpacked.rglob(LANDMARK_FILE))
    if not places:
        download.forget()
        raise ArchiveError(f'{name}.tar.gz holds no {LANDMARK_FILE}')
    folder = places[0].parent
    found = {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if file.is_file()}
    expected = _expected_sums(name)
    for file, sha256 in expected.items():
        if found.get(file) != sha256:
            download.forget()
            raise ArchiveError(
                f'the {name} that was fetched is not the one that is known: {file} has the sha256 '
                f'{found.get(file, "of no file")}, expected {sha256}'
                + ('' if file in release.sha256 else f' as recorded in {_record(name)}')
            )
    download.forget()
    if not expected.keys() >= found.keys():
        _write_atomically(_record(name), json.dumps({**found, **expected}, indent=1))
    return folder


def _put_in_place(found: pathlib.Path, folder: pathlib.Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
    os.replace(found, folder)


def _write_atomically(file: pathlib.Path, text: str) -> None:
    part = file.with_name(f'{file.name}.part')
    part.write_text(text)
    os.replace(part, file)


def _check(file: pathlib.Path, sha256: str, name: str) -> None:
    try:
        found = sha256_of(file)
    except OSError as error:
        raise WeightsError(f'{file} cannot be read: {error}') from error
    if found != sha256:
        raise WeightsError(
            f'{file} is damaged or not the published file: its sha256 is {found}, expected '
            f'{sha256}; to fetch it again, run: metrabs_ros fetch {name}'
        )


def _again(name: str) -> str:
    return f'to try again, run: metrabs_ros fetch {name}'
