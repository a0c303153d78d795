"""A camera in a child process that publishes images over DDS."""

from __future__ import annotations

import array
import contextlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from metrabs_ros import demo
from metrabs_ros.arrays import ImageArray

os.environ.setdefault('ROS_DOMAIN_ID', '97')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
for _variable in demo.PROFILES_VARIABLES:
    os.environ.setdefault(_variable, str(demo.FASTDDS_PROFILES_FILE))

RATE_HZ = 30.0
FOCAL_LENGTH = 0.96
"""Focal length relative to the width of the images."""


@contextlib.contextmanager
def play_images(load: Callable[[], Sequence[ImageArray]], order: Sequence[int]) -> Iterator[None]:
    """
    Publish ``image`` and ``camera_info`` with a constant rate.

    Parameters
    ----------
    load
        Returns the images [H, W, 3], RGB.  It is called in the child process.
    order
        Indices of the images in the order of publication, which is repeated.
    """
    process = multiprocessing.get_context('spawn').Process(
        target=_play, args=[load, order], daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _play(load: Callable[[], Sequence[ImageArray]], order: Sequence[int]) -> None:
    # Without signal handlers, SIGTERM ends the process immediately.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('camera')
    images = node.create_publisher(Image, 'image', 5)
    infos = node.create_publisher(CameraInfo, 'camera_info', 5)
    loaded = load()
    height, width, _ = loaded[0].shape
    image = Image(height=height, width=width, step=3 * width, encoding='rgb8')
    image.header.frame_id = 'camera'
    info = CameraInfo(height=height, width=width, distortion_model='plumb_bob')
    focal_px = FOCAL_LENGTH * width
    info.k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, 1.0]
    data = [array.array('B', np.ascontiguousarray(pixels).tobytes()) for pixels in loaded]
    next_s = time.monotonic()
    for index in itertools.cycle(order):
        image.data = data[index]
        image.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        images.publish(image)
        infos.publish(info)
        next_s += 1 / RATE_HZ
        time.sleep(max(0.0, next_s - time.monotonic()))
