"""Start, spin and end of a ROS process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node

import metrabs_ros
from metrabs_ros import startup_signals
from metrabs_ros.foreign_text import printable

LONGEST_WAIT_S = 0.2
LONGEST_REASON = 500
"""Characters of a reason why ROS cannot be initialised."""
LONGEST_MESSAGE = 2000
"""Characters of a log message; longer ones are cut."""


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
        with package_records(get_logger('metrabs_ros')):
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


class NodeLog(logging.Handler):
    """
    Passes records of Python's logging on to a ROS logger.

    A record that cannot be logged is dropped: a failing log call must not change what its caller
    does.

    Parameters
    ----------
    logger
        The ROS logger.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        with contextlib.suppress(Exception):
            self._log(record.levelno, message_of(record))

    def _log(self, level: int, message: str) -> None:
        # rclpy allows one severity for each line of source code that logs.
        if level >= logging.CRITICAL:
            self._logger.fatal(message)
        elif level >= logging.ERROR:
            self._logger.error(message)
        elif level >= logging.WARNING:
            self._logger.warning(message)
        elif level >= logging.INFO:
            self._logger.info(message)
        else:
            self._logger.debug(message)


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message on one line, with the exception that belongs to it."""
    try:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            message = f'{message}: {type(error).__name__}: {error}'
    except Exception as error:
        # The arguments do not fit the format, or cannot be shown.
        message = (
            f'{record.msg!r} with arguments of {record.pathname}:{record.lineno} that cannot be '
            f'shown ({type(error).__name__})'
        )
    return printable(message, LONGEST_MESSAGE)


@contextlib.contextmanager
def package_records(logger: Any) -> Iterator[None]:
    """
    Send the log records of the package to a ROS logger, and nowhere else.

    Within another such context, this one takes its place until it ends.

    Parameters
    ----------
    logger
        The ROS logger.
    """
    package_log = logging.getLogger(metrabs_ros.__name__)
    before = package_log.handlers[:], package_log.level, package_log.propagate
    # Without propagation: handlers that other libraries gave the root logger would print the
    # records once more, in another format.
    package_log.handlers[:], package_log.propagate = [NodeLog(logger)], False
    # After the shutdown ROS cannot publish log messages, and complains about each of them.
    package_log.handlers[0].addFilter(lambda record: rclpy.ok())
    package_log.setLevel(logging.INFO)
    try:
        yield
    finally:
        package_log.handlers[:], level, package_log.propagate = before
        package_log.setLevel(level)
