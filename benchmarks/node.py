"""
Measure what the node itself costs, beside the estimator.

A camera in another process publishes 1080p rgb8 images at 30 Hz over DDS; in place of the
estimator five people are always there.  Measured is the time from the image's stamp, which is when
it was published, to the publication of the skeletons, less what the stand-in took; and first, how
much of it passes before even a subscriber that does nothing has the image.
"""

from __future__ import annotations

import sys
import time

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
from metrabs_ros.node.camera_stream import Frame, PreparedFrame
from metrabs_ros.node.pose_node import PoseNode
from metrabs_ros.node.settings import Settings
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

FRAMES = 300
WARM_UP = 30
SHAPE = (1080, 1920, 3)
PEOPLE = 5


def black() -> list[ImageArray]:
    """Return the only picture that the camera shows."""
    return [np.zeros(SHAPE, np.uint8)]


class TimedNode(PoseNode):
    """The node, with a stand-in for the estimator, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.overhead_ms: list[float] = []
        self._estimator_s = 0.0
        rng = np.random.default_rng(0)
        poses_mm = rng.normal((0, 0, 4000), 300, size=(PEOPLE, 33, 3))
        self._standing = People(
            BLAZEPOSE_33,
            np.full((PEOPLE, 4), 100.0),
            np.full(PEOPLE, 0.9),
            poses_mm,
            poses_mm[..., :2],
            np.full((PEOPLE, 33), 0.9),
            np.ones((PEOPLE, 33), bool),
            np.arange(PEOPLE),
        )

    def _people(self, looks: list[PreparedFrame], current: Settings) -> list[People]:
        start_s = time.perf_counter()
        time.sleep(0.01)
        self._estimator_s = time.perf_counter() - start_s
        return [self._standing]

    def _receive(self, frame: Frame) -> None:
        age = self.get_clock().now() - RclpyTime.from_msg(frame.image.header.stamp)
        self.statistics.latencies.add('stamp to callback', age.nanoseconds * 1e-9)
        super()._receive(frame)

    def _record_age(self, header: Header) -> None:
        age = self.get_clock().now() - RclpyTime.from_msg(header.stamp)
        self.overhead_ms.append(age.nanoseconds * 1e-6 - 1000 * self._estimator_s)


def bare_subscriber_ages_ms() -> np.ndarray:
    """Return how old images are when a subscriber that does nothing gets them."""
    node = rclpy.create_node('bare_subscriber')
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
    with camera.playing(black, [0]):
        bare_ms = bare_subscriber_ages_ms()
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
        'image stamp to publish less the estimator, 1080p rgb8 at 30 Hz, '
        f'{PEOPLE} people of 33 joints: median {np.median(overhead_ms):.1f} ms, 95th percentile '
        f'{np.percentile(overhead_ms, 95):.1f} ms over {len(overhead_ms)} frames; dropped: '
        f'{node.statistics.drops.counts()}'
    )
    print(
        f'    of these, to a subscriber that does nothing: median {np.median(bare_ms):.1f} ms, '
        f'95th percentile {np.percentile(bare_ms, 95):.1f} ms'
    )
    for stage, percentiles in node.statistics.latencies.percentiles().items():
        print(f'    {stage}: {percentiles}')
    node.stop()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
