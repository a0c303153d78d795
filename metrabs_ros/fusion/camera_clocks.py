"""
Detection of cameras whose clock is off.

The stamps of frames that arrive one after the other differ by less than a second unless a clock is
off.  A camera is excluded while its stamps differ from those of more cameras than they agree with;
of two cameras that contradict each other, the one that was known first is taken as right.
A camera is used if all those that contradict it have stopped.  If its stamps jump, it is not used
until the next frame of another camera, because one wrong stamp would delete all people.
"""

from __future__ import annotations

MAX_OFFSET_S = 0.5
"""Largest difference of the stamps of frames that arrive one after the other."""
MEMORY_S = 2.0
"""
Cameras have stopped if they were not compared for this time of the other camera's stamps.

It is longer than the period of slow cameras.
"""

JUMP_S, JUMP_MEMORY_S = 1.0, 0.25
"""
Smallest jump of a camera's stamps, and the time for which other cameras can confirm it; that is
longer than the period of 5 Hz.
"""


class CameraClocks:
    """Compares the stamps of cameras, in the order of their frames' arrival."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}
        self._arrival: dict[str, int] = {}
        self._arrivals = 0
        self._offsets_s: dict[tuple[str, str], float] = {}
        self._compared_s: dict[tuple[str, str], float] = {}
        self._jumps_s: dict[str, tuple[float, float]] = {}
        """Stamp before and after the jump, of cameras whose jump is not confirmed."""

    def add(self, name: str, stamp_s: float) -> None:
        """Add the stamp of a frame that has arrived."""
        before = self._arrival.get(name, -1)
        self._arrivals += 1
        self._note_jump(name, stamp_s)
        for other, other_s in self._last_s.items():
            # Cameras that have sent nothing since this camera's last frame may have stopped.
            if other != name and self._arrival[other] > before:
                self._offsets_s[name, other] = stamp_s - other_s
                self._offsets_s[other, name] = other_s - stamp_s
                self._compared_s[name, other] = stamp_s
                self._compared_s[other, name] = other_s
                for own in (name, other):
                    self._jumps_s.pop(own, None)
        self._last_s[name] = stamp_s
        self._arrival[name] = self._arrivals

    def _note_jump(self, name: str, stamp_s: float) -> None:
        """Note a jump from the last stamp of a camera if other cameras were running then."""
        before_s = self._last_s.get(name, stamp_s)
        if abs(stamp_s - before_s) > JUMP_S:
            others_s = [own_s for other, own_s in self._last_s.items() if other != name]
            if any(abs(own_s - before_s) <= MEMORY_S for own_s in others_s):
                self._jumps_s[name] = before_s, stamp_s
        elif name in self._jumps_s and stamp_s - self._jumps_s[name][1] > JUMP_MEMORY_S:
            # The other cameras have stopped.
            del self._jumps_s[name]

    def offset_s(self, name: str) -> float:
        """
        Return by how much a camera's clock is off, in seconds; 0 if it agrees with the others.

        It is the offset from one of the cameras that contradict it.
        """
        if name in self._jumps_s:
            before_s, after_s = self._jumps_s[name]
            return after_s - before_s
        names = list(self._last_s)
        known = {o: self._offsets_s[name, o] for o in names if (name, o) in self._offsets_s}
        off = [other for other in known if abs(known[other]) > MAX_OFFSET_S]
        side = [name, *(other for other in known if other not in off)]
        if len(off) < len(side) or not any(self._is_recent(name, other) for other in off):
            return 0.0
        if len(off) == len(side) and min(map(names.index, side)) < names.index(off[0]):
            return 0.0
        return known[off[0]]

    def _is_recent(self, name: str, other: str) -> bool:
        return abs(self._last_s[name] - self._compared_s[name, other]) <= MEMORY_S
