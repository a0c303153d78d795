"""Videos and image files as recordings of one camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.stamps import to_ns
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.options import View
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.calibration import Calibration
from metrabs_ros.recordings.image_files import Source, UnusableImage
from metrabs_ros.recordings.recording import RecordedCamera, RecordedFrame, timed_view
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    header_at,
    message_factory,
    typestore,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.tracking.timed_view import TimedView

FRAME_ID = 'camera_optical_frame'
NAMESPACE = '/camera'
IMAGES = Topic(f'{NAMESPACE}/image_raw/compressed', COMPRESSED_IMAGE)
INFOS = Topic(f'{NAMESPACE}/camera_info', CAMERA_INFO)
JPEG_QUALITY = 90


class ImageRecording:
    """
    A video or image files of one camera.  Stamps start at 0 s and follow the frame rate.

    Parameters
    ----------
    source
        The images.
    calibration
        Calibration of the camera; None to approximate it by the field of view.
    fov_degrees
        Field of view in degrees.
    copy_messages
        Whether the images, as JPEG, and CameraInfo messages are written to the results.
    """

    def __init__(
        self,
        source: Source,
        calibration: Calibration | None,
        fov_degrees: float,
        copy_messages: bool,
    ) -> None:
        self._source = source
        self._calibration = calibration
        self._fov_degrees = fov_degrees
        self.cameras = [RecordedCamera(NAMESPACE, '', shown(source.path), source.expected_frames)]
        self.copied_topics: Sequence[Topic] = [IMAGES, INFOS] if copy_messages else []

    def __iter__(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return frames and messages; see `Recording`."""
        for i, image in enumerate(self._source.images_or_errors()):
            time_ns = round(i * 1e9 / self._source.rate_hz)
            if isinstance(image, UnusableImage):
                yield RecordedFrame(
                    0, time_ns, time_ns, FRAME_ID, UnusableInput('image file', str(image))
                )
                continue
            if self.copied_topics:
                yield from self._messages(image, time_ns)
            yield RecordedFrame(0, time_ns, time_ns, FRAME_ID, image)

    def view(self, frame: RecordedFrame) -> TimedView:
        """Return the image of a frame and its camera; see `Recording`."""
        if isinstance(frame.content, UnusableInput):
            raise frame.content
        image = frame.content[..., ::-1]
        camera = to_camera(self._calibration_for(image.shape), image.shape)
        return timed_view(frame, View(image, camera))

    def close(self) -> None:
        """Do nothing; the source needs no closing."""

    def _messages(self, image: ImageArray, time_ns: int) -> Iterator[BagMessage]:
        header, calibration = header_at(time_ns, FRAME_ID), self._calibration_for(image.shape)
        yield from camera_messages(image, calibration, header, IMAGES, INFOS)

    def _calibration_for(self, image_shape: tuple[int, ...]) -> Calibration:
        return self._calibration or Calibration.from_fov(self._fov_degrees, image_shape)


def camera_messages(
    image: ImageArray, calibration: Calibration | None, header: Any, images: Topic, infos: Topic
) -> Iterator[BagMessage]:
    """
    Return the messages that a camera driver would have published for an image.

    Parameters
    ----------
    image
        [H, W, 3], uint8, BGR.
    calibration
        Calibration of the camera; None to return the image only.
    header
        Header of the messages, whose stamp is also their time of recording.
    images, infos
        Topics of the compressed image and of the CameraInfo.
    """
    _, jpeg = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    compressed = message_factory(COMPRESSED_IMAGE)(header=header, format='jpeg', data=jpeg)
    messages = [(images, compressed)]
    if calibration is not None:
        region = message_factory('sensor_msgs/msg/RegionOfInterest')
        info = calibration.to_message(message_factory(CAMERA_INFO), region, header)
        messages.append((infos, info))
    for topic, message in messages:
        data = typestore().serialize_cdr(message, topic.msgtype)
        yield BagMessage(topic, to_ns(header.stamp), data)
