"""Ages of messages, and detection of cameras whose clock is off by them."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from rclpy.time import Time
from std_msgs.msg import Header

from metrabs_ros.fusion.camera_clocks import MAX_OFFSET_S

MEMORY_S = 2.0
"""
Time for which the ages of messages are used.

It is the same for cameras of all rates: if a recording is paused or the present time is corrected,
the ages of all cameras change at once, and must be noticed at once.
"""
MAX_AGES = 500
MIN_AGES = 3
"""Maximum and minimum number of ages of a camera; the latest ones are kept for longer."""


class MessageAges:
    """
    Ages of the latest messages of several cameras.

    They are the delays of detection and network, which are similar for all cameras.  If the ages
    of a camera differ, its stamps are those of another clock.  Unlike the comparison of stamps in
    the fusion, this tells which one of two clocks is right.

    Parameters
    ----------
    names
        Names of the cameras.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ages = {
            name: collections.deque[tuple[float, float]](maxlen=MAX_AGES) for name in names
        }
        """Times of reception and ages, in seconds."""

    def add(self, name: str, age_s: float, now_s: float) -> None:
        """Add a message: its age, which is present time minus stamp, and the monotonic time."""
        ages = self._ages[name]
        ages.append((now_s, age_s))
        while len(ages) > MIN_AGES and now_s - ages[0][0] > MEMORY_S:
            ages.popleft()

    def offset_s(self, name: str, now_s: float) -> float:
        """
        Return how much older than those of the others the messages of a camera are, in seconds.

        It is 0 if it is less than `MAX_OFFSET_S`, or unknown.  Of two cameras, the one whose
        stamps are nearer to the present time is taken as right.
        """
        typical_s = {
            own: own_s for own in self._ages if (own_s := self._typical_s(own, now_s)) is not None
        }
        if name not in typical_s:
            return 0.0
        values_s = sorted(typical_s.values(), key=abs)
        # Of an even number, the lower median is one of the values and not between two groups.
        expected_s = (
            sorted(values_s)[(len(values_s) - 1) // 2] if len(values_s) > 2 else values_s[0]
        )
        difference_s = typical_s[name] - expected_s
        return difference_s if abs(difference_s) > MAX_OFFSET_S else 0.0

    def _typical_s(self, name: str, now_s: float) -> float | None:
        """Return the median age of a camera's messages; None if it is unknown or changing."""
        ages = self._ages[name]
        if len(ages) < MIN_AGES or now_s - ages[-1][0] > MEMORY_S:
            return None
        ages_s = sorted(own_s for _, own_s in ages)
        count = len(ages_s)
        if ages_s[3 * count // 4] - ages_s[count // 4] > MAX_OFFSET_S:
            return None
        return ages_s[count // 2]


def age_s(header: Header, now: Time) -> float:
    """Return the age of a stamp, in seconds."""
    age: float = (now - Time.from_msg(header.stamp)).nanoseconds * 1e-9
    return age
