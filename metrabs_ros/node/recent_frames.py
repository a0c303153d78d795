"""The latest transforms of a limited number of TF frames."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped

from metrabs_ros.arrays import FloatArray
from metrabs_ros.node.frames import rotation_matrix
from metrabs_ros.people import BEYOND_ALL_PLACES

MOST_FRAMES = 200
LONGEST_NAME = 200
DEEPEST = 100
"""Frames between a frame and its root."""
FORGOTTEN_S = 15.0
"""A moving frame that is not published for so long is no longer listed."""
QUATERNION_TOLERANCE = 0.01
"""Of the squared norm, as in tf2."""


class Pose(NamedTuple):
    """A rotation [3, 3] and a translation [3], in metres, to another frame."""

    rotation: FloatArray
    translation_m: FloatArray


class _Link(NamedTuple):
    """The last transform of a frame, to its parent."""

    parent: str
    pose: Pose
    is_static: bool
    received_s: float


class RecentFrames:
    """
    The latest transforms, with the methods that `tf2_ros.TransformListener` calls.

    The buffer of tf2 keeps each frame that was ever published, and the pose node publishes a new
    one for each person.  A viewer that runs for weeks needs one that forgets.  Of many frames,
    it forgets the one whose last transform is the oldest; fixed frames are kept.

    Parameters
    ----------
    most_frames
        How many frames are kept.
    """

    def __init__(self, most_frames: int = MOST_FRAMES) -> None:
        self._most_frames = most_frames
        # In the order of their last transforms.
        self._links: dict[str, _Link] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Take the transform of a moving frame; a malformed one is ignored."""
        self._set(transform, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Take the transform of a fixed frame; a malformed one is ignored."""
        self._set(transform, is_static=True)

    def names(self) -> set[str]:
        """Return the frames that are fixed or were published recently, and their parents."""
        now_s = time.monotonic()
        return {
            name
            for child, link in self._links.items()
            if link.is_static or now_s - link.received_s < FORGOTTEN_S
            for name in (child, link.parent)
        }

    def pose(self, frame: str, root: str) -> Pose | None:
        """Return what takes points of a frame to another one, or None if it is not known."""
        root_top, root_pose = self._to_top(root)
        top, pose = self._to_top(frame)
        if top != root_top:
            return None
        back = root_pose.rotation.T
        return Pose(back @ pose.rotation, back @ (pose.translation_m - root_pose.translation_m))

    def _to_top(self, frame: str) -> tuple[str, Pose]:
        """Return the frame without a parent above a frame, and what takes points there."""
        name = frame.removeprefix('/')
        rotation: FloatArray = np.eye(3)
        translation_m: FloatArray = np.zeros(3)
        for _ in range(DEEPEST):
            link = self._links.get(name)
            if link is None:
                break
            rotation = link.pose.rotation @ rotation
            translation_m = link.pose.rotation @ translation_m + link.pose.translation_m
            name = link.parent
        return name, Pose(rotation, translation_m)

    def _set(self, transform: TransformStamped, is_static: bool) -> None:
        child = transform.child_frame_id.removeprefix('/')
        parent = transform.header.frame_id.removeprefix('/')
        pose = _pose_in(transform)
        if pose is None or child == parent or not _is_name(child) or not _is_name(parent):
            return
        self._links.pop(child, None)
        if len(self._links) >= self._most_frames:
            moving = (name for name, link in self._links.items() if not link.is_static)
            oldest = next(moving, None)
            if oldest is None:
                return
            del self._links[oldest]
        self._links[child] = _Link(parent, pose, is_static, time.monotonic())


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME


def _pose_in(message: TransformStamped) -> Pose | None:
    """Return the numbers of a transform, or None if they cannot be one."""
    move, turn = message.transform.translation, message.transform.rotation
    translation_m = np.array([move.x, move.y, move.z])
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    # Comparisons with NaN are false.
    if not (np.abs(translation_m) < BEYOND_ALL_PLACES).all():
        return None
    if (
        not (np.abs(quaternion) < 2).all()
        or abs(quaternion @ quaternion - 1) > QUATERNION_TOLERANCE
    ):
        return None
    return Pose(rotation_matrix(turn.x, turn.y, turn.z, turn.w), translation_m)
