"""
Measure how many frames a second the node makes with BlazePose, through DDS.

A camera in another process turns to and fro before a photograph and publishes what it sees at 30
frames a second.
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
SWAY_PX, SWAY_S = 40, 6.0
WARM_UP_S, MEASURED_S = 6.0, 20.0


def views(name: str, size: tuple[int, int]) -> list[ImageArray]:
    """Return what a camera sees from left to right in a photograph."""
    photograph = cv2.cvtColor(cv2.imread(str(DATA / f'{name}.png')), cv2.COLOR_BGR2RGB)
    width, height = size
    photograph = cv2.resize(photograph, (width + SWAY_PX, height))
    return [photograph[:, x : x + width] for x in range(SWAY_PX)]


def to_and_fro() -> list[int]:
    """Return which views are seen while the camera turns to and fro once."""
    turns = np.sin(np.linspace(0, 2 * np.pi, int(SWAY_S * camera.RATE_HZ), endpoint=False))
    return ((SWAY_PX - 1) * (0.5 + 0.5 * turns)).astype(int).tolist()


def measure(name: str, size: tuple[int, int]) -> None:
    """Measure with a photograph shown at some size, and print."""
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
    with camera.playing(functools.partial(views, name, size), to_and_fro()):
        while not found or found[-1][0] < found[0][0] + WARM_UP_S + MEASURED_S:
            executor.spin_once(timeout_sec=0.1)
    counts = [people for at_s, people in found if at_s > found[0][0] + WARM_UP_S]
    print(
        f'{name} at {size[0]} x {size[1]} and {camera.RATE_HZ:.0f} Hz: '
        f'{len(counts) / MEASURED_S:.1f} frames a second, {np.mean(counts):.2f} people a frame',
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
