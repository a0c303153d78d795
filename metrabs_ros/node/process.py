"""Initialisation, spinning, logging and exit of a ROS process."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
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
from metrabs_ros.node.watchdog import STDERR

MAX_WAIT_S = 0.2
"""Maximum time of one wait of the executor, see `spin`."""
EXIT_TIMEOUT_S = 20.0
"""Maximum time to free the nodes at the exit; then the process ends with status 1."""
MAX_REASON_CHARS = 500
"""Maximum length of the error message if ROS cannot be initialised, in characters."""
MAX_MESSAGE_CHARS = 2000
"""Maximum length of a log message, in characters; longer messages are truncated."""


@contextlib.contextmanager
def ros_context() -> Iterator[None]:
    """
    Initialise ROS and shut it down; exit without an error on SIGINT or SIGTERM.

    The signals invalidate the ROS context immediately.  Exceptions that this causes in running
    code are suppressed.

    Raises
    ------
    SystemExit
        If ROS cannot be initialised, for example because of invalid arguments.  The reason is
        printed to stderr.
    """
    _initialise()
    try:
        with forward_package_logs(get_logger('metrabs_ros')):
            yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
    finally:
        with _ignore_sigint():
            rclpy.try_shutdown()


def _initialise() -> None:
    try:
        startup_signals.restore_defaults()
        rclpy.init()
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except Exception as error:
        reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
        kind = type(error).__name__
        print(f'ROS cannot be initialised: {kind}: {reason}', file=sys.stderr)
        raise SystemExit(1) from error


@contextlib.contextmanager
def _ignore_sigint() -> Iterator[None]:
    """Ignore SIGINT, so that a second Ctrl-C does not interrupt the shutdown."""
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
    Spin a node until ROS is shut down.

    On a signal, rclpy wakes waiting executors shortly before it invalidates the context.  An
    executor that checks the context in between starts another wait, so each wait is limited to
    `MAX_WAIT_S`.

    Parameters
    ----------
    node
        Node to spin.
    executor
        Executor to use; a new single-threaded executor by default.
    """
    executor = executor or SingleThreadedExecutor()
    executor.add_node(node)
    while rclpy.ok():
        executor.spin_once(timeout_sec=MAX_WAIT_S)


def exit_process(status: int) -> NoReturn:
    """
    Free the nodes and end the process, without finalising the interpreter.

    A running network cannot be interrupted and crashes during finalisation.  Finalisation also
    takes about one second if torch is loaded.
    """
    with _ignore_sigint():
        sys.stdout.flush()
        sys.stderr.flush()
        # DDS can block with the interpreter locked, see `interpreter_watchdog`.
        faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True, file=STDERR)
        # Lifecycle nodes are part of reference cycles.  DDS removes its shared memory, up to 22 MB
        # per process, when they are freed; otherwise it would remain until the next boot.
        gc.collect()
        os._exit(status)


class RosLogHandler(logging.Handler):
    """
    Handler that forwards records of Python logging to a ROS logger.

    A record that cannot be logged is dropped, so that a failing log call does not affect its
    caller.

    Parameters
    ----------
    logger
        ROS logger.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record to the ROS logger."""
        with contextlib.suppress(Exception):
            self._log(record.levelno, format_record(record))

    def _log(self, level: int, message: str) -> None:
        # rclpy raises an exception if one source line logs with different severities.
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


def format_record(record: logging.LogRecord) -> str:
    """Return the message of a record and its exception on one line."""
    try:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            message = f'{message}: {type(error).__name__}: {error}'
    except Exception as error:
        # The arguments do not match the format string, or their `__str__` fails.
        message = (
            f'{record.msg!r}: the arguments of {record.pathname}:{record.lineno} cannot be '
            f'formatted ({type(error).__name__})'
        )
    return printable(message, MAX_MESSAGE_CHARS)


@contextlib.contextmanager
def forward_package_logs(logger: Any) -> Iterator[None]:
    """
    Send the log records of the package to a ROS logger only.

    Contexts can be nested; the innermost one is active.

    Parameters
    ----------
    logger
        ROS logger.
    """
    package_log = logging.getLogger(metrabs_ros.__name__)
    before = package_log.handlers[:], package_log.level, package_log.propagate
    # Without this, handlers that other libraries add to the root logger would print the records a
    # second time, in another format.
    package_log.handlers[:], package_log.propagate = [RosLogHandler(logger)], False
    # After the shutdown, ROS cannot publish log messages and prints an error for each of them.
    package_log.handlers[0].addFilter(lambda record: rclpy.ok())
    package_log.setLevel(logging.INFO)
    try:
        yield
    finally:
        package_log.handlers[:], level, package_log.propagate = before
        package_log.setLevel(level)
