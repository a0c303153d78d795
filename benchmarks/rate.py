"""
Measure how many frames a second the node makes with BlazePose, through DDS.

A camera in another process turns to and fro before a photograph and publishes what it sees at 30
frames a second.
"""

from __future__ import annotations

import array
import multiprocessing
import os
import pathlib
import sys
import time

os.environ.setdefault('ROS_DOMAIN_ID', '97')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

import cv2
import machine
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image

from metrabs_ros import demo
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.pose_node import PoseNode

DATA = pathlib.Path(__file__).parents[1] / 'test' / 'data'
SCENES = {'office': (640, 480), 'street': (1920, 1080)}
CAMERA_HZ = 30.0
SWAY_PX, SWAY_S = 40, 6.0
WARM_UP_S, MEASURED_S = 6.0, 20.0


def play(name: str, size: tuple[int, int]) -> None:
    """Publish images until the process is ended."""
    rclpy.init()
    node = rclpy.create_node('camera')
    images = node.create_publisher(Image, 'image', 5)
    infos = node.create_publisher(CameraInfo, 'camera_info', 5)
    photograph = cv2.cvtColor(cv2.imread(str(DATA / f'{name}.png')), cv2.COLOR_BGR2RGB)
    width, height = size
    photograph = cv2.resize(photograph, (width + SWAY_PX, height))
    views = [
        array.array('B', np.ascontiguousarray(photograph[:, x : x + width]).tobytes())
        for x in range(SWAY_PX)
    ]
    image = Image(height=height, width=width, step=3 * width, encoding='rgb8')
    image.header.frame_id = 'camera'
    info = CameraInfo(height=height, width=width, distortion_model='plumb_bob')
    focal_px = 0.96 * width
    info.k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, 1.0]
    start_s = next_s = time.monotonic()
    while True:
        turn = np.sin(2 * np.pi * (next_s - start_s) / SWAY_S)
        image.data = views[int((SWAY_PX - 1) * (0.5 + 0.5 * turn))]
        image.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        images.publish(image)
        infos.publish(info)
        next_s += 1 / CAMERA_HZ
        time.sleep(max(0.0, next_s - time.monotonic()))


def measure(name: str, size: tuple[int, int]) -> None:
    """Measure with a photograph shown at some size, and print."""
    camera = multiprocessing.get_context('spawn').Process(
        target=play, args=(name, size), daemon=True
    )
    camera.start()
    node = PoseNode()
    found: list[tuple[float, int]] = []
    node.create_subscription(
        SkeletonArray,
        '~/skeletons',
        lambda message: found.append((time.monotonic(), len(message.skeletons))),
        10,
    )
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not found or found[-1][0] < found[0][0] + WARM_UP_S + MEASURED_S:
        executor.spin_once(timeout_sec=0.1)
    camera.terminate()
    camera.join()
    counts = [people for at_s, people in found if at_s > found[0][0] + WARM_UP_S]
    print(
        f'{name} at {size[0]} x {size[1]} and {CAMERA_HZ:.0f} Hz: '
        f'{len(counts) / MEASURED_S:.1f} frames a second, {np.mean(counts):.2f} people a frame',
        flush=True,
    )
    for stage, percentiles in node.record.latencies.percentiles().items():
        print(f'    {stage}: {percentiles}')
    node.stop()
    node.destroy_node()


def main() -> None:
    """Measure and print."""
    for variable in demo.PROFILES_VARIABLES:
        os.environ.setdefault(variable, str(demo.LARGE_IMAGES))
    print(machine.describe())
    rclpy.init()
    for name, size in SCENES.items():
        measure(name, size)
    rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
