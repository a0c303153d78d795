"""A viewer that needs no screen: a line a second, an annotated video, a plot from above."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections import OrderedDict, deque

import cv2
import numpy as np
import rclpy.utilities
from cv_bridge import CvBridge, CvBridgeError
from message_filters import Subscriber, TimeSynchronizer
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from metrabs_ros import drawing
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions.people import to_people
from metrabs_ros.demo import PLOT, VIDEO
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import process
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.guarded_node import GuardedNode

QUEUE_SIZE = 30
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 10.0
POLL_PERIOD_S = 0.02
MAX_PATH_CHARS = 300
MAX_IMAGE_PIXELS = 50_000_000
MAX_PATHS, MAX_PATH_POINTS = 1000, 10_000
"""Of people from above; the oldest are forgotten."""


class ViewerNode(GuardedNode):
    """
    Shows the people on ``skeletons`` on the images on ``image``.

    Parameters
    ----------
    folder
        Where ``annotated.mp4`` and ``birds_eye.png`` go once they are complete.  Until then
        they are in a new folder within it.
    rate_hz
        The video's frame rate.

    Raises
    ------
    OSError
        If nothing can be written to the folder.
    """

    def __init__(self, folder: pathlib.Path, rate_hz: float) -> None:
        super().__init__('viewer')
        self._executor = GuardedExecutor()
        self._executor.add_node(self)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Not under their names: those may be links to other files, or files that are being read.
        self._temporary_folder = pathlib.Path(tempfile.mkdtemp(prefix='.unfinished-', dir=folder))
        self._rate_hz = rate_hz
        self._bridge = CvBridge()
        self._video: cv2.VideoWriter | None = None
        self._paths_mm: OrderedDict[int, deque[FloatArray]] = OrderedDict()
        self._frames = 0
        self._malformed = 0
        self._observations = 0
        self._first_s = self._last_s = self._reported_s = 0.0

    def view(self) -> None:
        """Show what is published until a signal comes."""
        skeletons = Subscriber(self, SkeletonArray, 'skeletons', qos_profile=QUEUE_SIZE)
        # The camera begins when its images are subscribed to.  The pose node may be discovered
        # seconds later than the camera, and until then its skeletons would be lost.
        while not skeletons.sub.get_publisher_count():
            self._executor.spin_once(timeout_sec=POLL_PERIOD_S)
        image = Subscriber(self, Image, 'image', qos_profile=QoSProfile(depth=QUEUE_SIZE))
        pairs = TimeSynchronizer([image, skeletons], QUEUE_SIZE)
        pairs.registerCallback(self._show)
        process.spin(self, self._executor)

    def finish(self) -> int:
        """Complete the files, print the summary, and return the exit status."""
        published = False
        if self._video is not None:
            self._video.release()
            published = self._publish(VIDEO)
            plot = drawing.draw_from_above(
                {person_id: list(path) for person_id, path in self._paths_mm.items()}
            )
            cv2.imwrite(str(self._temporary_folder / PLOT), plot)
            published &= self._publish(PLOT)
        # What could not be moved stays there.
        with contextlib.suppress(OSError):
            self._temporary_folder.rmdir()
        if self._malformed:
            print(f'viewer: {self._malformed} pairs of messages were malformed', file=sys.stderr)
        mean = self._observations / max(self._frames, 1)
        rate_hz = (self._frames - 1) / max(self._last_s - self._first_s, 1e-9)
        print(
            f'demo: {self._frames} frames, {mean:.1f} people a frame, '
            f'{max(rate_hz, 0):.1f} frames a second'
            f'{f", wrote {printable(self._folder / VIDEO, MAX_PATH_CHARS)}" if published else ""}'
            if self._frames
            else 'demo: no frames were worked on',
            flush=True,
        )
        return 0 if self._observations and published else 1

    def _publish(self, name: str) -> bool:
        """Move a complete file to the folder, in place of an earlier one; tell if that worked."""
        try:
            os.replace(self._temporary_folder / name, self._folder / name)
        except OSError as error:
            target = printable(self._folder / name, MAX_PATH_CHARS)
            print(f'viewer: {target} cannot be written: {error.strerror}', file=sys.stderr)
            return False
        return True

    def _show(self, image: Image, message: SkeletonArray) -> None:
        try:
            people = to_people(message)
            people = people.select(people.finite())
            check_image_size(image.width, image.height, MAX_IMAGE_PIXELS)
            picture = np.array(self._bridge.imgmsg_to_cv2(image, 'bgr8'))
            drawing.draw_people(picture, people)
        except (ValueError, IndexError, TypeError, CvBridgeError, cv2.error) as error:
            self._malformed += 1
            self.get_logger().warning(
                f'an image or its skeletons are malformed: {printable(error, 200)}',
                throttle_duration_sec=LOG_PERIOD_S,
            )
            return
        now_s = time.monotonic()
        if not self._frames:
            self._first_s = now_s
            print('viewer: the first frame is there', flush=True)
        self._frames += 1
        self._last_s = now_s
        self._observations += len(people)
        for person_id, position_mm in zip(people.ids.tolist(), people.positions_mm):
            path = self._paths_mm.setdefault(person_id, deque(maxlen=MAX_PATH_POINTS))
            path.append(position_mm)
        while len(self._paths_mm) > MAX_PATHS:
            self._paths_mm.popitem(last=False)
        if now_s - self._reported_s >= REPORT_PERIOD_S:
            self._reported_s = now_s
            labels = [drawing.describe(people, i) for i in range(len(people))]
            print(f'viewer: {"; ".join(labels) or "nobody"}', flush=True)
        self._write(picture)

    def _write(self, picture: ImageArray) -> None:
        if self._video is None:
            height, width = picture.shape[:2]
            self._video = cv2.VideoWriter(
                str(self._temporary_folder / VIDEO),
                cv2.VideoWriter.fourcc(*'mp4v'),
                self._rate_hz,
                (width, height),
            )
            if not self._video.isOpened():
                file = printable(self._temporary_folder / VIDEO, MAX_PATH_CHARS)
                self.get_logger().error(f'{file} cannot be written')
        self._video.write(picture)


def main(arguments: list[str] | None = None) -> int:
    """View until a signal comes; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--output', type=pathlib.Path, required=True, help='folder')
    parser.add_argument('--rate', type=float, default=10.0, help="the video's frame rate")
    chosen = parser.parse_args(rclpy.utilities.remove_ros_args(arguments or sys.argv)[1:])
    status = 1
    with process.ros_context():
        try:
            viewer = ViewerNode(chosen.output, chosen.rate)
        except OSError as error:
            output = printable(chosen.output, MAX_PATH_CHARS)
            print(f'viewer: output {output} cannot be written: {error.strerror}', file=sys.stderr)
            return 1
        try:
            viewer.view()
        finally:
            status = viewer.finish()
    return status


if __name__ == '__main__':
    sys.exit(main())
