"""The quality of service that publishers offered, as bags have it."""

from __future__ import annotations

import functools
from typing import Any

from rosbags.rosbag2.metadata import parse_qos

from metrabs_ros.recordings.plain_yaml import UnusableYaml, load_yaml

MAX_TEXT_CHARS = 64 * 1024
MAX_PROFILES = 100
MAX_NUMBER = 2**63


def parse_profiles(text: str) -> tuple[Any, ...]:
    """Return the profiles in a text, none if it is not valid."""
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
    except Exception:  # Values of other types make the library stumble in many ways.
        return ()
    return tuple(profile for profile in profiles if _is_plain(profile))


def _is_plain(profile: Any) -> bool:
    """Tell whether all numbers of a profile are such as can be written again."""
    numbers = [profile.depth]
    for time in (profile.deadline, profile.lifespan, profile.liveliness_lease_duration):
        numbers += [time.sec, time.nsec]
    return isinstance(profile.avoid_ros_namespace_conventions, bool) and all(
        isinstance(number, int) and abs(number) <= MAX_NUMBER for number in numbers
    )
