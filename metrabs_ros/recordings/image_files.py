"""Images from a video, a folder of images, an image file, or a camera device."""

from __future__ import annotations

import math
import os
import pathlib
import stat
import sys
from collections.abc import Iterator

import cv2
import numpy as np

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.images import MAX_SIDE_PX
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size
from metrabs_ros.recordings.input_files import (
    UnusableFile,
    check_input,
    is_folder,
    list_folder,
    read_input,
    read_start,
)
from metrabs_ros.regular_file import shown

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
STILL_FRAMES = 50
"""Number of times that a single image file is returned by default."""
DEFAULT_RATE_HZ = 10.0
"""Frame rate of image files, and of videos without a valid rate."""
MAX_PIXELS = 100_000_000
"""Maximum size of an image; its RGB values take three times as many bytes."""
MAX_IMAGE_FILE_BYTES = 512 * 2**20
VALID_RATES_HZ = (0.01, 1000.0)
MAX_FAILED_READS = 100
"""Number of successive frames that cannot be decoded after which a video is at its end."""
MAX_MISSING_SHARE = 0.01
"""Some formats declare only the duration, which gives an approximate number of frames."""
TEXT_PROBE_BYTES = 512
"""Number of bytes at the start of a video that are examined for text."""
PLAYLIST_PREFIXES = (b'#EXTM3U', b'ffconcat', b'v=0', b'<')
"""Text formats with which a video library opens other files or network connections."""
YUV4MPEG_MAGIC = b'YUV4MPEG2'
VIDEO_DEVICE_MAJOR = 81
"""Major device number of video4linux."""
BACKENDS = (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER, cv2.CAP_OPENCV_MJPEG)
"""Backends of OpenCV that do not expand file names to sequences of files."""


class UnusableSource(ValueError):  # noqa: N818
    """No images can be read from a source; the message states the reason."""


class UnusableImage(ValueError):  # noqa: N818
    """An image file or a video frame cannot be used; the message states the reason."""


class Source:
    """
    A sequence of images and its frame rate.

    Parameters
    ----------
    path
        A video file, a folder of images, an image file, or a device such as ``/dev/video0``.
    still_frames
        Number of times that a single image file is returned.

    Raises
    ------
    UnusableSource
        If the path cannot be read as any of these.
    """

    def __init__(self, path: str, still_frames: int = STILL_FRAMES) -> None:
        self.path = pathlib.Path(path)
        self.is_live = _is_device(self.path)
        self.rate_hz = DEFAULT_RATE_HZ
        self._image_files: list[pathlib.Path] = []
        self._video: cv2.VideoCapture | None = None
        if self.is_live:
            self._open_device()
            return
        if str(path).startswith('/dev/') and not os.path.exists(path):
            raise UnusableSource(f'the device {shown(self.path)} does not exist')
        try:
            check_input(self.path)
            if is_folder(self.path):
                self._image_files = [
                    file
                    for file in list_folder(self.path)
                    if file.suffix.lower() in IMAGE_SUFFIXES
                ]
            elif self.path.suffix.lower() in IMAGE_SUFFIXES:
                self._image_files = [self.path] * still_frames
            else:
                self._open_video()
        except UnusableFile as error:
            raise UnusableSource(str(error)) from error
        if self._video is None and not self._image_files:
            raise UnusableSource(
                f'the folder {shown(self.path)} has no images ({" ".join(IMAGE_SUFFIXES)})'
            )

    def __iter__(self) -> Iterator[ImageArray]:
        """Return the images, BGR; skip unusable ones with a message on standard error."""
        for image in self.images_or_errors():
            if isinstance(image, UnusableImage):
                print(image, file=sys.stderr)
            else:
                yield image

    def images_or_errors(self) -> Iterator[ImageArray | UnusableImage]:
        """Return the images, BGR, and an exception in place of each unusable image."""
        yield from self._read_video() if self._video is not None else self._read_image_files()

    @property
    def is_video(self) -> bool:
        """Whether the images are frames of a video."""
        return self._video is not None

    @property
    def expected_frames(self) -> int:
        """Number of images; 0 if unknown."""
        if self._video is None:
            return len(self._image_files)
        count = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if math.isfinite(count) and 0 < count < 2**31 else 0

    def _read_video(self) -> Iterator[ImageArray | UnusableImage]:
        assert self._video is not None
        name = shown(self.path)
        expected = 0 if self.is_live else self.expected_frames
        decoded = damaged = failed_reads = 0
        while True:
            try:
                has_frame, image = self._video.read()
            except cv2.error as error:
                yield UnusableImage(_decoding_error(self.path, error))
                return
            if not has_frame:
                failed_reads += 1
                # The end, or a damaged frame with others after it.
                position = decoded + damaged + failed_reads
                if position > expected or failed_reads > MAX_FAILED_READS:
                    break
                continue
            for _ in range(failed_reads):
                damaged += 1
                yield UnusableImage(f'frame {decoded + damaged} of {name} cannot be decoded')
            failed_reads = 0
            decoded += 1
            error_message = _size_error(self.path, image.shape[1], image.shape[0])
            yield UnusableImage(error_message) if error_message else np.asarray(image, np.uint8)
        if not decoded and not self.is_live:
            yield UnusableImage(f'no frame of {name} can be decoded')
        elif expected - decoded - damaged > max(1, MAX_MISSING_SHARE * expected):
            yield UnusableImage(
                f'{name} is truncated or damaged: it declares {expected} frames, and {decoded} '
                'can be decoded'
            )

    def _read_image_files(self) -> Iterator[ImageArray | UnusableImage]:
        shape = None
        for file in self._image_files:
            try:
                image = read_image(file)
            except UnusableImage as error:
                yield error
                continue
            shape = shape or image.shape
            if image.shape == shape:
                yield image
                continue
            (height, width), (first_height, first_width) = image.shape[:2], shape[:2]
            yield UnusableImage(
                f'{shown(file)} is skipped: it has {width} x {height} pixels, but the first image '
                f'has {first_width} x {first_height}'
            )

    def _open_video(self) -> None:
        start = read_start(self.path, TEXT_PROBE_BYTES)
        if not start:
            raise UnusableSource(f'{shown(self.path)} is empty and cannot be read as a video')
        if _is_text(start):
            raise UnusableSource(f'{shown(self.path)} is text and cannot be read as a video')
        self._video = _open_capture(self.path)
        if self._video is None:
            raise UnusableSource(f'{shown(self.path)} cannot be read as a video')
        # A size of 0 is unknown until the first frame is decoded.
        width, height = (
            int(self._video.get(name))
            for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        size_error = _size_error(self.path, width, height) if width and height else ''
        if size_error:
            raise UnusableSource(size_error)
        self._read_rate()

    def _open_device(self) -> None:
        if os.major(os.stat(self.path).st_rdev) != VIDEO_DEVICE_MAJOR:
            raise UnusableSource(f'{shown(self.path)} is a device, but not a camera')
        self._video = cv2.VideoCapture(str(self.path))
        if not self._video.isOpened():
            raise UnusableSource(f'the camera {shown(self.path)} cannot be opened')
        self._read_rate()

    def _read_rate(self) -> None:
        assert self._video is not None
        rate_hz = self._video.get(cv2.CAP_PROP_FPS)
        min_hz, max_hz = VALID_RATES_HZ
        # The condition also rejects NaN.
        self.rate_hz = rate_hz if min_hz <= rate_hz <= max_hz else DEFAULT_RATE_HZ


def read_image(file: pathlib.Path) -> ImageArray:
    """
    Read an image file.

    Returns
    -------
    [H, W, 3], uint8, BGR.

    Raises
    ------
    UnusableImage
        If the file cannot be read, or the image is too large.
    """
    try:
        data = read_input(file, MAX_IMAGE_FILE_BYTES)
    except UnusableFile as error:
        raise UnusableImage(str(error)) from error
    size = image_size(data)
    if size is None:
        raise UnusableImage(
            f'{shown(file)} cannot be read as an image: its header is invalid or of an unknown '
            'format'
        )
    size_error = _size_error(file, *size)
    if size_error:
        raise UnusableImage(size_error)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnusableImage(_decoding_error(file, error)) from error
    if image is None:
        raise UnusableImage(f'{shown(file)} cannot be read as an image: its data is invalid')
    return np.asarray(image, np.uint8)


def _size_error(path: pathlib.Path, width: int, height: int) -> str:
    """Return an error message if an image is too large; '' if it is not."""
    try:
        check_image_size(width, height, MAX_PIXELS)
    except ValueError as error:
        return f'{shown(path)} is not decoded: {error}'
    if max(width, height) > MAX_SIDE_PX:
        return (
            f'{shown(path)} is not decoded: it has {width} x {height} pixels; each side may have '
            f'at most {MAX_SIDE_PX}'
        )
    return ''


def _decoding_error(path: pathlib.Path, error: cv2.error) -> str:
    return f'{shown(path)} cannot be decoded: {printable(error.err or error, 200)}'


def _is_device(path: pathlib.Path) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_text(start: bytes) -> bool:
    if start.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(PLAYLIST_PREFIXES):
        return True
    if start.startswith(YUV4MPEG_MAGIC):
        return False
    # The last character may be incomplete.
    text = start.decode('utf-8', 'ignore')
    is_utf8 = len(text.encode()) >= len(start) - 3
    return is_utf8 and all(letter.isprintable() or letter.isspace() for letter in text)


def _open_capture(path: pathlib.Path) -> cv2.VideoCapture | None:
    """Open a video; return None if no backend can open it."""
    # Backends do not interpret an absolute path as a URL.
    name = os.path.abspath(path)
    descriptor = None
    try:
        try:
            name.encode()
        except UnicodeEncodeError:
            # OpenCV requires names in valid UTF-8.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            name = f'/proc/self/fd/{descriptor}'
        for backend in BACKENDS:
            try:
                video = cv2.VideoCapture(name, backend)
            except cv2.error:
                continue
            if video.isOpened():
                return video
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return None
