"""Processes end when they are told to, whatever they are waiting for."""

from __future__ import annotations

import contextlib
import threading
import time

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from metrabs_ros.node import process


def test_a_node_ends_though_it_was_woken_before_the_shutdown():
    rclpy.init()
    node = Node('waiting')

    def spin():
        with contextlib.suppress(ExternalShutdownException):
            process.spin(node)

    spinning = threading.Thread(target=spin, daemon=True)
    spinning.start()
    try:
        time.sleep(0.5)
        # As at a signal, without the wake that comes before.
        rclpy.get_default_context().handle.shutdown()
        spinning.join(120)
        assert not spinning.is_alive()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
