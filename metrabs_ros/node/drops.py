"""Counters of frames that are dropped or processed with a fallback, by cause."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterable
from typing import Any, ClassVar

from metrabs_ros.foreign_text import printable

LOG_PERIOD_S = 10.0
"""Minimum time between two log messages of one cause, in seconds."""
MAX_CAUSES = 32
"""
Maximum number of causes, more than the node uses.

Each cause is a key of the diagnostics and one log message per `LOG_PERIOD_S`.
"""
MAX_CAUSE_CHARS = 60
MAX_EXPLANATION_CHARS = 600
OTHER = 'other'

NEWER_FRAME = 'newer frame'
DISABLED = 'disabled'
DEACTIVATED = 'deactivated'
FAILED = 'failed'
BATCH_FAILED = 'batch of cameras failed'
NO_TRANSFORM = 'no transform'


class CauseCounter:
    """
    Counts frames by cause and logs each cause at most once per `LOG_PERIOD_S`.

    The number of causes and the length of texts are limited for any input.

    Parameters
    ----------
    logger
        ROS logger of the explanations.
    """

    ONE_FRAME: ClassVar[str]
    SEVERAL_FRAMES: ClassVar[str]

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._causes: set[str] = set()
        self._explanations: dict[str, str] = {}
        self._logged_s: dict[str, float] = {}
        self._since_logged: collections.Counter[str] = collections.Counter()

    def count(self, cause: str, camera: str = '') -> None:
        """Count a frame of a camera without logging, for causes of normal operation."""
        with self._lock:
            self._add(cause, camera)

    def report(self, cause: str, explanation: str, camera: str = '') -> None:
        """Count a frame of a camera, and log the explanation unless logged recently."""
        explanation = printable(explanation, MAX_EXPLANATION_CHARS)
        now_s = time.monotonic()
        with self._lock:
            cause = self._add(cause, camera)
            self._explanations[cause] = explanation
            self._since_logged[cause] += 1
            if now_s - self._logged_s.get(cause, -LOG_PERIOD_S) < LOG_PERIOD_S:
                return
            frames = self._since_logged.pop(cause)
            self._logged_s[cause] = now_s
        what = self.ONE_FRAME if frames == 1 else self.SEVERAL_FRAMES.format(frames)
        source = f' (camera {camera})' if camera else ''
        self._logger.warning(f'{what}{source}: {explanation}')

    def counts(self) -> dict[str, int]:
        """Return the number of frames by cause."""
        return sum_by_name((cause, count) for (cause, _), count in self.counts_by_camera().items())

    def counts_by_camera(self) -> dict[tuple[str, str], int]:
        """Return the number of frames by (cause, camera)."""
        with self._lock:
            return dict(self._counts)

    def explanations(self) -> dict[str, str]:
        """Return the latest explanation by cause."""
        with self._lock:
            return dict(self._explanations)

    def _add(self, cause: str, camera: str) -> str:
        """Count a frame, and return the cause under which it is counted."""
        cause = printable(cause, MAX_CAUSE_CHARS)
        # One entry is reserved for `OTHER`.
        if cause not in self._causes and len(self._causes) >= MAX_CAUSES - 1:
            cause = OTHER
        self._causes.add(cause)
        self._counts[cause, camera] += 1
        return cause


class Drops(CauseCounter):
    """Counts dropped frames."""

    ONE_FRAME = 'a frame was dropped'
    SEVERAL_FRAMES = '{} frames were dropped'


class Fallbacks(CauseCounter):
    """Counts frames that were processed without a configured input, such as a transform."""

    ONE_FRAME = 'a frame was processed with a fallback'
    SEVERAL_FRAMES = '{} frames were processed with a fallback'


def sum_by_name(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up the counts of each name."""
    sums: dict[str, int] = {}
    for name, count in counts:
        sums[name] = sums.get(name, 0) + count
    return sums
