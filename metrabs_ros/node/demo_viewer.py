"""Viewer node without a display: prints people, writes an annotated video and a top-view plot."""

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
from message_filters import Subscriber, TimeSynchronizer
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from metrabs_ros import drawing
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions.people import to_people
from metrabs_ros.demo import PLOT, VIDEO
from metrabs_ros.foreign_text import printable
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import process
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.guarded_node import GuardedNode
from metrabs_ros.node.image_conversion import to_rgb

QUEUE_SIZE = 30
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 10.0
POLL_PERIOD_S = 0.02
MAX_PATH_CHARS = 300
MAX_IMAGE_PIXELS = 50_000_000
MAX_PATHS, MAX_PATH_POINTS = 1000, 10_000
"""Maximum number of people in the top-view plot, and of points per person; the newest are kept."""


class ViewerNode(GuardedNode):
    """
    Draws the people of ``skeletons`` on the images of ``image``.

    Parameters
    ----------
    folder
        Folder of the output files ``annotated.mp4`` and ``birds_eye.png``.  They are written to a
        temporary folder within it and moved when they are complete.
    rate_hz
        Frame rate of the video.

    Raises
    ------
    OSError
        If the folder is not writable.
    """

    def __init__(self, folder: pathlib.Path, rate_hz: float) -> None:
        super().__init__('viewer')
        self._executor = GuardedExecutor()
        self._executor.add_node(self)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Existing files of these names may be links or may be in use, so they are not overwritten.
        self._temporary_folder = pathlib.Path(tempfile.mkdtemp(prefix='.unfinished-', dir=folder))
        self._rate_hz = rate_hz
        self._video: cv2.VideoWriter | None = None
        self._video_size = (0, 0)
        self._paths_mm: OrderedDict[int, deque[FloatArray]] = OrderedDict()
        self._frames = 0
        self._malformed = 0
        self._observations = 0
        self._first_s = self._last_s = self._reported_s = 0.0

    def view(self) -> None:
        """Process messages until ROS is shut down."""
        skeletons = Subscriber(self, SkeletonArray, 'skeletons', qos_profile=QUEUE_SIZE)
        # The camera starts when its images have a subscriber.  Skeletons that are published before
        # this node has discovered the pose node would not be received.
        while not skeletons.sub.get_publisher_count():
            self._executor.spin_once(timeout_sec=POLL_PERIOD_S)
        image = Subscriber(self, Image, 'image', qos_profile=QoSProfile(depth=QUEUE_SIZE))
        pairs = TimeSynchronizer([image, skeletons], QUEUE_SIZE)
        pairs.registerCallback(self._on_pair)
        process.spin(self, self._executor)

    def finish(self) -> int:
        """Complete the files and print the summary; return the exit status."""
        published = False
        if self._video is not None:
            self._video.release()
            published = self._publish(VIDEO)
            plot = drawing.draw_top_view(
                {person_id: list(path) for person_id, path in self._paths_mm.items()}
            )
            cv2.imwrite(str(self._temporary_folder / PLOT), plot)
            published &= self._publish(PLOT)
        # Files that could not be moved remain in the temporary folder.
        with contextlib.suppress(OSError):
            self._temporary_folder.rmdir()
        if self._malformed:
            print(f'viewer: {self._malformed} pairs of messages were malformed', file=sys.stderr)
        mean = self._observations / max(self._frames, 1)
        rate_hz = (self._frames - 1) / max(self._last_s - self._first_s, 1e-9)
        print(
            f'demo: {self._frames} frames, {mean:.1f} people per frame, '
            f'{max(rate_hz, 0):.1f} frames per second'
            f'{f", wrote {printable(self._folder / VIDEO, MAX_PATH_CHARS)}" if published else ""}'
            if self._frames
            else 'demo: no frames were processed',
            flush=True,
        )
        return 0 if self._observations and published else 1

    def _publish(self, name: str) -> bool:
        """Move a file to the output folder, replacing an existing file; return the success."""
        try:
            os.replace(self._temporary_folder / name, self._folder / name)
        except OSError as error:
            target = printable(self._folder / name, MAX_PATH_CHARS)
            print(f'viewer: {target} cannot be written: {error.strerror}', file=sys.stderr)
            return False
        return True

    def _on_pair(self, image: Image, message: SkeletonArray) -> None:
        try:
            people = to_people(message)
            people = people.select(people.finite())
            annotated = np.array(to_rgb(image, MAX_IMAGE_PIXELS)[..., ::-1], order='C')
            drawing.draw_people(annotated, people)
        except (ValueError, IndexError, TypeError, cv2.error) as error:
            self._malformed += 1
            self.get_logger().warning(
                f'an image or its skeletons are malformed: {printable(error, 200)}',
                throttle_duration_sec=LOG_PERIOD_S,
            )
            return
        now_s = time.monotonic()
        if not self._frames:
            self._first_s = now_s
            print('viewer: the first frame was received', flush=True)
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
            labels = [drawing.format_label(people, i) for i in range(len(people))]
            print(f'viewer: {"; ".join(labels) or "no people"}', flush=True)
        self._write(annotated)

    def _write(self, annotated: ImageArray) -> None:
        if self._video is None:
            height, width = annotated.shape[:2]
            self._video_size = width, height
            self._video = cv2.VideoWriter(
                str(self._temporary_folder / VIDEO),
                cv2.VideoWriter.fourcc(*'mp4v'),
                self._rate_hz,
                self._video_size,
            )
            if not self._video.isOpened():
                file = printable(self._temporary_folder / VIDEO, MAX_PATH_CHARS)
                self.get_logger().error(f'{file} cannot be written')
        # The images of a folder may have different sizes.  The writer skips those that differ.
        self._video.write(cv2.resize(annotated, self._video_size))


def main(arguments: list[str] | None = None) -> int:
    """Run the viewer; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--output', type=pathlib.Path, required=True, help='output folder')
    parser.add_argument('--rate', type=float, default=10.0, help='frame rate of the video')
    args = parser.parse_args(rclpy.utilities.remove_ros_args(arguments or sys.argv)[1:])
    status = 1
    with process.ros_context():
        try:
            viewer = ViewerNode(args.output, args.rate)
        except OSError as error:
            output = printable(args.output, MAX_PATH_CHARS)
            print(f'viewer: output {output} cannot be written: {error.strerror}', file=sys.stderr)
            return 1
        try:
            viewer.view()
        finally:
            status = viewer.finish()
    return status


if __name__ == '__main__':
    sys.exit(main())
