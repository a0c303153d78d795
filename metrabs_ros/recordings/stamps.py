"""Conversion between message stamps and nanoseconds."""

from __future__ import annotations

from typing import Any

from metrabs_ros.recordings.typestore import message_factory

NANOSECONDS = 1_000_000_000


def stamp_ns_of(header: Any) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)


def to_seconds(stamp_ns: int) -> float:
    """
    Return a stamp in seconds.

    Rounded as in the node, because filters enlarge even the smallest differences over time.
    """
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return sec + nanosec * 1e-9


def header_at(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header with a stamp in nanoseconds and a frame."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    stamp = message_factory('builtin_interfaces/msg/Time')(sec=sec, nanosec=nanosec)
    return message_factory('std_msgs/msg/Header')(stamp=stamp, frame_id=frame_id)
