"""Lookup of the floor in the frame of a camera from TF."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable

import numpy as np
from std_msgs.msg import Header

from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.transforms import StampedTransform, TransformLookup
from metrabs_ros.people import MM_PER_M
from metrabs_ros.placement.ground_plane import MIN_DROP_MM, GroundPlane

CAUSE = 'no ground plane'
"""Cause of images without the floor, although it is configured."""
MAX_EXTRAPOLATION_S = 0.5
"""Maximum age of a plane that is used because it did not change before."""
MIN_REST_S, MAX_REST_S = 0.1, 2.0
"""Time between two planes that are equal if the camera does not move relative to the floor."""
MAX_RECENT = 100
"""Maximum number of planes that are compared."""
MAX_HEIGHT_CHANGE_MM, MAX_TILT_CHANGE = 5.0, math.radians(0.2)
"""Maximum differences of equal planes: height in millimetres, tilt in radians."""


class GroundLookup:
    """
    Looks up the floor in the optical frame of one camera.

    Parameters
    ----------
    transforms
        Looks up transforms.
    report
        Called with cause and explanation if the floor is not available for an image.
    """

    def __init__(self, transforms: TransformLookup, report: Callable[[str, str], None]) -> None:
        self._transforms = transforms
        self._report = report
        self._configuration: tuple[str, str, float] = ('', '', 0.0)
        self._recent: collections.deque[tuple[float, GroundPlane]] = collections.deque(
            maxlen=MAX_RECENT
        )
        """Stamps in seconds and planes of the last `MAX_REST_S`."""

    def is_worth_waiting(self, header: Header, ground_frame: str) -> bool:
        """Return whether the transform for an image is missing, but may still arrive."""
        frame = header.frame_id
        if not frame or self._transforms.can_transform(ground_frame, frame, header.stamp):
            return False
        try:
            latest_s = self._transforms.lookup_latest(ground_frame, frame).stamp_s
        except UnusableInput:
            return False
        return bool(to_seconds(header.stamp) - latest_s <= MAX_EXTRAPOLATION_S)

    def lookup(
        self, header: Header, ground_frame: str, ground_height_m: float
    ) -> GroundPlane | None:
        """
        Return the floor at the time of an image; None, with a report, if it is not available.

        If there is no transform at that time, but the floor did not move in the frame of the
        camera up to a short time before, the latest plane is used.

        Parameters
        ----------
        header
            Header of the image.
        ground_frame
            Frame with z up.
        ground_height_m
            Height of the floor in that frame.
        """
        configuration = (ground_frame, header.frame_id, ground_height_m)
        if configuration != self._configuration:
            self._configuration = configuration
            self._recent.clear()
        stamp_s = to_seconds(header.stamp)
        try:
            transform = self._transforms.lookup(ground_frame, header.frame_id, header.stamp)
            plane = self._remember(StampedTransform(stamp_s, transform), ground_height_m)
        except UnusableInput as error:
            resting = self._resting_plane(stamp_s)
            if resting is None:
                self._report(CAUSE, self._explanation(error))
            return resting
        if not plane.is_usable:
            self._report(
                CAUSE,
                f'the camera is {plane.camera_height_mm / MM_PER_M:.2f} m above the floor, which '
                f'is less than {MIN_DROP_MM / MM_PER_M:g} m; ground_frame must have the z axis '
                'pointing up, and ground_height must be the height of the floor in that frame',
            )
            return None
        return plane

    def _explanation(self, error: UnusableInput) -> str:
        frame, camera_frame, _ = self._configuration
        if self._transforms.can_transform_at_any_time(frame, camera_frame):
            return f'the floor is not used: {error}'
        return (
            f"ground_frame '{printable(frame)}' is not in TF, or not connected with the frame of "
            f"the images, '{printable(camera_frame)}'; the floor is not used"
        )

    def _resting_plane(self, stamp_s: float) -> GroundPlane | None:
        """Return the latest plane if it is recent and did not change before, else None."""
        frame, camera_frame, height_m = self._configuration
        try:
            latest = self._transforms.lookup_latest(frame, camera_frame)
        except UnusableInput:
            return None
        plane = self._remember(latest, height_m)
        if not 0 <= stamp_s - latest.stamp_s <= MAX_EXTRAPOLATION_S:
            return None
        has_rested = latest.stamp_s - self._recent[0][0] >= MIN_REST_S
        has_rested &= all(_is_equal(earlier, plane) for _, earlier in self._recent)
        return plane if has_rested else None

    def _remember(self, found: StampedTransform, height_m: float) -> GroundPlane:
        """Return the plane of a transform from the camera frame, and add it to the recent ones."""
        plane = GroundPlane.from_transform(
            found.transform.rotation, found.transform.translation_mm, MM_PER_M * height_m
        )
        stamp_s = found.stamp_s
        if self._recent and stamp_s < self._recent[-1][0]:
            # The stamps jumped back.
            self._recent.clear()
        if not self._recent or stamp_s > self._recent[-1][0]:
            self._recent.append((stamp_s, plane))
        while stamp_s - self._recent[0][0] > MAX_REST_S:
            self._recent.popleft()
        return plane


def _is_equal(one: GroundPlane, other: GroundPlane) -> bool:
    """Return whether two planes are equal within the accuracy of transforms."""
    change_mm = abs(one.camera_height_mm - other.camera_height_mm)
    tilt = np.arccos(np.clip(one.up @ other.up, -1, 1))
    return bool(change_mm <= MAX_HEIGHT_CHANGE_MM and tilt <= MAX_TILT_CHANGE)
