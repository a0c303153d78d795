"""Camera node that publishes a video, a folder of images, an image or a video device."""

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

QUEUE_SIZE = 5
FRAME_ID = 'camera_optical_frame'
MAX_VIDEO_FRAMES_IN_FLIGHT = 2
FIRST_FRAME_LEAD_S = 0.05
"""Maximum delay before the next image if no other image is in flight, in seconds."""
SUBSCRIBER_TIMEOUT_S = 600.0
"""Timeout for the required number of subscribers, in seconds."""
RESULT_TIMEOUT_S = 600.0
"""Timeout for the skeletons of an image while the pose node publishes diagnostics, in seconds."""
DIAGNOSTICS_TIMEOUT_S = 60.0
"""Timeout for diagnostics of the pose node, in seconds."""
STARTUP_REPORTS = 30
"""Number of diagnostics after which a pose node without publishers is not configured."""
LOG_PERIOD_S = 10.0
MAX_WAIT_S = 0.5
"""Maximum time between two checks of the diagnostics, in seconds."""
DISCOVERY_S = 0.5
"""Additional time for the discovery of nodes and the delivery of the last image, in seconds."""
MAX_UNANSWERED = 2
"""Number of consecutive images without skeletons after which the node gives up."""


def to_message(calibration: Calibration) -> CameraInfo:
    """Convert a calibration to a CameraInfo message."""
    return calibration.to_message(CameraInfo, RegionOfInterest, Header())


class CameraNode(GuardedNode):
    """
    Publishes ``image`` and ``camera_info``.

    Parameters
    ----------
    source
        Source of the images.
    calibration
        Path of a calibration file; None to assume a field of view.
    fov_degrees
        Assumed field of view without a calibration file, in degrees.
    rate_hz
        Images per second; 0: as fast as the pose node publishes ``skeletons``.
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
        # With a video, the next frame is sent while the pose node processes the previous one.
        # Single images are sent one by one, so that none is replaced by a newer one.
        self._sent: deque[StampKey] = deque(
            maxlen=MAX_VIDEO_FRAMES_IN_FLIGHT if source.is_video else 1
        )
        self._newest_result: StampKey = (0, 0)
        self._results = 0
        self._consecutive_unanswered = 0
        self._images = self.create_publisher(Image, 'image', QoSProfile(depth=QUEUE_SIZE))
        self._infos = self.create_publisher(
            CameraInfo, 'camera_info', QoSProfile(depth=QUEUE_SIZE)
        )
        self._skeletons = self.create_subscription(
            SkeletonArray, 'skeletons', self._on_skeletons, 10
        )
        self._monitor = PoseNodeMonitor(self)

    def play(self, readers: int) -> int:
        """Publish all images after the subscribers are connected; return the number of images."""
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
            missing = count - self._results
            print(
                f'camera: no skeletons received for {missing} of {count} images', file=sys.stderr
            )
        # The last image is in shared memory of this process until all subscribers have read it.
        self._spin_until(time.monotonic() + DISCOVERY_S)
        return count

    def _publish_after_result(self, image: ImageArray) -> None:
        """Publish an image after the skeletons of the previous one, or a timeout."""
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
        cause = self._monitor.newest_drop()
        if cause:
            return f'the pose node publishes no skeletons: it drops images ({printable(cause)})'
        if self._monitor.silent_s > DIAGNOSTICS_TIMEOUT_S:
            return (
                'the pose node publishes no skeletons, and no diagnostics were received for '
                f'{self._monitor.silent_s:.0f} s'
            )
        return 'the pose node publishes no skeletons; see its log messages above'

    def _publish(self, image: ImageArray) -> None:
        info = self._info
        if info is None:
            # The images of a folder may have different sizes.
            info = to_message(Calibration.from_fov(self._fov_degrees, image.shape))
        message = Image()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = FRAME_ID
        message.height, message.width = image.shape[:2]
        message.step = 3 * message.width
        message.encoding = 'bgr8'
        message.data = array.array('B', image.tobytes())
        info.header = message.header
        self._images.publish(message)
        self._infos.publish(info)
        self._sent.append(stamp_key(message.header.stamp))
        self._monitor.expect_image()

    def _on_skeletons(self, message: SkeletonArray) -> None:
        self._newest_result = stamp_key(message.header.stamp)
        self._results += 1

    def _wait_for_subscribers(self, readers: int) -> None:
        start_s = logged_s = time.monotonic()
        # Subscribers of the skeletons are counted as well, so that they receive the first ones.
        while (
            self._images.get_subscription_count() < readers
            or self.count_subscribers(self._skeletons.topic_name) < readers
            or not self._infos.get_subscription_count()
            or not (self._rate_hz or self._skeletons.get_publisher_count())
        ):
            now_s = time.monotonic()
            if self._monitor.count > STARTUP_REPORTS and not self._skeletons.get_publisher_count():
                raise UnusableSource(
                    'the pose node is running but not configured; see its log messages'
                )
            if now_s - start_s > SUBSCRIBER_TIMEOUT_S:
                raise UnusableSource(
                    f'there are fewer than {readers} subscribers of the images, or no pose node, '
                    f'after {SUBSCRIBER_TIMEOUT_S:.0f} s'
                )
            if now_s - logged_s > LOG_PERIOD_S:
                logged_s = now_s
                print('camera: waiting for subscribers of the images ...', flush=True)
            self._executor.spin_once(timeout_sec=0.02)
        # The other nodes may not have discovered each other yet.
        self._spin_until(time.monotonic() + DISCOVERY_S)

    def _wait_for_result(self, key: StampKey, timeout_s: float = RESULT_TIMEOUT_S) -> bool:
        """Wait for the skeletons of an image or a later one; return whether they were received."""
        deadline_s = time.monotonic() + timeout_s
        while self._newest_result < key and (remaining_s := deadline_s - time.monotonic()) > 0:
            monitor = self._monitor
            if monitor.has_finished() or monitor.silent_s > DIAGNOSTICS_TIMEOUT_S:
                monitor.expect_no_more()
                break
            self._executor.spin_once(timeout_sec=min(remaining_s, MAX_WAIT_S))
        return self._newest_result >= key

    def _spin_until(self, deadline_s: float) -> None:
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining_s)


def main(arguments: list[str] | None = None) -> int:
    """Publish the images of a source; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--input', required=True, help='video, folder, image or /dev/video*')
    parser.add_argument('--calibration', help='calibration file in the YAML format of ROS')
    parser.add_argument(
        '--fov', type=float, default=55.0, help='field of view in degrees without calibration'
    )
    parser.add_argument(
        '--rate', type=float, default=0.0, help='images per second; 0: as fast as processed'
    )
    parser.add_argument(
        '--readers', type=int, default=1, help='number of subscribers of the images to wait for'
    )
    args = parser.parse_args(rclpy.utilities.remove_ros_args(arguments or sys.argv)[1:])
    try:
        # Opened before ROS is initialised, because its signal handlers would delay a signal.
        source = Source(args.input)
        with process.ros_context():
            camera = CameraNode(source, args.calibration, args.fov, args.rate)
            if not camera.play(args.readers):
                raise UnusableSource(f'{args.input} contains no readable images')
    except (ValueError, OSError) as error:
        print(f'camera: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
