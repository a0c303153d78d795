"""QoS profiles that publishers offered, as stored in bags."""

from __future__ import annotations

import functools
from typing import Any

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2.metadata import parse_qos

from metrabs_ros.recordings.plain_yaml import UnusableYaml, load_yaml

MAX_TEXT_CHARS = 64 * 1024
MAX_PROFILES = 100
MAX_NUMBER = 2**63
"""Maximum absolute value of a number in a profile."""
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=QosTime(0, 0),
    lifespan=QosTime(0, 0),
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=QosTime(0, 0),
    avoid_ros_namespace_conventions=False,
)
"""Profile of a topic whose last message later subscribers receive."""


def parse_profiles(text: str) -> tuple[Any, ...]:
    """Return the profiles in a text; empty if the text is invalid."""
    return _parsed(text) if len(text) <= MAX_TEXT_CHARS else ()


@functools.lru_cache(maxsize=100)
def _parsed(text: str) -> tuple[Any, ...]:
    try:
        values = load_yaml(text)
    except UnusableYaml:
        return ()
    if not isinstance(values, list) or len(values) > MAX_PROFILES:
        return ()
    try:
        profiles = parse_qos(values)
    except Exception:  # Values of other types can raise any exception in the library.
        return ()
    return tuple(profile for profile in profiles if _is_writable(profile))


def _is_writable(profile: Any) -> bool:
    """Return whether all values of a profile can be written to another bag."""
    numbers = [profile.depth]
    for time in (profile.deadline, profile.lifespan, profile.liveliness_lease_duration):
        numbers += [time.sec, time.nsec]
    return isinstance(profile.avoid_ros_namespace_conventions, bool) and all(
        isinstance(number, int) and abs(number) <= MAX_NUMBER for number in numbers
    )
