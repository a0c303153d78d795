"""The latest transforms of a limited number of TF frames."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped

from metrabs_ros.arrays import FloatArray
from metrabs_ros.node.transforms import rotation_matrix
from metrabs_ros.people import MAX_MAGNITUDE

MOST_FRAMES = 200
LONGEST_NAME = 200
FORGOTTEN_S = 15.0
"""A moving frame that is not published for so long is no longer listed."""
QUATERNION_TOLERANCE = 0.01
"""Of the squared norm, as in tf2."""


class Pose(NamedTuple):
    """A rotation [3, 3] and a translation [3], in metres, to another frame."""

    rotation: FloatArray
    translation_m: FloatArray


class _Placed(NamedTuple):
    """The frame without a parent above a frame, and the pose of the frame in it."""

    top: str
    pose: Pose


STILL = Pose(np.eye(3), np.zeros(3))


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
        # Of frames in `_links`, as long as these do not change.
        self._placed: dict[str, _Placed | None] = {}

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
        """
        Return what takes points of a frame to another one, or None if it is not known.

        Frames that are below themselves, or below such frames, have no pose.
        """
        root_placed, placed = self._place(root), self._place(frame)
        if root_placed is None or placed is None or placed.top != root_placed.top:
            return None
        root_pose, pose = root_placed.pose, placed.pose
        back = root_pose.rotation.T
        return Pose(back @ pose.rotation, back @ (pose.translation_m - root_pose.translation_m))

    def _place(self, frame: str) -> _Placed | None:
        """Return a frame's place below its top frame, or None if the way there is a cycle."""
        name = frame.removeprefix('/')
        # From the frame up to the top or to a frame whose place is known.
        path: dict[str, _Link] = {}
        while name in self._links and name not in self._placed and name not in path:
            path[name] = self._links[name]
            name = path[name].parent
        placed = None if name in path else self._placed.get(name, _Placed(name, STILL))
        for child, link in reversed(path.items()):
            placed = None if placed is None else _below(placed, link)
            self._placed[child] = placed
        return placed

    def _set(self, transform: TransformStamped, is_static: bool) -> None:
        child = transform.child_frame_id.removeprefix('/')
        parent = transform.header.frame_id.removeprefix('/')
        pose = _pose_in(transform)
        if pose is None or child == parent or not _is_name(child) or not _is_name(parent):
            return
        self._placed.clear()
        self._links.pop(child, None)
        if len(self._links) >= self._most_frames:
            moving = (name for name, link in self._links.items() if not link.is_static)
            oldest = next(moving, None)
            if oldest is None:
                return
            del self._links[oldest]
        self._links[child] = _Link(parent, pose, is_static, time.monotonic())


def _below(parent: _Placed, link: _Link) -> _Placed:
    """Return the place of a frame whose parent has a place."""
    rotation = parent.pose.rotation
    translation_m = rotation @ link.pose.translation_m + parent.pose.translation_m
    return _Placed(parent.top, Pose(rotation @ link.pose.rotation, translation_m))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME


def _pose_in(message: TransformStamped) -> Pose | None:
    """Return the numbers of a transform, or None if they cannot be one."""
    move, turn = message.transform.translation, message.transform.rotation
    translation_m = np.array([move.x, move.y, move.z])
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    # Comparisons with NaN are false.
    if not (np.abs(translation_m) < MAX_MAGNITUDE).all():
        return None
    if (
        not (np.abs(quaternion) < 2).all()
        or abs(quaternion @ quaternion - 1) > QUATERNION_TOLERANCE
    ):
        return None
    return Pose(rotation_matrix(turn.x, turn.y, turn.z, turn.w), translation_m)
