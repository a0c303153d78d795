"""Ages of messages, and detection of cameras whose clock is off by them."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np
from rclpy.time import Time
from std_msgs.msg import Header

from metrabs_ros.fusion.camera_clocks import MAX_OFFSET_S

MAX_AGES = 31
"""Number of latest messages of each camera whose median age is used."""
MIN_AGES = 3


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
        self._ages_s = {name: collections.deque[float](maxlen=MAX_AGES) for name in names}

    def add(self, name: str, age_s: float) -> None:
        """Add the age of a message: present time minus stamp, in seconds."""
        self._ages_s[name].append(age_s)

    def offset_s(self, name: str) -> float:
        """
        Return how much older than those of the others the messages of a camera are, in seconds.

        It is 0 if it is less than `MAX_OFFSET_S`, or unknown.  Of two cameras, the one whose
        stamps are nearer to the present time is taken as right.
        """
        medians_s = {
            own: float(np.median(ages_s))
            for own, ages_s in self._ages_s.items()
            if len(ages_s) >= MIN_AGES
        }
        if name not in medians_s:
            return 0.0
        values_s = sorted(medians_s.values(), key=abs)
        # Of an even number, the lower median is one of the values and not between two groups.
        expected_s = (
            sorted(values_s)[(len(values_s) - 1) // 2] if len(values_s) > 2 else values_s[0]
        )
        difference_s = medians_s[name] - expected_s
        return difference_s if abs(difference_s) > MAX_OFFSET_S else 0.0


def age_s(header: Header, now: Time) -> float:
    """Return the age of a stamp, in seconds."""
    age: float = (now - Time.from_msg(header.stamp)).nanoseconds * 1e-9
    return age
