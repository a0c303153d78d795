"""How reliably tracks are detected: which are confirmed, and which may be carried over."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

WINDOW_S = 1.0
"""Time constant of the hit ratio."""
WINDOW_ATTEMPTS = 12.0
"""The hit ratio is taken over about this many attempts where frames come slowly."""
FIRST_MISSES = 2.5
"""Tracks start as if so many attempts had missed them: a few hits are not a high ratio."""
STEADY_HIT_RATIO = 0.75
STEADY_AFTER_S = 0.5
"""Tracks are steady from this hit ratio on, if they were detected for this long."""
MAX_MISSES = 2
"""Tracks that are not steady become tentative after this many consecutive misses."""


@dataclasses.dataclass(frozen=True)
class Attempts:
    """
    What a frame can say about tracks that it does not show, and about those that it shows.

    Parameters
    ----------
    ids
        Tracks that the frame would show if their people were visible; None for all.  For others
        it is no miss if the frame does not show them.
    followed_ids
        Tracks whose poses were estimated where the track was expected, without a detector.  A
        pose there is no evidence of a person; that there is none is a miss.
    """

    ids: NDArray[np.int64] | None = None
    followed_ids: NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )


ALL_ATTEMPTED = Attempts()


@dataclasses.dataclass
class DetectionHistory:
    """
    How reliably T tracks have been detected recently.

    Parameters
    ----------
    confirming_hits
        [T], hits since the track was last tentative.
    since_s
        [T], stamp of the first of them.
    streak
        [T], number of consecutive hits; negative: of consecutive misses.
    hit_ratio
        [T], from 0 to 1, share of recent attempts that were hits: an exponential average.
    attempts
        [T], number of attempts, with those that a track starts with.
    attempted_s
        [T], stamp of the last attempt.
    steady
        [T], whether the track was detected steadily at its last hit.
    doubtful
        [T], whether the track was missed while it was not steady; until it is steady or has been
        hit often enough in a row.
    """

    confirming_hits: NDArray[np.int64]
    since_s: FloatArray
    streak: NDArray[np.int64]
    hit_ratio: FloatArray
    attempts: FloatArray
    attempted_s: FloatArray
    steady: BoolArray
    doubtful: BoolArray

    @classmethod
    def of_new(cls, count: int, stamp_s: float) -> DetectionHistory:
        """
        Return the history of tracks whose first detection is yet to be counted.

        Parameters
        ----------
        count
            Number of tracks.
        stamp_s
            Stamp of the first detection.
        """
        return cls(
            confirming_hits=np.zeros(count, np.int64),
            since_s=np.full(count, stamp_s),
            streak=np.zeros(count, np.int64),
            hit_ratio=np.zeros(count),
            attempts=np.full(count, FIRST_MISSES),
            attempted_s=np.full(count, stamp_s),
            steady=np.zeros(count, bool),
            doubtful=np.zeros(count, bool),
        )

    def select(self, which: NDArray[Any]) -> DetectionHistory:
        """Return the history of the tracks at an index array or mask."""
        return DetectionHistory(**{name: array[which] for name, array in vars(self).items()})

    def joined(self, other: DetectionHistory) -> DetectionHistory:
        """Return the history of these tracks and others."""
        return DetectionHistory(
            **{
                name: np.concatenate([array, getattr(other, name)])
                for name, array in vars(self).items()
            }
        )

    def merge(self, earlier: NDArray[np.intp], later: NDArray[np.intp]) -> None:
        """Give tracks `later` [K] the history of tracks `earlier` [K], who are the same people."""
        confirming = self.confirming_hits[earlier] > 0
        self.since_s[later[confirming]] = self.since_s[earlier[confirming]]
        self.confirming_hits[later] += self.confirming_hits[earlier]
        for name in ('hit_ratio', 'attempts', 'steady', 'doubtful'):
            getattr(self, name)[later] = getattr(self, name)[earlier]

    def update(
        self, hit: BoolArray, missed: BoolArray, followed: BoolArray, stamp_s: float, min_hits: int
    ) -> None:
        """
        Count a frame.

        Parameters
        ----------
        hit
            [T], which tracks were detected.
        missed
            [T], which ones were not detected though they would have been if visible.
        followed
            [T], which ones have a pose in the frame without having been detected.
        stamp_s
            The frame's.
        min_hits
            Number of hits that confirm a track.
        """
        self._update_hit_ratio(hit, missed, stamp_s)
        first = (hit | followed) & (self.confirming_hits == 0)
        self.since_s = np.where(first, stamp_s, self.since_s)
        lasting = stamp_s - self.since_s >= STEADY_AFTER_S
        self.steady = np.where(hit, lasting & (self.hit_ratio >= STEADY_HIT_RATIO), self.steady)
        hits, misses = np.maximum(self.streak, 0) + 1, np.minimum(self.streak, 0) - 1
        self.streak = np.where(hit, hits, np.where(missed, misses, self.streak))
        self.doubtful |= missed
        self.doubtful &= ~(self.steady | (self.streak >= min_hits))
        counted = hit | (followed & ~self.doubtful)
        tentative = ~self.steady & (self.streak <= -MAX_MISSES)
        self.confirming_hits = np.where(tentative, 0, self.confirming_hits + counted)

    def _update_hit_ratio(self, hit: BoolArray, missed: BoolArray, stamp_s: float) -> None:
        attempted = hit | missed
        step_s = np.maximum(stamp_s - self.attempted_s, 0)
        share = np.minimum(1 - np.exp(-step_s / WINDOW_S), 1 / WINDOW_ATTEMPTS)
        # At first the mean of all attempts.
        share = attempted * np.maximum(share, 1 / (self.attempts + 1))
        self.hit_ratio = self.hit_ratio + share * (hit - self.hit_ratio)
        self.attempts = self.attempts + attempted
        self.attempted_s = np.where(attempted, stamp_s, self.attempted_s)
