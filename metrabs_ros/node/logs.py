"""What the half of the package that knows no ROS says, in the node's log."""

from __future__ import annotations

import logging
from typing import Any

SEVERITIES = ((logging.ERROR, 'error'), (logging.WARNING, 'warning'), (logging.INFO, 'info'))


class NodeLog(logging.Handler):
    """
    Passes records of Python's logging on.

    Parameters
    ----------
    logger
        The node's.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        name = next((name for level, name in SEVERITIES if record.levelno >= level), 'debug')
        getattr(self._logger, name)(record.getMessage())
