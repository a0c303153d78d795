"""The calibrations that came in, to be had for images."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from metrabs_ros.node.stamped import Stamped

PATIENCE_S = 0.1
FIRST_PATIENCE_S = 0.5


class Calibrations:
    """
    The camera_infos that came, to be had for images.

    Most drivers send one with each image, of the same stamp; some send them seldom, or once and
    for all.  Which it is shows in whether the last image's own was there.
    """

    def __init__(self) -> None:
        self._infos: Stamped[CameraInfo] = Stamped()
        self._one_each = True

    def is_empty(self) -> bool:
        """Tell whether none has come yet."""
        return self._infos.newest is None

    def put(self, info: CameraInfo) -> None:
        """Keep a message that came in."""
        self._infos.put(info)

    def wait_for(self, stamp: Time) -> CameraInfo | None:
        """
        Return the camera_info of an image: its own if there is one, or else the newest.

        Where images' own usually come, it is waited for a moment; so is the very first one.
        """
        self._infos.wait_for_any(FIRST_PATIENCE_S)
        own = self._infos.wait_for(stamp, PATIENCE_S if self._one_each else 0)
        self._one_each = own is not None
        return self._infos.newest if own is None else own
