"""Checks of the measurements of the endurance test."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_GROWTH = 0.03
"""Maximum growth of the memory after warm-up by a linear fit, relative to its mean."""
MAX_THREAD_GROWTH = 2.0
MAX_DESCRIPTOR_GROWTH = 4.0
MAX_LOG_BYTES_PER_MINUTE = 100_000
MAX_LOG_LINE_CHARS = 2000
MIN_SAMPLES = 10


def growth(times_s: Sequence[float], values: Sequence[float]) -> float:
    """
    Return the growth of values from the first to the last time by a linear fit.

    Parameters
    ----------
    times_s
        Times [N] in seconds, at least `MIN_SAMPLES`.
    values
        Values [N].

    Raises
    ------
    ValueError
        If there are too few samples.
    """
    if len(values) < MIN_SAMPLES:
        raise ValueError(f'{len(values)} samples are too few for a fit; run it for longer')
    slope = np.polyfit(np.subtract(times_s, times_s[0]), values, 1)[0]
    return float(slope * (times_s[-1] - times_s[0]))


def memory_failures(times_s: Sequence[float], rss_bytes: Sequence[float]) -> list[str]:
    """Return an error message if the memory grows by more than `MAX_GROWTH`."""
    relative = growth(times_s, rss_bytes) / float(np.mean(rss_bytes))
    if relative > MAX_GROWTH:
        return [f'memory grows by {100 * relative:.1f} %, the limit is {100 * MAX_GROWTH:.0f} %']
    return []


def count_failures(
    times_s: Sequence[float], threads: Sequence[int], descriptors: Sequence[int]
) -> list[str]:
    """Return an error message for each growing resource count of a process."""
    failures = []
    for name, counts, limit in (
        ('threads', threads, MAX_THREAD_GROWTH),
        ('file descriptors', descriptors, MAX_DESCRIPTOR_GROWTH),
    ):
        more = growth(times_s, counts)
        if more > limit:
            failures.append(f'{more:.1f} more {name} at the end than after warm-up')
    return failures


def log_failures(log: bytes, duration_s: float) -> list[str]:
    """Return the error messages about the size and the content of a log."""
    failures = []
    per_minute = len(log) / (duration_s / 60)
    if per_minute > MAX_LOG_BYTES_PER_MINUTE:
        failures.append(f'the log has {per_minute / 1000:.0f} kB per minute')
    longest = max(map(len, log.splitlines()), default=0)
    if longest > MAX_LOG_LINE_CHARS:
        failures.append(f'the longest line of the log has {longest} characters')
    if b'Traceback' in log:
        failures.append('the log has a traceback')
    return failures


def unaccounted_frames(values: dict[str, str]) -> int:
    """Return the number of images that are neither counted as processed nor as dropped."""
    dropped = sum(int(n) for key, n in values.items() if key.startswith('dropped: '))
    return int(values['images']) - int(values['processed']) - dropped


def is_finite(value: Any) -> bool:
    """Return whether all floating-point numbers in a message are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, np.ndarray | array.array):
        return bool(np.isfinite(np.asarray(value)).all())
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    if hasattr(value, 'get_fields_and_field_types'):
        return all(is_finite(getattr(value, name)) for name in value.get_fields_and_field_types())
    return True
