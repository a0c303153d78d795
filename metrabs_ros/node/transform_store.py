"""Latest transforms of a limited number of TF frames."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.node.transform_filter import SQUARED_NORM_TOLERANCE
from metrabs_ros.people import MAX_MAGNITUDE

MAX_FRAMES = 200
MAX_NAME_CHARS = 200
FRAME_TIMEOUT_S = 15.0
"""Moving frames without a transform for this time are not listed, in seconds."""


class Pose(NamedTuple):
    """Pose of a frame in another frame: rotation [3, 3] and translation [3] in metres."""

    rotation: FloatArray
    translation_m: FloatArray


class _RootedPose(NamedTuple):
    """Root of the tree that contains a frame, and the pose of the frame in the root."""

    root: str
    pose: Pose


IDENTITY = Pose(np.eye(3), np.zeros(3))


class _StampedEdge(NamedTuple):
    """Latest transform of a frame to its parent."""

    parent: str
    pose: Pose
    is_static: bool
    received_s: float


class TransformStore:
    """
    Stores the latest transforms; has the methods that `tf2_ros.TransformListener` calls.

    The buffer of tf2 keeps every frame name, and the pose node publishes a new frame for each
    person, so a buffer of a long-running viewer would grow without limit.  This store removes the
    frame with the oldest transform if there are too many.  Static frames are kept.

    Parameters
    ----------
    max_frames
        Maximum number of frames with a parent.
    """

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        self._max_frames = max_frames
        # Ordered by the time of the latest transform.
        self._edges: dict[str, _StampedEdge] = {}
        # Cache of `_find_rooted_pose`, cleared if an edge changes.
        self._rooted_poses: dict[str, _RootedPose | None] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store the transform of a moving frame; malformed transforms are ignored."""
        self._set(transform, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store the transform of a static frame; malformed transforms are ignored."""
        self._set(transform, is_static=True)

    def names(self) -> set[str]:
        """Return the names of static and recently published frames and of their parents."""
        now_s = time.monotonic()
        return {
            name
            for child, edge in self._edges.items()
            if edge.is_static or now_s - edge.received_s < FRAME_TIMEOUT_S
            for name in (child, edge.parent)
        }

    def pose(self, frame: str, reference: str) -> Pose | None:
        """
        Return the pose of a frame in a reference frame.

        Returns
        -------
        The pose, or None if the frames are not connected or if their tree has a cycle.
        """
        reference_in_root = self._find_rooted_pose(reference)
        frame_in_root = self._find_rooted_pose(frame)
        if (
            reference_in_root is None
            or frame_in_root is None
            or frame_in_root.root != reference_in_root.root
        ):
            return None
        reference_pose, frame_pose = reference_in_root.pose, frame_in_root.pose
        inverse = reference_pose.rotation.T
        return Pose(
            inverse @ frame_pose.rotation,
            inverse @ (frame_pose.translation_m - reference_pose.translation_m),
        )

    def _find_rooted_pose(self, frame: str) -> _RootedPose | None:
        """Return the pose of a frame in the root of its tree, or None if there is a cycle."""
        name = frame.removeprefix('/')
        # From the frame up to the root or to a frame with a cached pose.
        path: dict[str, _StampedEdge] = {}
        while name in self._edges and name not in self._rooted_poses and name not in path:
            path[name] = self._edges[name]
            name = path[name].parent
        rooted = None
        if name not in path:
            rooted = self._rooted_poses.get(name, _RootedPose(name, IDENTITY))
        for child, edge in reversed(path.items()):
            rooted = None if rooted is None else _compose(rooted, edge)
            self._rooted_poses[child] = rooted
        return rooted

    def _set(self, transform: TransformStamped, is_static: bool) -> None:
        child = transform.child_frame_id.removeprefix('/')
        parent = transform.header.frame_id.removeprefix('/')
        pose = _to_pose(transform)
        if pose is None or child == parent:
            return
        if not _is_valid_name(child) or not _is_valid_name(parent):
            return
        self._rooted_poses.clear()
        self._edges.pop(child, None)
        if len(self._edges) >= self._max_frames:
            moving = (name for name, edge in self._edges.items() if not edge.is_static)
            oldest = next(moving, None)
            if oldest is None:
                return
            del self._edges[oldest]
        self._edges[child] = _StampedEdge(parent, pose, is_static, time.monotonic())


def _compose(parent: _RootedPose, edge: _StampedEdge) -> _RootedPose:
    """Return the pose of a child frame in the root."""
    rotation = parent.pose.rotation
    translation_m = rotation @ edge.pose.translation_m + parent.pose.translation_m
    return _RootedPose(parent.root, Pose(rotation @ edge.pose.rotation, translation_m))


def _is_valid_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME_CHARS


def _to_pose(message: TransformStamped) -> Pose | None:
    """Return the pose of a transform, or None if the values are invalid."""
    translation, rotation = message.transform.translation, message.transform.rotation
    translation_m = np.array([translation.x, translation.y, translation.z])
    quaternion = np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    # Comparisons with NaN are false.
    if not (np.abs(translation_m) < MAX_MAGNITUDE).all():
        return None
    if (
        not (np.abs(quaternion) < 2).all()
        or abs(quaternion @ quaternion - 1) > SQUARED_NORM_TOLERANCE
    ):
        return None
    return Pose(rotation_matrix(rotation.x, rotation.y, rotation.z, rotation.w), translation_m)
