"""Stamps of messages (fields sec and nanosec) in nanoseconds and in seconds."""

from __future__ import annotations

from typing import Any

NS_PER_S = 1_000_000_000


def to_ns(stamp: Any) -> int:
    """Return a stamp in nanoseconds, exactly."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def to_seconds(stamp: Any) -> float:
    """
    Return a stamp in seconds; a date has a resolution of 0.2 microseconds.

    It is rounded as nanoseconds divided by `NS_PER_S`, so that recordings and the node have equal
    stamps: filters enlarge even the smallest differences over time.
    """
    return to_ns(stamp) / NS_PER_S
