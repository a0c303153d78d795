"""Images from a video, a folder of pictures, a picture, or a real device."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import cv2
import numpy as np

from metrabs_ros.arrays import ImageArray

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
STILL_FRAMES = 50
STILL_RATE_HZ = 10.0


class UnusableSource(ValueError):  # noqa: N818
    """There are no images to be had from a source; the message says why."""


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
        self.is_live = str(path).startswith('/dev/')
        self.rate_hz = STILL_RATE_HZ
        self._pictures: list[pathlib.Path] = []
        self._video: cv2.VideoCapture | None = None
        if not self.path.exists():
            kind = 'device' if self.is_live else 'file or folder'
            raise UnusableSource(f'there is no {kind} {path}')
        if self.path.is_dir():
            self._pictures = sorted(
                file for file in self.path.iterdir() if file.suffix.lower() in SUFFIXES
            )
            if not self._pictures:
                raise UnusableSource(f'the folder {path} holds no pictures ({" ".join(SUFFIXES)})')
        elif self.path.suffix.lower() in SUFFIXES:
            self._pictures = [self.path] * still_frames
        else:
            self._open_video()

    def __iter__(self) -> Iterator[ImageArray]:
        """Give the images, BGR; pictures that cannot be read are left out with a word."""
        if self._video is not None:
            while True:
                is_there, image = self._video.read()
                if not is_there:
                    return
                yield np.asarray(image, np.uint8)
        shape = None
        for file in self._pictures:
            picture = cv2.imread(str(file))
            if picture is None:
                print(f'{file} cannot be read as a picture', file=sys.stderr)
            elif picture.shape != (shape := shape or picture.shape):
                print(f'{file} is of another size, left out', file=sys.stderr)
            else:
                yield np.asarray(picture, np.uint8)

    @property
    def is_video(self) -> bool:
        """Whether the images follow each other as they were filmed."""
        return self._video is not None

    @property
    def expected_frames(self) -> int:
        """How many images there are as far as that is known beforehand, else 0."""
        if self._video is None:
            return len(self._pictures)
        return max(0, int(self._video.get(cv2.CAP_PROP_FRAME_COUNT)))

    def _open_video(self) -> None:
        self._video = cv2.VideoCapture(str(self.path))
        if not self._video.isOpened():
            what = 'is no camera that answers' if self.is_live else 'cannot be read as a video'
            raise UnusableSource(f'{self.path} {what}')
        self.rate_hz = self._video.get(cv2.CAP_PROP_FPS) or STILL_RATE_HZ
