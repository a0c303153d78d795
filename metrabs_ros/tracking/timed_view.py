"""One image of a stream."""

from __future__ import annotations

from typing import NamedTuple

from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import View


class TimedView(NamedTuple):
    """
    One image of a stream.

    Parameters
    ----------
    view
        The image and its camera, with its pose in the world if that is known.
    stamp_s
        When it was taken.
    boxes
        Where people are, if somebody else says so.
    """

    view: View
    stamp_s: float
    boxes: Boxes | None = None
