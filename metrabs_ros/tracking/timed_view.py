"""One image of a camera's stream."""

from __future__ import annotations

from typing import NamedTuple

from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import View


class TimedView(NamedTuple):
    """
    One image of a camera's stream.

    Parameters
    ----------
    view
        The image and its camera, with the camera's pose in the world if it is known.
    stamp_s
        Time of exposure, in seconds.
    boxes
        Person boxes from an external detector; None to detect people here.
    camera_name
        Tracks are kept for each name.
    """

    view: View
    stamp_s: float
    boxes: Boxes | None = None
    camera_name: str = ''
