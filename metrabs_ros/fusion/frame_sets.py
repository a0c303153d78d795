"""
Grouping of the frames of several cameras into frame sets.

A frame set has at most one frame of each camera.  It is complete when all running cameras are in
it, which adds no delay for synchronised cameras.  Otherwise it is complete when a camera sends its
next frame, or when the stamps differ by almost a frame period: the added delay is less
than one period of the fastest camera.  Frames of cameras whose clock is off are sets of their own.
"""

from __future__ import annotations

import numpy as np

from metrabs_ros.fusion.camera_clocks import CameraClocks
from metrabs_ros.fusion.observations import CameraPeople

MAX_SPAN_S, MAX_SPAN_PERIODS = 0.05, 0.85
"""
Maximum difference of the stamps in a frame set, also as a share of the shortest frame period.

Sets of synchronised cameras then have equal stamps, whichever camera is the first one to arrive.
"""
MAX_MISSED_SETS = 2
"""A set does not wait for cameras that were not in this many sets before."""


class FrameSets:
    """Collects frames into sets, in the order of their arrival."""

    def __init__(self) -> None:
        self._frames: dict[str, CameraPeople] = {}
        self._missed: dict[str, int] = {}
        self._clocks = CameraClocks()
        self._last_s: dict[str, float] = {}
        self._period_s: dict[str, float] = {}

    def add(self, frame: CameraPeople) -> list[list[CameraPeople]]:
        """
        Add a frame.

        Returns
        -------
        The sets that it completes, in order: none, one, or two.
        """
        complete: list[list[CameraPeople]] = []
        if np.isfinite(frame.stamp_s):
            self._clocks.add(frame.camera_name, frame.stamp_s)
        if not np.isfinite(frame.stamp_s) or self._clocks.offset_s(frame.camera_name):
            # This must not split the sets of the other cameras.
            return [[frame]]
        self._note_period(frame)
        stamps = [own.stamp_s for own in self._frames.values()] + [frame.stamp_s]
        periods_s = [self._period_s.get(name, MAX_SPAN_S) for name in self._running()]
        limit_s = min(MAX_SPAN_S, MAX_SPAN_PERIODS * min(periods_s, default=MAX_SPAN_S))
        if frame.camera_name in self._frames or max(stamps) - min(stamps) > limit_s:
            complete += self.flush()
        self._frames[frame.camera_name] = frame
        self._missed[frame.camera_name] = 0
        if all(name in self._frames for name in self._running()):
            complete += self.flush()
        return complete

    @property
    def waiting(self) -> list[CameraPeople]:
        """Frames of the present set, in the order of their arrival."""
        return list(self._frames.values())

    def _running(self) -> list[str]:
        """Return the cameras that were in one of the last sets."""
        return [name for name, count in self._missed.items() if count < MAX_MISSED_SETS]

    def _note_period(self, frame: CameraPeople) -> None:
        name = frame.camera_name
        step_s = frame.stamp_s - self._last_s.get(name, frame.stamp_s)
        if step_s > 0:
            self._period_s[name] = step_s
        self._last_s[name] = frame.stamp_s

    def flush(self) -> list[list[CameraPeople]]:
        """Complete the present set; call it after the last frame, or after a time without any."""
        if not self._frames:
            return []
        frames = list(self._frames.values())
        self._missed = {
            name: 0 if name in self._frames else count + 1 for name, count in self._missed.items()
        }
        self._frames = {}
        return [frames]
