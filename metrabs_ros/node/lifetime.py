"""How a ROS process begins and ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

LONGEST_WAIT_S = 0.2


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


def spin(node: Node) -> None:
    """
    Spin a node until the process is told to end.

    At a signal, rclpy wakes those who wait an instant before it shuts down.  Who looks in between
    finds everything in order and waits again, so nobody may wait for long.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while rclpy.ok():
        executor.spin_once(timeout_sec=LONGEST_WAIT_S)


def leave(status: int) -> NoReturn:
    """
    End the process at once.

    A network in mid-work cannot be interrupted, and does not survive the interpreter's usual end;
    and that takes a second where torch is loaded.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
