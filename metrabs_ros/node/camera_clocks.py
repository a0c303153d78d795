"""Comparison of the clocks of several cameras."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np

MAX_AGES = 31
"""Number of latest messages of each camera whose median age is used."""
MIN_AGES = 3
MAX_DIFFERENCE_S = 1.0
"""Cameras whose stamps differ by more from those of the others are excluded."""


class CameraClocks:
    """
    Finds cameras whose stamps are those of another clock, by the ages of their messages.

    Messages of all cameras have similar ages, which are the delays of detection and network.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ages_s = {name: collections.deque[float](maxlen=MAX_AGES) for name in names}

    def add(self, name: str, age_s: float) -> None:
        """Add the age of a message: present time minus stamp, in seconds."""
        self._ages_s[name].append(age_s)

    def offset_s(self, name: str) -> float:
        """
        Return how much older than those of the others the messages of a camera are, in seconds.

        It is 0 if it is less than `MAX_DIFFERENCE_S`, or unknown.  Of two cameras, the one whose
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
        return difference_s if abs(difference_s) > MAX_DIFFERENCE_S else 0.0
