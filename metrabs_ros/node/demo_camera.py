"""A camera made of a video, a folder of pictures, a picture, or a real device."""

from __future__ import annotations

import argparse
import array
import pathlib
import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np
import rclpy
import yaml
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import lifetime

Key = tuple[int, int]

FRAME_ID = 'camera_optical_frame'
PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
STILL_FRAMES = 50
STILL_RATE_HZ = 10.0
IN_FLIGHT = 2
READER_PATIENCE_S = 60.0
SETTLING_S = 0.5
ANSWER_PATIENCE_S = 2.0
UNANSWERED = 10


class UnusableSource(ValueError):  # noqa: N818
    """There are no images to be had from a source; the message says why."""


class Source:
    """
    Images and the rate at which they were taken.

    Parameters
    ----------
    path
        A video file, a folder of pictures, a picture, or a device such as ``/dev/video0``.

    Raises
    ------
    UnusableSource
        If it cannot be read.
    """

    def __init__(self, path: str) -> None:
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
                file for file in self.path.iterdir() if file.suffix.lower() in PICTURES
            )
            if not self._pictures:
                raise UnusableSource(f'the folder {path} holds no pictures ({" ".join(PICTURES)})')
        elif self.path.suffix.lower() in PICTURES:
            self._pictures = [self.path] * STILL_FRAMES
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
                print(f'camera: {file} cannot be read as a picture', file=sys.stderr)
            elif picture.shape != (shape := shape or picture.shape):
                print(f'camera: {file} is of another size, left out', file=sys.stderr)
            else:
                yield np.asarray(picture, np.uint8)

    def _open_video(self) -> None:
        self._video = cv2.VideoCapture(str(self.path))
        if not self._video.isOpened():
            what = 'is no camera that answers' if self.is_live else 'cannot be read as a video'
            raise UnusableSource(f'{self.path} {what}')
        self.rate_hz = self._video.get(cv2.CAP_PROP_FPS) or STILL_RATE_HZ


def read_calibration(file: str) -> CameraInfo:
    """
    Read a calibration as the package camera_calibration writes it.

    Raises
    ------
    UnusableSource
        If the file is none.
    """
    try:
        values = yaml.safe_load(pathlib.Path(file).read_text(encoding='utf-8'))
        info = CameraInfo()
        info.width, info.height = int(values['image_width']), int(values['image_height'])
        info.distortion_model = str(values.get('distortion_model', 'plumb_bob'))
        info.d = [float(value) for value in values['distortion_coefficients']['data']]
        info.k = [float(value) for value in values['camera_matrix']['data']]
        if 'rectification_matrix' in values:
            info.r = [float(value) for value in values['rectification_matrix']['data']]
        if 'projection_matrix' in values:
            info.p = [float(value) for value in values['projection_matrix']['data']]
    except OSError as error:
        raise UnusableSource(f'the calibration {file} cannot be read: {error}') from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise UnusableSource(
            f'{file} is no ROS calibration (image_width, image_height, camera_matrix, '
            f'distortion_coefficients): {error!r}'
        ) from error
    return info


def guess_calibration(fov_degrees: float, image_shape: tuple[int, ...]) -> CameraInfo:
    """Make up the calibration of a camera of which only the field of view is known."""
    camera = Camera.from_fov(fov_degrees, image_shape)
    info = CameraInfo()
    info.height, info.width = image_shape[:2]
    info.distortion_model = 'plumb_bob'
    info.d = [0.0] * 5
    info.k = camera.intrinsic_matrix.reshape(-1).tolist()
    info.r = np.eye(3).reshape(-1).tolist()
    info.p = np.hstack([camera.intrinsic_matrix, np.zeros((3, 1))]).reshape(-1).tolist()
    return info


class CameraNode(Node):
    """
    Publishes ``image`` and ``camera_info``.

    Parameters
    ----------
    source
        Where the images come from.
    calibration
        A calibration file, or None for a guess.
    fov_degrees
        The field of view of the guess.
    rate_hz
        How many images a second; 0 for as many as the reader of ``skeletons`` keeps up with.
    """

    def __init__(
        self, source: Source, calibration: str | None, fov_degrees: float, rate_hz: float
    ) -> None:
        super().__init__('camera')
        self._source = source
        self._info = read_calibration(calibration) if calibration else None
        self._fov_degrees = fov_degrees
        self._rate_hz = rate_hz
        self._answered: set[Key] = set()
        self._in_flight: list[Key] = []
        self._lost = 0
        self._lost_in_a_row = 0
        self._images = self.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._infos = self.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=5))
        self._answers = self.create_subscription(SkeletonArray, 'skeletons', self._take_answer, 10)

    def play(self, readers: int) -> int:
        """Publish everything once there are readers; return how many images that were."""
        self._wait_for(readers)
        start_s = time.monotonic()
        count = 0
        for count, image in enumerate(self._source, start=1):
            self._in_flight.append(self._publish(image))
            self._settle_accounts()
            if self._source.is_live:
                rclpy.spin_once(self, timeout_sec=0)
            elif self._rate_hz:
                self._spin_until(start_s + count / self._rate_hz)
            else:
                # The first alone: of two that come at once only the newest is worked on.
                self._await_answers(IN_FLIGHT - 1 if count > 1 else 0)
        self._await_answers(0)
        if self._lost and not self._rate_hz:
            print(f'camera: {self._lost} of {count} images got no answer', file=sys.stderr)
        # What was sent lives in this process's memory until the last reader has taken it.
        self._spin_until(time.monotonic() + SETTLING_S)
        return count

    def _publish(self, image: ImageArray) -> Key:
        if self._info is None:
            self._info = guess_calibration(self._fov_degrees, image.shape)
        message = Image()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = FRAME_ID
        message.height, message.width = image.shape[:2]
        message.step = 3 * message.width
        message.encoding = 'bgr8'
        message.data = array.array('B', image.tobytes())
        self._info.header = message.header
        self._images.publish(message)
        self._infos.publish(self._info)
        return _key(message.header.stamp)

    def _take_answer(self, message: SkeletonArray) -> None:
        self._answered.add(_key(message.header.stamp))

    def _wait_for(self, readers: int) -> None:
        deadline_s = time.monotonic() + READER_PATIENCE_S
        # The answers' readers are counted, too, lest the first answers find nobody listening.
        while (
            self._images.get_subscription_count() < readers
            or self.count_subscribers(self._answers.topic_name) < readers
            or not self._infos.get_subscription_count()
        ):
            if time.monotonic() > deadline_s:
                raise UnusableSource(f'nobody subscribed to the images in {READER_PATIENCE_S} s')
            rclpy.spin_once(self, timeout_sec=0.02)
        # What this node has discovered, the others may not have discovered of each other yet.
        self._spin_until(time.monotonic() + SETTLING_S)

    def _await_answers(self, at_most: int) -> None:
        """Wait until few images are without an answer; after a while, take them for lost."""
        deadline_s = time.monotonic() + ANSWER_PATIENCE_S
        while len(self._in_flight) > at_most:
            rclpy.spin_once(self, timeout_sec=0.02)
            self._settle_accounts()
            if time.monotonic() > deadline_s:
                self._lost += len(self._in_flight)
                self._lost_in_a_row += 1
                self._in_flight.clear()
        if self._lost_in_a_row == UNANSWERED:
            raise UnusableSource('the pose node does not answer; the log above says why')

    def _settle_accounts(self) -> None:
        """Strike out what was answered, and what came before it: answers come in order."""
        answered = [i for i, key in enumerate(self._in_flight) if key in self._answered]
        if answered:
            self._lost += answered[-1] + 1 - len(answered)
            self._lost_in_a_row = 0
            del self._in_flight[: answered[-1] + 1]
        self._answered.clear()

    def _spin_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left_s)


def _key(stamp: Time) -> Key:
    return stamp.sec, stamp.nanosec


def main(arguments: list[str] | None = None) -> int:
    """Play a source; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--input', required=True, help='video, folder, picture or /dev/video*')
    parser.add_argument('--calibration', help='a ROS calibration YAML')
    parser.add_argument('--fov', type=float, default=55.0, help='degrees, without calibration')
    parser.add_argument(
        '--rate', type=float, default=0.0, help='images a second; 0: as fast as they are worked on'
    )
    parser.add_argument(
        '--readers', type=int, default=1, help='how many subscribers of the images to wait for'
    )
    chosen = parser.parse_args(rclpy.utilities.remove_ros_args(arguments or sys.argv)[1:])
    with lifetime.ros():
        try:
            source = Source(chosen.input)
            camera = CameraNode(source, chosen.calibration, chosen.fov, chosen.rate)
            if not camera.play(chosen.readers):
                raise UnusableSource(f'{chosen.input} holds no images that can be read')
        except ValueError as error:
            print(f'camera: {error}', file=sys.stderr)
            return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
