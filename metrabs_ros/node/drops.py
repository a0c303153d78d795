"""Counting what could not be worked on, and saying why."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

LOG_PERIOD_S = 10.0


class Drops:
    """
    Counts dropped frames by cause, and logs each cause at most once in a while.

    Parameters
    ----------
    logger
        Where explanations go.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self._logged_s: dict[str, float] = {}
        self._since_logged: collections.Counter[str] = collections.Counter()

    def count(self, cause: str) -> None:
        """Count a frame that was dropped in the ordinary course of things."""
        with self._lock:
            self._counts[cause] += 1

    def explain(self, cause: str, explanation: str) -> None:
        """Count a dropped frame and say why, unless that was said a moment ago."""
        now_s = time.monotonic()
        with self._lock:
            self._counts[cause] += 1
            self._since_logged[cause] += 1
            if now_s - self._logged_s.get(cause, -LOG_PERIOD_S) < LOG_PERIOD_S:
                return
            frames = self._since_logged.pop(cause)
            self._logged_s[cause] = now_s
        dropped = 'a frame was dropped' if frames == 1 else f'{frames} frames were dropped'
        self._logger.warning(f'{dropped}: {explanation}')

    def counts(self) -> dict[str, int]:
        """Return how many frames were dropped so far, by cause."""
        with self._lock:
            return dict(self._counts)
