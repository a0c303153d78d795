"""State of each camera of a fusion, for diagnostics."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class CameraStatus:
    """
    State of one camera.

    Parameters
    ----------
    name
        Name of the camera.
    frames
        Number of frames so far.
    excluded_because
        Why the camera's frames are not used at present, as a sentence; empty if they are used.
    reprojection_px
        Running mean of the median distance between its image points and the projected people;
        0 if unknown.
    last_stamp_s
        Stamp of the last frame.
    clock_offset_s
        By how much its clock is off, if that is why its frames are not used; otherwise 0.
    """

    name: str
    frames: int
    excluded_because: str
    reprojection_px: float
    last_stamp_s: float
    clock_offset_s: float
