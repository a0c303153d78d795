"""
Measure the overhead of the node in addition to the estimator.

A camera in another process publishes 1080p rgb8 images at 30 Hz over DDS.  The estimator is
replaced by a fixed result of five people.  The overhead is the time from the stamp of an image,
which is its publication, to the publication of the skeletons, without the time of the replaced
estimator.  The transport time to an empty subscriber is measured first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import camera
import machine
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time as RclpyTime
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from metrabs_ros.arrays import ImageArray
from metrabs_ros.node.frame_preparation import Frame
from metrabs_ros.node.pose_node import PoseNode
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.tracking.person_tracker import PersonTracker, Result
from metrabs_ros.tracking.timed_view import TimedView

FRAMES = 300
WARM_UP = 30
SHAPE = (1080, 1920, 3)
PEOPLE = 5


def black_image() -> list[ImageArray]:
    """Return the image of the camera."""
    return [np.zeros(SHAPE, np.uint8)]


class FixedTracker(PersonTracker):
    """Returns the same people for every image, after 10 ms."""

    def __init__(self, model: PoseEstimator) -> None:
        super().__init__(model)
        self.processing_s = 0.0
        rng = np.random.default_rng(0)
        poses_mm = rng.normal((0, 0, 4000), 300, size=(PEOPLE, 33, 3))
        self._people = People(
            BLAZEPOSE_33,
            np.full((PEOPLE, 4), 100.0),
            np.full(PEOPLE, 0.9),
            poses_mm,
            poses_mm[..., :2],
            np.full((PEOPLE, 33), 0.9),
            np.ones((PEOPLE, 33), bool),
            np.arange(PEOPLE),
        )

    def process_each(self, views: Sequence[TimedView]) -> list[Result]:
        """Return the people; see `PersonTracker`."""
        start_s = time.perf_counter()
        time.sleep(0.01)
        self.processing_s = time.perf_counter() - start_s
        return [Result(self._people) for _ in views]


class TimedNode(PoseNode):
    """The pose node with a fixed result instead of the estimator, and time measurement."""

    def __init__(self) -> None:
        super().__init__()
        self.overhead_ms: list[float] = []

    def _load(self) -> None:
        super()._load()
        self._tracker = FixedTracker(self._model)

    def _receive(self, frame: Frame) -> None:
        age = self.get_clock().now() - RclpyTime.from_msg(frame.image.header.stamp)
        self.statistics.latencies.add('stamp to callback', age.nanoseconds * 1e-9)
        super()._receive(frame)

    def _record_age(self, header: Header) -> None:
        age = self.get_clock().now() - RclpyTime.from_msg(header.stamp)
        self.overhead_ms.append(age.nanoseconds * 1e-6 - 1000 * self._tracker.processing_s)


def empty_subscriber_ages_ms() -> np.ndarray:
    """Return the age of images when a subscriber with an empty callback receives them."""
    node = rclpy.create_node('empty_subscriber')
    ages_ms: list[float] = []

    def receive(image: Image) -> None:
        age = node.get_clock().now() - RclpyTime.from_msg(image.header.stamp)
        ages_ms.append(age.nanoseconds * 1e-6)

    node.create_subscription(Image, 'image', receive, qos_profile_sensor_data)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while len(ages_ms) < WARM_UP + FRAMES:
        executor.spin_once(timeout_sec=0.1)
    node.destroy_node()
    return np.array(ages_ms[WARM_UP:])


def main() -> None:
    """Measure and print."""
    rclpy.init()
    with camera.play_images(black_image, [0]):
        empty_ms = empty_subscriber_ages_ms()
        node = TimedNode()
        node.trigger_configure()
        node.trigger_activate()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while len(node.overhead_ms) < WARM_UP + FRAMES:
            executor.spin_once(timeout_sec=0.1)
    overhead_ms = np.array(node.overhead_ms[WARM_UP:])
    print(machine.describe())
    print(
        'image stamp to publication without the estimator, 1080p rgb8 at 30 Hz, '
        f'{PEOPLE} people of 33 joints: median {np.median(overhead_ms):.1f} ms, 95th percentile '
        f'{np.percentile(overhead_ms, 95):.1f} ms over {len(overhead_ms)} frames; dropped: '
        f'{node.statistics.drops.counts()}'
    )
    print(
        f'    transport to an empty subscriber: median {np.median(empty_ms):.1f} ms, '
        f'95th percentile {np.percentile(empty_ms, 95):.1f} ms'
    )
    for stage, percentiles in node.statistics.latencies.percentiles().items():
        print(f'    {stage}: {percentiles}')
    node.stop()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
