"""Videos and folders of pictures as recordings of a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.options import View
from metrabs_ros.recordings.bag_message import Recorded, Topic
from metrabs_ros.recordings.calibration import Calibration
from metrabs_ros.recordings.image_files import Source, UnusableImage
from metrabs_ros.recordings.message_types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    maker,
    typestore,
)
from metrabs_ros.recordings.recording import Frame, RecordedCamera
from metrabs_ros.recordings.stamps import header_at
from metrabs_ros.regular_file import shown

FRAME_ID = 'camera_optical_frame'
NAMESPACE = '/camera'
IMAGES = Topic(f'{NAMESPACE}/image_raw/compressed', COMPRESSED_IMAGE)
INFOS = Topic(f'{NAMESPACE}/camera_info', CAMERA_INFO)
JPEG_QUALITY = 90


class ImageRecording:
    """
    A video or a folder of pictures; the first is taken at 0 s, the others as the rate says.

    Parameters
    ----------
    source
        The pictures.
    calibration
        Of the camera, or None for a guess.
    fov_degrees
        The field of view of the guess.
    keep
        Whether the pictures are there to be kept, as jpeg.
    """

    def __init__(
        self, source: Source, calibration: Calibration | None, fov_degrees: float, keep: bool
    ) -> None:
        self._source = source
        self._calibration = calibration
        self._fov_degrees = fov_degrees
        self.cameras = [RecordedCamera(NAMESPACE, '', shown(source.path), source.expected_frames)]
        self.kept: Sequence[Topic] = [IMAGES, INFOS] if keep else []

    def __iter__(self) -> Iterator[Frame | Recorded]:
        """Return frames and messages; see `Recording`."""
        for i, image in enumerate(self._source.pictures()):
            time_ns = round(i * 1e9 / self._source.rate_hz)
            if isinstance(image, UnusableImage):
                yield Frame(0, time_ns, time_ns, FRAME_ID, UnusableInput('picture', str(image)))
                continue
            if self.kept:
                yield from self._messages(image, time_ns)
            yield Frame(0, time_ns, time_ns, FRAME_ID, image)

    def view(self, frame: Frame) -> View:
        """Return the image of a frame and its camera; see `Recording`."""
        if isinstance(frame.content, UnusableInput):
            raise frame.content
        image = frame.content[..., ::-1]
        return View(image, to_camera(self._calibration_for(image.shape), image.shape))

    def close(self) -> None:
        """Do nothing: the pictures are closed where they end."""

    def _messages(self, image: ImageArray, time_ns: int) -> Iterator[Recorded]:
        """Return what a camera would have published of an image, BGR."""
        header = header_at(time_ns, FRAME_ID)
        _, jpeg = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        picture = maker(COMPRESSED_IMAGE)(header=header, format='jpeg', data=jpeg)
        info = self._calibration_for(image.shape).to_message(
            maker(CAMERA_INFO), maker('sensor_msgs/msg/RegionOfInterest'), header
        )
        for topic, message in ((IMAGES, picture), (INFOS, info)):
            yield Recorded(topic, time_ns, typestore().serialize_cdr(message, topic.msgtype))

    def _calibration_for(self, image_shape: tuple[int, ...]) -> Calibration:
        return self._calibration or Calibration.guessed(self._fov_degrees, image_shape)
