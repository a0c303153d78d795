"""Log records of the ROS-free part of the package, in the log of ROS."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import rclpy

import metrabs_ros
from metrabs_ros.foreign_text import printable

LONGEST_MESSAGE = 2000
"""Characters of a log message; longer ones are cut."""


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
