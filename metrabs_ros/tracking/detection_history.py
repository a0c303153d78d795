"""Detection history of tracks: confirms them, and decides which may be extrapolated."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays

WINDOW_S = 1.0
"""Time constant of the hit ratio, in seconds."""
WINDOW_ATTEMPTS = 12.0
"""Minimum number of attempts that the hit ratio averages over, at low frame rates."""
INITIAL_MISSES = 2.5
"""Number of misses that the hit ratio of a new track starts with; a few hits give a low ratio."""
STEADY_HIT_RATIO = 0.75
"""Minimum hit ratio of steady tracks."""
STEADY_AFTER_S = 0.5
"""Minimum time since the first confirming hit of steady tracks, in seconds."""
TENTATIVE_MISSES = 2
"""Tracks that are not steady become tentative after this many consecutive misses."""


@dataclasses.dataclass(frozen=True)
class Attempts:
    """
    Which tracks a frame can detect or miss.

    Parameters
    ----------
    ids
        Tracks that would have been detected if visible; None for all.  Only these can be missed.
    followed_ids
        Tracks with poses estimated at their predicted positions, without a detector.  Such
        a pose is no evidence of a person, so that it is not a hit.  Its absence is a miss.
    """

    ids: NDArray[np.int64] | None = None
    followed_ids: NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )


ALL_ATTEMPTED = Attempts()
"""The frame can detect or miss all tracks."""


@dataclasses.dataclass
class DetectionHistory(StructOfArrays):
    """
    How reliably T tracks have been detected recently.

    Parameters
    ----------
    confirming_hits
        [T], number of hits since the track was last tentative.
    since_s
        [T], stamp of the first of these hits.
    streak
        [T], number of consecutive hits, or minus the number of consecutive misses.
    hit_ratio
        [T], from 0 to 1, exponential average of the recent attempts' outcomes (hit 1, miss 0).
    attempts
        [T], number of attempts, including `INITIAL_MISSES`.
    attempted_s
        [T], stamp of the last attempt.
    steady
        [T], whether the track was detected steadily at its last hit.
    intermittent
        [T], whether the track was missed while it was not steady.  Reset when it becomes steady
        or has enough consecutive hits.
    """

    confirming_hits: NDArray[np.int64]
    since_s: FloatArray
    streak: NDArray[np.int64]
    hit_ratio: FloatArray
    attempts: FloatArray
    attempted_s: FloatArray
    steady: BoolArray
    intermittent: BoolArray

    @classmethod
    def initial(cls, count: int, stamp_s: float) -> DetectionHistory:
        """
        Return the history of new tracks before their first hit is counted.

        Parameters
        ----------
        count
            Number of tracks.
        stamp_s
            Stamp of the first hit.
        """
        return cls(
            confirming_hits=np.zeros(count, np.int64),
            since_s=np.full(count, stamp_s),
            streak=np.zeros(count, np.int64),
            hit_ratio=np.zeros(count),
            attempts=np.full(count, INITIAL_MISSES),
            attempted_s=np.full(count, stamp_s),
            steady=np.zeros(count, bool),
            intermittent=np.zeros(count, bool),
        )

    def merge(self, earlier: NDArray[np.intp], later: NDArray[np.intp]) -> None:
        """Add the history of tracks `earlier` [K] to that of tracks `later` [K]."""
        confirming = self.confirming_hits[earlier] > 0
        self.since_s[later[confirming]] = self.since_s[earlier[confirming]]
        self.confirming_hits[later] += self.confirming_hits[earlier]
        for name in ('hit_ratio', 'attempts', 'steady', 'intermittent'):
            getattr(self, name)[later] = getattr(self, name)[earlier]

    def update(
        self, hit: BoolArray, missed: BoolArray, followed: BoolArray, stamp_s: float, min_hits: int
    ) -> None:
        """
        Update the history with a frame.

        Parameters
        ----------
        hit
            [T], tracks that were detected.
        missed
            [T], tracks that were attempted and not detected.
        followed
            [T], tracks with poses that were estimated without a detector.
        stamp_s
            Stamp of the frame.
        min_hits
            Number of hits that confirm a track.
        """
        self._update_hit_ratio(hit, missed, stamp_s)
        first = (hit | followed) & (self.confirming_hits == 0)
        self.since_s = np.where(first, stamp_s, self.since_s)
        is_old = stamp_s - self.since_s >= STEADY_AFTER_S
        self.steady = np.where(hit, is_old & (self.hit_ratio >= STEADY_HIT_RATIO), self.steady)
        hits, misses = np.maximum(self.streak, 0) + 1, np.minimum(self.streak, 0) - 1
        self.streak = np.where(hit, hits, np.where(missed, misses, self.streak))
        self.intermittent |= missed
        self.intermittent &= ~(self.steady | (self.streak >= min_hits))
        counted = hit | (followed & ~self.intermittent)
        tentative = ~self.steady & (self.streak <= -TENTATIVE_MISSES)
        self.confirming_hits = np.where(tentative, 0, self.confirming_hits + counted)

    def _update_hit_ratio(self, hit: BoolArray, missed: BoolArray, stamp_s: float) -> None:
        attempted = hit | missed
        step_s = np.maximum(stamp_s - self.attempted_s, 0)
        gain = np.minimum(1 - np.exp(-step_s / WINDOW_S), 1 / WINDOW_ATTEMPTS)
        # The mean of all attempts until their number exceeds the window.
        gain = attempted * np.maximum(gain, 1 / (self.attempts + 1))
        self.hit_ratio = self.hit_ratio + gain * (hit - self.hit_ratio)
        self.attempts = self.attempts + attempted
        self.attempted_s = np.where(attempted, stamp_s, self.attempted_s)
