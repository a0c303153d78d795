"""Where weights live on this machine, how they get there, and whether they are what they claim."""

from __future__ import annotations

import hashlib
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

_LOG = logging.getLogger(__name__)

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


class WeightsError(RuntimeError):
    """Weights are missing, damaged or cannot be fetched; the message says what to do."""


def cache_folder() -> pathlib.Path:
    """Return the folder for weights: METRABS_ROS_CACHE, else below XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get('METRABS_ROS_CACHE')
    if named:
        return pathlib.Path(named).expanduser()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return pathlib.Path(base).expanduser() / 'metrabs_ros'


def blazepose_folder() -> pathlib.Path:
    """
    Return the folder that holds the checked BlazePose networks, fetching them if there are none.

    Raises
    ------
    WeightsError
        If a file is not the published one, or fetching fails.
    """
    folder = cache_folder() / 'blazepose'
    if not all((folder / name).exists() for name in BLAZEPOSE_FILES):
        fetch_blazepose()
    for name, (_, sha256) in BLAZEPOSE_FILES.items():
        _check(folder / name, sha256)
    return folder


def fetch_blazepose() -> pathlib.Path:
    """
    Put the BlazePose networks into the cache, unless they are there and whole.

    They are taken out of a wheel, of which nothing else is kept or run.

    Raises
    ------
    WeightsError
        If the wheel cannot be had or does not hold the published files.
    """
    folder = cache_folder() / 'blazepose'
    missing = [name for name in BLAZEPOSE_FILES if not _is_whole(folder / name)]
    if not missing:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.fetch-') as scratch:
            wheel = _download_wheel(BLAZEPOSE_WHEEL, pathlib.Path(scratch))
            for name in missing:
                _extract(wheel, name, pathlib.Path(scratch) / name)
            for name in missing:
                os.replace(pathlib.Path(scratch) / name, folder / name)
    except OSError as error:
        raise WeightsError(
            f'the weights could not be stored in {folder}: {error}; free some room or set '
            'METRABS_ROS_CACHE to a folder that can be written'
        ) from error
    return folder


def _extract(wheel: pathlib.Path, name: str, target: pathlib.Path) -> None:
    member, sha256 = BLAZEPOSE_FILES[name]
    try:
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(member))
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f'{wheel.name} does not hold {member}: {error}') from error
    _check(target, sha256)


def _download_wheel(requirement: str, folder: pathlib.Path) -> pathlib.Path:
    _LOG.info('fetching the BlazePose networks (36 MB wheel %s) ...', requirement)
    # The networks are the same in the wheels of every platform, so any one that exists will do.
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--only-binary=:all:', '--python-version=3.12']
    command += ['--platform=manylinux_2_28_x86_64', '--dest', str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob('*.whl'))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if 'ERROR' in line]
        reason = (lines or result.stderr.splitlines() or ['no reason given'])[-1]
        raise WeightsError(
            f'pip could not download {requirement}: {reason.strip()}; check the network, then '
            'run: metrabs_ros fetch blazepose'
        )
    return wheels[0]


def _check(file: pathlib.Path, sha256: str) -> None:
    found = _sha256(file)
    if found != sha256:
        raise WeightsError(
            f'{file} is damaged or not the published file: its sha256 is {found}, expected '
            f'{sha256}; to fetch it again, run: metrabs_ros fetch blazepose'
        )


def _is_whole(file: pathlib.Path) -> bool:
    return file.exists() and _sha256(file) == BLAZEPOSE_FILES[file.name][1]


def _sha256(file: pathlib.Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f'{file} cannot be read: {error}') from error
