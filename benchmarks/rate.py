"""
Measure the frame rate of the node with BlazePose over DDS.

A camera in another process simulates a pan over a photograph and publishes 30 images per second.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import time

import camera
import cv2
import machine
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from metrabs_ros.arrays import ImageArray
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.pose_node import PoseNode

DATA = pathlib.Path(__file__).parents[1] / 'test' / 'data'
SCENES = {'office': (640, 480), 'street': (1920, 1080)}
PAN_PX, PAN_PERIOD_S = 40, 6.0
"""Amplitude and period of the pan."""
WARM_UP_S, MEASURED_S = 6.0, 20.0


def camera_images(name: str, size: tuple[int, int]) -> list[ImageArray]:
    """Return the images of the camera from the left to the right end of the pan."""
    photograph = cv2.cvtColor(cv2.imread(str(DATA / f'{name}.png')), cv2.COLOR_BGR2RGB)
    width, height = size
    photograph = cv2.resize(photograph, (width + PAN_PX, height))
    return [photograph[:, x : x + width] for x in range(PAN_PX)]


def oscillation() -> list[int]:
    """Return the image indices of one period of the pan."""
    turns = np.sin(np.linspace(0, 2 * np.pi, int(PAN_PERIOD_S * camera.RATE_HZ), endpoint=False))
    return ((PAN_PX - 1) * (0.5 + 0.5 * turns)).astype(int).tolist()


def measure(name: str, size: tuple[int, int]) -> None:
    """Measure with a photograph that is resized to `size`, and print the result."""
    node = PoseNode()
    received: list[tuple[float, int]] = []
    node.create_subscription(
        SkeletonArray,
        '~/skeletons',
        lambda message: received.append((time.monotonic(), len(message.skeletons))),
        10,
    )
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with camera.play_images(functools.partial(camera_images, name, size), oscillation()):
        while not received or received[-1][0] < received[0][0] + WARM_UP_S + MEASURED_S:
            executor.spin_once(timeout_sec=0.1)
    counts = [people for time_s, people in received if time_s > received[0][0] + WARM_UP_S]
    print(
        f'{name} at {size[0]} x {size[1]} and {camera.RATE_HZ:.0f} Hz: '
        f'{len(counts) / MEASURED_S:.1f} frames per second, {np.mean(counts):.2f} people per '
        'frame',
        flush=True,
    )
    for stage, percentiles in node.statistics.latencies.percentiles().items():
        print(f'    {stage}: {percentiles}')
    node.stop()
    node.destroy_node()


def main() -> None:
    """Measure and print."""
    print(machine.describe())
    rclpy.init()
    for name, size in SCENES.items():
        measure(name, size)
    rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
