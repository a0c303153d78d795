"""Videos and folders of pictures as recordings of a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2

from metrabs_ros.camera import Camera
from metrabs_ros.estimator import View
from metrabs_ros.messages.cameras import to_camera
from metrabs_ros.recordings.calibration import Calibration
from metrabs_ros.recordings.message_types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    maker,
    message_types,
    typestore,
)
from metrabs_ros.recordings.pictures import Source
from metrabs_ros.recordings.recorded import Recorded, Topic
from metrabs_ros.recordings.recording import Frame, RecordedCamera

FRAME_ID = 'camera_optical_frame'
NAMESPACE = '/camera'
IMAGES = Topic(f'{NAMESPACE}/image_raw/compressed', COMPRESSED_IMAGE)
INFOS = Topic(f'{NAMESPACE}/camera_info', CAMERA_INFO)
JPEG_QUALITY = 90


class PictureRecording:
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
        self.cameras = [RecordedCamera(NAMESPACE, '', str(source.path), source.expected_frames)]
        self.kept: Sequence[Topic] = [IMAGES, INFOS] if keep else []

    def __iter__(self) -> Iterator[Frame | Recorded]:
        """Return frames and messages; see `Recording`."""
        types, store = message_types(), typestore()
        for i, image in enumerate(self._source):
            time_ns = round(i * 1e9 / self._source.rate_hz)
            if self.kept:
                sec, nanosec = divmod(time_ns, 1_000_000_000)
                header = types.Header(
                    stamp=maker('builtin_interfaces/msg/Time')(sec=sec, nanosec=nanosec),
                    frame_id=FRAME_ID,
                )
                _, jpeg = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
                picture = maker(COMPRESSED_IMAGE)(header=header, format='jpeg', data=jpeg)
                yield Recorded(IMAGES, time_ns, store.serialize_cdr(picture, COMPRESSED_IMAGE))
                calibration = self._calibration_for(image.shape)
                fields = {name: getattr(calibration, name) for name in ('k', 'd', 'r', 'p')}
                roi = maker('sensor_msgs/msg/RegionOfInterest')(**vars(calibration.roi))
                info = maker(CAMERA_INFO)(
                    header=header,
                    width=calibration.width,
                    height=calibration.height,
                    distortion_model=calibration.distortion_model,
                    binning_x=calibration.binning_x,
                    binning_y=calibration.binning_y,
                    roi=roi,
                    **fields,
                )
                yield Recorded(INFOS, time_ns, store.serialize_cdr(info, CAMERA_INFO))
            yield Frame(0, time_ns, time_ns, FRAME_ID, image)

    def view(self, frame: Frame) -> View:
        """Return the image of a frame and its camera; see `Recording`."""
        image = frame.content[..., ::-1]
        return View(image, self._camera(image.shape))

    def close(self) -> None:
        """Have nothing to let go of."""

    def _camera(self, image_shape: tuple[int, ...]) -> Camera:
        return to_camera(self._calibration_for(image_shape), image_shape)

    def _calibration_for(self, image_shape: tuple[int, ...]) -> Calibration:
        return self._calibration or Calibration.guessed(self._fov_degrees, image_shape)
