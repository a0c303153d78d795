"""How a ROS process begins and ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import rclpy
from rclpy.executors import ExternalShutdownException


@contextlib.contextmanager
def ros() -> Iterator[None]:
    """
    Initialise ROS, and end quietly when the process is told to end by SIGINT or SIGTERM.

    The signals invalidate everything of ROS at once, so whatever was being done may fail; such a
    failure is no error.
    """
    rclpy.init()
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()
