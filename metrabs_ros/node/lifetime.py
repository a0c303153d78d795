"""How a ROS process begins and ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

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


def leave(status: int) -> NoReturn:
    """
    End the process at once.

    A network in mid-work cannot be interrupted, and does not survive the interpreter's usual end;
    and that takes a second where torch is loaded.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
