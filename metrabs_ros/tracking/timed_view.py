"""One image of a camera's stream."""

from __future__ import annotations

from typing import NamedTuple

from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import View
from metrabs_ros.placement.depth_image import DepthImage
from metrabs_ros.placement.ground_plane import GroundPlane


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
    ground
        The floor, in the camera optical frame; None if it is not known.
    depth
        Depth image of the same time; None if there is none.
    """

    view: View
    stamp_s: float
    boxes: Boxes | None = None
    camera_name: str = ''
    ground: GroundPlane | None = None
    depth: DepthImage | None = None
