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
from metrabs_ros.node.heartbeat import PoseNodeMonitor
from metrabs_ros.node.synchronisation import StampKey, stamp_key
from metrabs_ros.recordings.calibration import Calibration, read_calibration
from metrabs_ros.recordings.image_files import Source, UnusableSource

FRAME_ID = 'camera_optical_frame'
MAX_VIDEO_FRAMES_IN_FLIGHT = 2
FIRST_FRAME_LEAD_S = 0.05
SUBSCRIBER_TIMEOUT_S = 600.0
RESULT_TIMEOUT_S = 600.0
"""As long as the pose node's diagnostics come."""
DIAGNOSTICS_TIMEOUT_S = 60.0
STARTUP_REPORTS = 30
"""By then a pose node that can be configured has its publishers."""
LOG_PERIOD_S = 10.0
MAX_WAIT_S = 0.5
SETTLING_S = 0.5
MAX_UNANSWERED = 2


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
        self._executor = GuardedExecutor()
        self._executor.add_node(self)
        self._source = source
        self._info = (
            to_message(read_calibration(pathlib.Path(calibration))) if calibration else None
        )
        self._fov_degrees = fov_degrees
        self._rate_hz = rate_hz
        # Of a video, the next frame is on its way while the node works on one.  Pictures may be
        # few, so that each counts: they come one at a time, lest one gives way to a newer one.
        self._sent: deque[StampKey] = deque(
            maxlen=MAX_VIDEO_FRAMES_IN_FLIGHT if source.is_video else 1
        )
        self._newest_result: StampKey = (0, 0)
        self._results = 0
        self._consecutive_unanswered = 0
        self._images = self.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._infos = self.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=5))
        self._skeletons = self.create_subscription(
            SkeletonArray, 'skeletons', self._on_skeletons, 10
        )
        self._pose_node = PoseNodeMonitor(self)

    def play(self, readers: int) -> int:
        """Publish everything once there are readers; return how many images that were."""
        self._wait_for_subscribers(readers)
        start_s = time.monotonic()
        count = 0
        for count, image in enumerate(self._source, start=1):
            if self._source.is_live:
                self._executor.spin_once(timeout_sec=0)
                self._publish(image)
            elif self._rate_hz:
                self._spin_until(start_s + (count - 1) / self._rate_hz)
                self._publish(image)
            else:
                self._publish_after_result(image)
        if self._sent:
            self._wait_for_result(self._sent[-1])
        if self._results < count and not self._rate_hz:
            lost = count - self._results
            print(f'camera: {lost} of {count} images got no answer', file=sys.stderr)
        # The last image is in shared memory of this process until all readers have taken it.
        self._spin_until(time.monotonic() + SETTLING_S)
        return count

    def _publish_after_result(self, image: ImageArray) -> None:
        """Publish an image once the one before it is answered, or the pose node has none left."""
        if self._sent and not self._wait_for_result(self._sent[0]):
            self._consecutive_unanswered += 1
            if self._consecutive_unanswered == MAX_UNANSWERED:
                raise UnusableSource(self._no_result_reason())
        else:
            self._consecutive_unanswered = 0
        is_alone = not self._sent or self._newest_result >= self._sent[-1]
        self._publish(image)
        if is_alone:
            self._wait_for_result(self._sent[-1], FIRST_FRAME_LEAD_S)

    def _no_result_reason(self) -> str:
        cause = self._pose_node.newest_drop()
        if cause:
            return f'the pose node does not answer: it drops images ({printable(cause)})'
        if self._pose_node.silent_s > DIAGNOSTICS_TIMEOUT_S:
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
        self._sent.append(stamp_key(message.header.stamp))
        self._pose_node.expect_image()

    def _on_skeletons(self, message: SkeletonArray) -> None:
        self._newest_result = stamp_key(message.header.stamp)
        self._results += 1

    def _wait_for_subscribers(self, readers: int) -> None:
        start_s = logged_s = time.monotonic()
        # The answers' readers are counted, too, lest the first answers are lost to them.
        while (
            self._images.get_subscription_count() < readers
            or self.count_subscribers(self._skeletons.topic_name) < readers
            or not self._infos.get_subscription_count()
            or not (self._rate_hz or self._skeletons.get_publisher_count())
        ):
            now_s = time.monotonic()
            if (
                self._pose_node.count > STARTUP_REPORTS
                and not self._skeletons.get_publisher_count()
            ):
                raise UnusableSource('the pose node runs but is not configured; its log says why')
            if now_s - start_s > SUBSCRIBER_TIMEOUT_S:
                raise UnusableSource(
                    f'after {SUBSCRIBER_TIMEOUT_S:.0f} s there are no {readers} subscribers of the '
                    'images, one of them a pose node that answers'
                )
            if now_s - logged_s > LOG_PERIOD_S:
                logged_s = now_s
                print('camera: waiting for the nodes that read the images ...', flush=True)
            self._executor.spin_once(timeout_sec=0.02)
        # What this node has discovered, the others may not have discovered of each other yet.
        self._spin_until(time.monotonic() + SETTLING_S)

    def _wait_for_result(self, key: StampKey, timeout_s: float = RESULT_TIMEOUT_S) -> bool:
        """Wait for the answer to an image or a later one while it may come; tell if it came."""
        deadline_s = time.monotonic() + timeout_s
        while self._newest_result < key and (remaining_s := deadline_s - time.monotonic()) > 0:
            pose_node = self._pose_node
            if pose_node.has_finished() or pose_node.silent_s > DIAGNOSTICS_TIMEOUT_S:
                pose_node.expect_no_more()
                break
            self._executor.spin_once(timeout_sec=min(remaining_s, MAX_WAIT_S))
        return self._newest_result >= key

    def _spin_until(self, moment_s: float) -> None:
        while (remaining_s := moment_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining_s)


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
        with process.ros_context():
            camera = CameraNode(source, chosen.calibration, chosen.fov, chosen.rate)
            if not camera.play(chosen.readers):
                raise UnusableSource(f'{chosen.input} holds no images that can be read')
    except (ValueError, OSError) as error:
        print(f'camera: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
