"""
Measure what the node itself costs, beside the estimator.

A camera in another process publishes 1080p rgb8 images at 30 Hz over DDS; in place of the
estimator five people are always there.  Measured is the time from the image's callback to the
last publication, less what the stand-in took.
"""

from __future__ import annotations

import array
import multiprocessing
import os
import sys
import time

os.environ.setdefault('ROS_DOMAIN_ID', '97')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

import machine
import numpy as np
import rclpy
from sensor_msgs.msg import CameraInfo, Image

from metrabs_ros import demo
from metrabs_ros.node.pose_node import PoseNode
from metrabs_ros.people import People
from metrabs_ros.skeleton import BLAZEPOSE_33

FRAMES = 300
WARM_UP = 30
SHAPE = (1080, 1920, 3)
PEOPLE = 5


def play(rate_hz: float) -> None:
    """Publish images until the process is ended."""
    rclpy.init()
    node = rclpy.create_node('camera')
    images = node.create_publisher(Image, 'image', 5)
    infos = node.create_publisher(CameraInfo, 'camera_info', 5)
    image = Image(height=SHAPE[0], width=SHAPE[1], step=3 * SHAPE[1], encoding='rgb8')
    image.data = array.array('B', bytes(SHAPE[0] * SHAPE[1] * 3))
    info = CameraInfo(height=SHAPE[0], width=SHAPE[1], distortion_model='plumb_bob')
    info.k = [1500.0, 0.0, 960.0, 0.0, 1500.0, 540.0, 0.0, 0.0, 1.0]
    while True:
        image.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        images.publish(image)
        infos.publish(info)
        time.sleep(1 / rate_hz)


class TimedNode(PoseNode):
    """The node, with a stand-in for the estimator, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.overhead_ms: list[float] = []
        self._received_s: dict[int, float] = {}
        self._estimator_s = 0.0
        rng = np.random.default_rng(0)
        poses_mm = rng.normal((0, 0, 4000), 300, size=(PEOPLE, 33, 3))
        people = People(
            BLAZEPOSE_33,
            np.full((PEOPLE, 4), 100.0),
            np.full(PEOPLE, 0.9),
            poses_mm,
            poses_mm[..., :2],
            np.full((PEOPLE, 33), 0.9),
            np.ones((PEOPLE, 33), bool),
            np.arange(PEOPLE),
        )

        def estimate(image: object, camera: object) -> People:
            start_s = time.perf_counter()
            time.sleep(0.01)
            self._estimator_s = time.perf_counter() - start_s
            return people

        self._find_people = estimate

    def _receive(self, image: Image, info: CameraInfo) -> None:
        self._received_s[id(image)] = time.perf_counter()
        super()._receive(image, info)

    def _work_on(self, frame: object) -> None:
        super()._work_on(frame)
        total_s = time.perf_counter() - self._received_s.pop(id(frame.image))
        self.overhead_ms.append(1000 * (total_s - self._estimator_s))


def main() -> None:
    """Measure and print."""
    for variable in demo.PROFILES_VARIABLES:
        os.environ.setdefault(variable, str(demo.LARGE_IMAGES))
    camera = multiprocessing.get_context('spawn').Process(target=play, args=(30.0,), daemon=True)
    camera.start()
    rclpy.init()
    node = TimedNode()
    while len(node.overhead_ms) < WARM_UP + FRAMES:
        rclpy.spin_once(node, timeout_sec=0.1)
    camera.terminate()
    overhead_ms = np.array(node.overhead_ms[WARM_UP:])
    print(machine.describe())
    print(
        f'node overhead, 1080p rgb8 at 30 Hz, {PEOPLE} people of 33 joints: median '
        f'{np.median(overhead_ms):.1f} ms, 95th percentile '
        f'{np.percentile(overhead_ms, 95):.1f} ms over {len(overhead_ms)} frames; dropped: '
        f'{node.drops.counts()}'
    )
    node.stop()
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
