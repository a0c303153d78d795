"""Start, spin and end of a ROS process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node

from metrabs_ros import startup_signals
from metrabs_ros.foreign_text import printable
from metrabs_ros.node import log_forwarding

LONGEST_WAIT_S = 0.2
LONGEST_REASON = 500
"""Characters of a reason why ROS cannot be initialised."""


@contextlib.contextmanager
def ros() -> Iterator[None]:
    """
    Initialise ROS, and end quietly when the process is told to end by SIGINT or SIGTERM.

    The signals invalidate everything of ROS at once, so whatever was being done may fail; such a
    failure is not an error.

    Raises
    ------
    SystemExit
        If ROS cannot be initialised, for example because of wrong arguments; the reason is
        printed.
    """
    _initialise()
    try:
        with log_forwarding.package_records(get_logger('metrabs_ros')):
            yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
    finally:
        with _interrupts_ignored():
            rclpy.try_shutdown()


def _initialise() -> None:
    try:
        startup_signals.restore_defaults()
        rclpy.init()
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except Exception as error:
        reason = printable(' '.join(str(error).split()), LONGEST_REASON)
        kind = type(error).__name__
        print(f'ROS cannot be initialised: {kind}: {reason}', file=sys.stderr)
        raise SystemExit(1) from error


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore SIGINT: a second Ctrl-C must not interrupt the shutdown that the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def spin(node: Node, executor: Executor | None = None) -> None:
    """
    Spin a node until the process is told to end.

    At a signal, rclpy wakes those who wait an instant before it shuts down.  An executor that
    checks in between finds everything in order and waits again, so no wait may be long.

    Parameters
    ----------
    node
        The node to spin.
    executor
        The executor to use; one for this node alone by default.
    """
    executor = executor or SingleThreadedExecutor()
    executor.add_node(node)
    while rclpy.ok():
        executor.spin_once(timeout_sec=LONGEST_WAIT_S)


def leave(status: int) -> NoReturn:
    """
    End the process at once.

    A network that is running cannot be interrupted, and does not survive the interpreter's usual
    end; and that takes a second where torch is loaded.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
