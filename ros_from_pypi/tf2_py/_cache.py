"""Transforms of one frame to its parents over time."""

from __future__ import annotations

import bisect
from typing import NamedTuple

from ._errors import (
    BackwardExtrapolationException,
    ForwardExtrapolationException,
    NoDataForExtrapolationException,
)
from ._transform import Transform, interpolate

LATEST = 0
"""Time, in nanoseconds, that requests the latest transform."""


class Sample(NamedTuple):
    """Transform from a frame to its parent at one time."""

    stamp: int
    parent: str
    transform: Transform


class TimeCache:
    """Transforms of a moving frame within the cache time, sorted by time."""

    def __init__(self, cache_time: int) -> None:
        self._cache_time = cache_time
        self._samples: list[Sample] = []

    def insert(self, sample: Sample) -> bool:
        """Add a sample; return whether it was within the cache time."""
        oldest_kept = self.latest_stamp() - self._cache_time
        self._drop_before(oldest_kept)
        if self._samples and sample.stamp < oldest_kept:
            return False
        place = bisect.bisect_right(self._samples, sample.stamp, key=lambda s: s.stamp)
        same_time = bisect.bisect_left(self._samples, sample.stamp, key=lambda s: s.stamp)
        if sample not in self._samples[same_time:place]:
            self._samples.insert(place, sample)
        return True

    def at(self, stamp: int) -> Sample:
        """Return the sample at a time, interpolated between its neighbours."""
        if not self._samples:
            raise NoDataForExtrapolationException('there is no data for this frame')
        first, last = self._samples[0], self._samples[-1]
        if stamp in (LATEST, last.stamp):
            return last
        if len(self._samples) == 1 and stamp != first.stamp:
            raise NoDataForExtrapolationException(
                f'Lookup would require extrapolation at time {seconds(stamp)}, but only time '
                f'{seconds(first.stamp)} is in the buffer'
            )
        if stamp > last.stamp:
            raise ForwardExtrapolationException(
                f'Lookup would require extrapolation into the future.  Requested time '
                f'{seconds(stamp)} but the latest data is at time {seconds(last.stamp)}'
            )
        if stamp < first.stamp:
            raise BackwardExtrapolationException(
                f'Lookup would require extrapolation into the past.  Requested time '
                f'{seconds(stamp)} but the earliest data is at time {seconds(first.stamp)}'
            )
        place = bisect.bisect_right(self._samples, stamp, key=lambda s: s.stamp)
        older, newer = self._samples[place - 1], self._samples[place]
        if older.stamp == stamp or older.parent != newer.parent:
            return older
        ratio = (stamp - older.stamp) / (newer.stamp - older.stamp)
        transform = interpolate(older.transform, newer.transform, ratio)
        return Sample(stamp, older.parent, transform)

    def latest(self) -> Sample | None:
        """Return the latest sample, or None if there are no samples."""
        return self._samples[-1] if self._samples else None

    def latest_stamp(self) -> int:
        """Return the latest time, or 0 if there are no samples."""
        return self._samples[-1].stamp if self._samples else LATEST

    def oldest_stamp(self) -> int:
        """Return the earliest time, or 0 if there are no samples."""
        return self._samples[0].stamp if self._samples else LATEST

    def clear(self) -> None:
        """Remove all samples."""
        self._samples.clear()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._samples)

    def _drop_before(self, stamp: int) -> None:
        del self._samples[: bisect.bisect_left(self._samples, stamp, key=lambda s: s.stamp)]


class StaticCache:
    """Transform of a static frame."""

    def __init__(self) -> None:
        self._sample: Sample | None = None

    def insert(self, sample: Sample) -> bool:
        """Replace the transform."""
        self._sample = sample
        return True

    def at(self, stamp: int) -> Sample:
        """Return the transform, which is valid at any time."""
        if self._sample is None:
            raise NoDataForExtrapolationException('there is no data for this frame')
        return self._sample._replace(stamp=stamp)

    def latest(self) -> Sample | None:
        """Return the transform with the time 0."""
        return self._sample and self._sample._replace(stamp=LATEST)

    def latest_stamp(self) -> int:
        """Return 0, because a static transform has no time."""
        return LATEST

    def oldest_stamp(self) -> int:
        """Return 0, because a static transform has no time."""
        return LATEST

    def clear(self) -> None:
        """Do nothing; static transforms remain valid after a jump in time."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return 1


def seconds(stamp: int) -> str:
    """Format nanoseconds as seconds."""
    return f'{stamp / 1e9:.6f}'
