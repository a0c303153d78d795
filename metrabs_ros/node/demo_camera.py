"""A camera made of a video, a folder of pictures, a picture, or a real device."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)

import argparse
import array
import pathlib
import sys
import time
from collections import deque

import rclpy.utilities
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from metrabs_ros.arrays import ImageArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import process
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.guarded_node import GuardedNode
from metrabs_ros.node.heartbeat import Heartbeat
from metrabs_ros.node.synchronisation import Key, key_of
from metrabs_ros.recordings.calibration import Calibration, read_calibration
from metrabs_ros.recordings.image_files import Source, UnusableSource

FRAME_ID = 'camera_optical_frame'
VIDEO_FRAMES_AT_ONCE = 2
HEAD_START_S = 0.05
READER_PATIENCE_S = 600.0
ANSWER_PATIENCE_S = 600.0
"""As long as the pose node's diagnostics come."""
SILENCE_PATIENCE_S = 60.0
STARTING_BEATS = 30
"""By then a pose node that can be configured has its publishers."""
WAITING_PERIOD_S = 10.0
LONGEST_WAIT_S = 0.5
SETTLING_S = 0.5
UNANSWERED = 2


def to_message(calibration: Calibration) -> CameraInfo:
    """Return the message that says what a calibration says."""
    return calibration.to_message(CameraInfo, RegionOfInterest, Header())


class CameraNode(GuardedNode):
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
        self._spinning = GuardedExecutor()
        self._spinning.add_node(self)
        self._source = source
        self._info = (
            to_message(read_calibration(pathlib.Path(calibration))) if calibration else None
        )
        self._fov_degrees = fov_degrees
        self._rate_hz = rate_hz
        # Of a video, the next frame is on its way while the node works on one.  Pictures may be
        # few, so that each counts: they come one at a time, lest one gives way to a newer one.
        self._sent: deque[Key] = deque(maxlen=VIDEO_FRAMES_AT_ONCE if source.is_video else 1)
        self._newest_answered: Key = (0, 0)
        self._answers = 0
        self._unanswered_in_a_row = 0
        self._images = self.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._infos = self.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=5))
        self._skeletons = self.create_subscription(
            SkeletonArray, 'skeletons', self._take_answer, 10
        )
        self._pose_node = Heartbeat(self)

    def play(self, readers: int) -> int:
        """Publish everything once there are readers; return how many images that were."""
        self._wait_for(readers)
        start_s = time.monotonic()
        count = 0
        for count, image in enumerate(self._source, start=1):
            if self._source.is_live:
                self._spinning.spin_once(timeout_sec=0)
                self._publish(image)
            elif self._rate_hz:
                self._spin_until(start_s + (count - 1) / self._rate_hz)
                self._publish(image)
            else:
                self._publish_when_there_is_room(image)
        if self._sent:
            self._await_answer_to(self._sent[-1])
        if self._answers < count and not self._rate_hz:
            lost = count - self._answers
            print(f'camera: {lost} of {count} images got no answer', file=sys.stderr)
        # The last image is in shared memory of this process until all readers have taken it.
        self._spin_until(time.monotonic() + SETTLING_S)
        return count

    def _publish_when_there_is_room(self, image: ImageArray) -> None:
        """Publish an image once the one before it is answered, or the pose node has none left."""
        if self._sent and not self._await_answer_to(self._sent[0]):
            self._unanswered_in_a_row += 1
            if self._unanswered_in_a_row == UNANSWERED:
                raise UnusableSource(self._why_unanswered())
        else:
            self._unanswered_in_a_row = 0
        is_alone = not self._sent or self._newest_answered >= self._sent[-1]
        self._publish(image)
        if is_alone:
            self._await_answer_to(self._sent[-1], HEAD_START_S)

    def _why_unanswered(self) -> str:
        cause = self._pose_node.newest_drop()
        if cause:
            return f'the pose node does not answer: it drops images ({printable(cause)})'
        if self._pose_node.silent_s > SILENCE_PATIENCE_S:
            return (
                f'the pose node does not answer, and its diagnostics have not come for '
                f'{self._pose_node.silent_s:.0f} s'
            )
        return 'the pose node does not answer; the log above says why'

    def _publish(self, image: ImageArray) -> None:
        if self._info is None:
            self._info = to_message(Calibration.guessed(self._fov_degrees, image.shape))
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
        self._sent.append(key_of(message.header.stamp))
        self._pose_node.expect_image()

    def _take_answer(self, message: SkeletonArray) -> None:
        self._newest_answered = key_of(message.header.stamp)
        self._answers += 1

    def _wait_for(self, readers: int) -> None:
        start_s = said_s = time.monotonic()
        # The answers' readers are counted, too, lest the first answers are lost to them.
        while (
            self._images.get_subscription_count() < readers
            or self.count_subscribers(self._skeletons.topic_name) < readers
            or not self._infos.get_subscription_count()
            or not (self._rate_hz or self._skeletons.get_publisher_count())
        ):
            now_s = time.monotonic()
            if (
                self._pose_node.count > STARTING_BEATS
                and not self._skeletons.get_publisher_count()
            ):
                raise UnusableSource('the pose node runs but is not configured; its log says why')
            if now_s - start_s > READER_PATIENCE_S:
                raise UnusableSource(
                    f'after {READER_PATIENCE_S:.0f} s there are no {readers} subscribers of the '
                    'images, one of them a pose node that answers'
                )
            if now_s - said_s > WAITING_PERIOD_S:
                said_s = now_s
                print('camera: waiting for the nodes that read the images ...', flush=True)
            self._spinning.spin_once(timeout_sec=0.02)
        # What this node has discovered, the others may not have discovered of each other yet.
        self._spin_until(time.monotonic() + SETTLING_S)

    def _await_answer_to(self, key: Key, patience_s: float = ANSWER_PATIENCE_S) -> bool:
        """Wait for the answer to an image or a later one while it may come; tell if it came."""
        deadline_s = time.monotonic() + patience_s
        while self._newest_answered < key and (left_s := deadline_s - time.monotonic()) > 0:
            pose_node = self._pose_node
            if pose_node.has_finished() or pose_node.silent_s > SILENCE_PATIENCE_S:
                pose_node.expect_no_more()
                break
            self._spinning.spin_once(timeout_sec=min(left_s, LONGEST_WAIT_S))
        return self._newest_answered >= key

    def _spin_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            self._spinning.spin_once(timeout_sec=left_s)


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
    try:
        # Before ROS is there, which would delay a signal until the source is opened.
        source = Source(chosen.input)
        with process.ros():
            camera = CameraNode(source, chosen.calibration, chosen.fov, chosen.rate)
            if not camera.play(chosen.readers):
                raise UnusableSource(f'{chosen.input} holds no images that can be read')
    except (ValueError, OSError) as error:
        print(f'camera: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
