"""Images from a video, a folder of pictures, a picture, or a real device."""

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
    files_in,
    is_folder,
    read_input,
    read_start,
)
from metrabs_ros.regular_file import shown

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
STILL_FRAMES = 50
STILL_RATE_HZ = 10.0
MAX_PIXELS = 100_000_000
"""Of a picture or a frame of a video; its RGB values take three times as many bytes."""
MAX_PICTURE_BYTES = 512 * 2**20
PLAUSIBLE_RATES_HZ = (0.01, 1000.0)
TEXT_BYTES = 512
PLAYLISTS = (b'#EXTM3U', b'ffconcat', b'v=0', b'<')
"""Texts that make a video library open other files or network connections."""
TEXT_VIDEO = b'YUV4MPEG2'
VIDEO_DEVICES_MAJOR = 81
BACKENDS = (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER, cv2.CAP_OPENCV_MJPEG)
"""Others take some file names for patterns of further files."""


class UnusableSource(ValueError):  # noqa: N818
    """No images can be read from a source; the message says why."""


class UnusableImage(ValueError):  # noqa: N818
    """A picture, or a frame of a video, cannot be used; the message says why."""


class Source:
    """
    Images and the rate at which they were taken.

    Parameters
    ----------
    path
        A video file, a folder of pictures, a picture, or a device such as ``/dev/video0``.
    still_frames
        How often a picture is shown that is the only one.

    Raises
    ------
    UnusableSource
        If it cannot be read.
    """

    def __init__(self, path: str, still_frames: int = STILL_FRAMES) -> None:
        self.path = pathlib.Path(path)
        self.is_live = _is_device(self.path)
        self.rate_hz = STILL_RATE_HZ
        self._pictures: list[pathlib.Path] = []
        self._video: cv2.VideoCapture | None = None
        if self.is_live:
            self._open_device()
            return
        if str(path).startswith('/dev/') and not os.path.exists(path):
            raise UnusableSource(f'there is no device {shown(self.path)}')
        try:
            check_input(self.path)
            if is_folder(self.path):
                self._pictures = [
                    file for file in files_in(self.path) if file.suffix.lower() in SUFFIXES
                ]
            elif self.path.suffix.lower() in SUFFIXES:
                self._pictures = [self.path] * still_frames
            else:
                self._open_video()
        except UnusableFile as error:
            raise UnusableSource(str(error)) from error
        if self._video is None and not self._pictures:
            raise UnusableSource(
                f'the folder {shown(self.path)} holds no pictures ({" ".join(SUFFIXES)})'
            )

    def __iter__(self) -> Iterator[ImageArray]:
        """Return the images, BGR; those that cannot be used are left out with a message."""
        for picture in self.pictures():
            if isinstance(picture, UnusableImage):
                print(picture, file=sys.stderr)
            else:
                yield picture

    def pictures(self) -> Iterator[ImageArray | UnusableImage]:
        """Return the images, BGR, and in the place of those that cannot be used, why."""
        yield from self._of_video() if self._video is not None else self._of_files()

    @property
    def is_video(self) -> bool:
        """Whether the images follow each other as they were filmed."""
        return self._video is not None

    @property
    def expected_frames(self) -> int:
        """How many images there are as far as that is known beforehand, else 0."""
        if self._video is None:
            return len(self._pictures)
        count = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if math.isfinite(count) and 0 < count < 2**31 else 0

    def _of_video(self) -> Iterator[ImageArray | UnusableImage]:
        assert self._video is not None
        count = 0
        while True:
            try:
                is_there, image = self._video.read()
            except cv2.error as error:
                yield UnusableImage(_cannot_be_decoded(self.path, error))
                return
            if not is_there:
                break
            count += 1
            why = _refusal(self.path, image.shape[1], image.shape[0])
            yield UnusableImage(why) if why else np.asarray(image, np.uint8)
        if not count and not self.is_live:
            yield UnusableImage(f'no frame of {shown(self.path)} can be decoded')

    def _of_files(self) -> Iterator[ImageArray | UnusableImage]:
        shape = None
        for file in self._pictures:
            try:
                picture = read_image(file)
            except UnusableImage as unusable:
                yield unusable
                continue
            shape = shape or picture.shape
            if picture.shape == shape:
                yield picture
                continue
            (height, width), (usual_height, usual_width) = picture.shape[:2], shape[:2]
            yield UnusableImage(
                f'{shown(file)} is of another size, {width} x {height} instead of {usual_width} x '
                f'{usual_height} pixels, left out'
            )

    def _open_video(self) -> None:
        start = read_start(self.path, TEXT_BYTES)
        if not start:
            raise UnusableSource(f'{shown(self.path)} is empty; it cannot be read as a video')
        if _is_text(start):
            raise UnusableSource(f'{shown(self.path)} is text; it cannot be read as a video')
        self._video = _capture(self.path)
        if self._video is None:
            raise UnusableSource(f'{shown(self.path)} cannot be read as a video')
        # A size of 0 means that it is not known before the first frame.
        width, height = (
            int(self._video.get(name))
            for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        why = _refusal(self.path, width, height) if width and height else ''
        if why:
            raise UnusableSource(why)
        self._take_rate()

    def _open_device(self) -> None:
        if os.major(os.stat(self.path).st_rdev) != VIDEO_DEVICES_MAJOR:
            raise UnusableSource(f'{shown(self.path)} is a device, but no camera')
        self._video = cv2.VideoCapture(str(self.path))
        if not self._video.isOpened():
            raise UnusableSource(f'{shown(self.path)} is no camera that answers')
        self._take_rate()

    def _take_rate(self) -> None:
        assert self._video is not None
        rate_hz = self._video.get(cv2.CAP_PROP_FPS)
        slowest_hz, fastest_hz = PLAUSIBLE_RATES_HZ
        # Also not a number is not between them.
        self.rate_hz = rate_hz if slowest_hz <= rate_hz <= fastest_hz else STILL_RATE_HZ


def read_image(file: pathlib.Path) -> ImageArray:
    """
    Read a picture, [H, W, 3], uint8, BGR.

    Raises
    ------
    UnusablePicture
        If it cannot be read, or is too large to be decoded.
    """
    try:
        data = read_input(file, MAX_PICTURE_BYTES)
    except UnusableFile as error:
        raise UnusableImage(str(error)) from error
    size = image_size(data)
    if size is None:
        raise UnusableImage(
            f'{shown(file)} cannot be read as a picture: no size is found in its header'
        )
    why = _refusal(file, *size)
    if why:
        raise UnusableImage(why)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnusableImage(_cannot_be_decoded(file, error)) from error
    if picture is None:
        raise UnusableImage(f'{shown(file)} cannot be read as a picture: its data is invalid')
    return np.asarray(picture, np.uint8)


def _refusal(path: pathlib.Path, width: int, height: int) -> str:
    """Return why an image of a size is not decoded, or ''."""
    try:
        check_image_size(width, height, MAX_PIXELS)
    except ValueError as error:
        return f'{shown(path)} is not decoded: {error}'
    if max(width, height) > MAX_SIDE_PX:
        return (
            f'{shown(path)} is not decoded: {width} x {height} pixels; at most {MAX_SIDE_PX} '
            'a side can be worked on'
        )
    return ''


def _cannot_be_decoded(path: pathlib.Path, error: cv2.error) -> str:
    return f'{shown(path)} cannot be decoded: {printable(error.err or error, 200)}'


def _is_device(path: pathlib.Path) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_text(start: bytes) -> bool:
    if start.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(PLAYLISTS):
        return True
    if start.startswith(TEXT_VIDEO):
        return False
    # The last character may be cut in two.
    text = start.decode('utf-8', 'ignore')
    is_whole = len(text.encode()) >= len(start) - 3
    return is_whole and all(letter.isprintable() or letter.isspace() for letter in text)


def _capture(path: pathlib.Path) -> cv2.VideoCapture | None:
    """Open a video; None if nothing can."""
    # An absolute path is never taken for an address.
    name = os.path.abspath(path)
    descriptor = None
    try:
        try:
            name.encode()
        except UnicodeEncodeError:
            # OpenCV takes only names that are text.
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
