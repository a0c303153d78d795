"""Convert people to the messages and transforms of ROS4HRI bodies (REP 155)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.message_types import HriMessageTypes
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.transforms import frame_name, quaternions
from metrabs_ros.kinematics.body_tracks import Bodies
from metrabs_ros.kinematics.human_model import HumanModel
from metrabs_ros.kinematics.kinematic_tree import ROOT
from metrabs_ros.kinematics.landmarks import LANDMARKS

KEYPOINTS = (
    *('nose', 'neck', 'right_shoulder', 'right_elbow', 'right_wrist'),
    *('left_shoulder', 'left_elbow', 'left_wrist'),
    *('right_hip', 'right_knee', 'right_ankle', 'left_hip', 'left_knee', 'left_ankle'),
    *('left_eye', 'right_eye', 'left_ear', 'right_ear'),
)
"""Keypoints of hri_msgs/Skeleton2D, in the order of its constants."""
SHOULDERS = [LANDMARKS.index(f'{side}_shoulder') for side in ('left', 'right')]
LANDMARKS_OF_KEYPOINTS = np.array(
    [SHOULDERS if name == 'neck' else [LANDMARKS.index(name)] * 2 for name in KEYPOINTS]
)
"""Indices [18, 2] of the landmarks whose midpoints are the keypoints."""


def id_prefixes(cameras: Sequence[str]) -> dict[str, str]:
    """
    Return the beginnings of the ids of each camera's bodies.

    They start with a letter and have no repeated underscores, as topic names require.

    Parameters
    ----------
    cameras
        Different namespaces; the empty one has no prefix.
    """
    prefixes: dict[str, str] = {}
    for camera in cameras:
        name = re.sub('_+', '_', frame_name(camera)).strip('_')
        name = name if name[:1].isalpha() or not camera else f'camera{name}'
        # Different namespaces may have equal names, such as a/b and a_b.
        while name and f'{name}_' in prefixes.values():
            name += 'x'
        prefixes[camera] = f'{name}_' if name else ''
    return prefixes


def body_ids(prefix: str, people: NDArray[np.int64]) -> list[str]:
    """Return the ids of the bodies of people with ids [N]."""
    return [f'{prefix}p{person}' for person in people.tolist()]


def to_regions(
    boxes_px: FloatArray,
    confidence: FloatArray,
    image_shape: tuple[int, ...],
    header: Any,
    types: HriMessageTypes,
) -> list[Any]:
    """
    Convert boxes to a NormalizedRegionOfInterest2D each.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height; clipped to the image.
    confidence
        [N], from 0 to 1.
    image_shape
        Height and width in pixels, further entries are ignored.
    header
        Header of the image.
    types
        Constructors of the message types.
    """
    size = np.array(image_shape[1::-1], float)
    start, end = boxes_px[:, :2] / size, (boxes_px[:, :2] + boxes_px[:, 2:4]) / size
    values = np.concatenate([start, end, confidence[:, None]], axis=1)
    return [
        types.NormalizedRegionOfInterest2D(
            header=header, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax, c=c
        )
        for xmin, ymin, xmax, ymax, c in np.clip(values, 0, 1).tolist()
    ]


def to_skeletons2d(
    points_px: FloatArray,
    confidence: FloatArray,
    image_shape: tuple[int, ...],
    header: Any,
    types: HriMessageTypes,
) -> list[Any]:
    """
    Convert image points of landmarks to a Skeleton2D for each person.

    Points outside the image are moved to its border, and have a confidence of 0.

    Parameters
    ----------
    points_px
        [N, 17, 2], image points of the landmarks.
    confidence
        [N, 17], from 0 to 1.
    image_shape
        Height and width in pixels, further entries are ignored.
    header
        Header of the image.
    types
        Constructors of the message types.
    """
    size = np.array(image_shape[1::-1], float)
    # Integer coordinates are pixel centres.
    points = ((points_px[:, LANDMARKS_OF_KEYPOINTS] + 0.5) / size).mean(axis=2)
    inside = np.all((points >= 0) & (points <= 1), axis=-1)
    values = np.where(inside, confidence[:, LANDMARKS_OF_KEYPOINTS].min(axis=2), 0.0)
    keypoints = np.concatenate([np.clip(points, 0, 1), values[..., None]], axis=-1)
    point = types.NormalizedPointOfInterest2D
    return [
        types.Skeleton2D(header=header, skeleton=[point(x=x, y=y, c=c) for x, y, c in own])
        for own in keypoints.tolist()
    ]


def to_joint_state(
    names: Sequence[str], angles: FloatArray, header: Any, types: HriMessageTypes
) -> Any:
    """Convert joint angles [A] with names to a JointState."""
    return types.JointState(header=header, name=list(names), position=angles.tolist())


def to_position(position_mm: FloatArray, header: Any, types: HriMessageTypes) -> Any:
    """Convert a position [3] in the frame of the header to a PointStamped."""
    message = types.PointStamped(header=header)
    message.point.x, message.point.y, message.point.z = to_metres(position_mm).tolist()
    return message


def to_velocity(
    velocity_mm_s: FloatArray,
    rotation: FloatArray,
    body: str,
    header: Any,
    types: HriMessageTypes,
) -> Any:
    """
    Convert a velocity to a TwistStamped along the axes of the body.

    Parameters
    ----------
    velocity_mm_s
        [3], in the frame of the header.
    rotation
        [3, 3], of the body in this frame.
    body
        Id of the body.
    header
        Header of the people.
    types
        Constructors of the message types.
    """
    own = types.Header(stamp=header.stamp, frame_id=f'body_{body}')
    message = types.TwistStamped(header=own)
    linear = message.twist.linear
    linear.x, linear.y, linear.z = to_metres(velocity_mm_s @ rotation).tolist()
    return message


def to_body_transforms(
    bodies: Bodies, ids: Sequence[str], header: Any, types: HriMessageTypes
) -> list[Any]:
    """Return a TransformStamped for each body, in the frame of the header."""
    places = to_metres(bodies.origins_mm).tolist()
    rotations = quaternions(bodies.rotations).tolist()
    return [
        _transform(header, f'body_{own}', place, rotation, types)
        for own, place, rotation in zip(ids, places, rotations)
    ]


def to_link_transforms(
    bodies: Bodies,
    ids: Sequence[str],
    model: HumanModel,
    header: Any,
    types: HriMessageTypes,
) -> list[Any]:
    """Return a TransformStamped for each link of each body except for the root, [N * (L - 1)]."""
    tree = model.tree
    places = to_metres(model.origins_mm(bodies.lengths_mm)).tolist()
    rotations = tree.joint_quaternions(bodies.angles).tolist()
    transforms = []
    for n, own in enumerate(ids):
        names = [f'{name}_{own}' for name in tree.link_names]
        headers = [types.Header(stamp=header.stamp, frame_id=name) for name in names]
        transforms += [
            _transform(headers[parent], names[i], places[n][i], rotations[n][i], types)
            for i, parent in enumerate(tree.parents.tolist())
            if parent != ROOT
        ]
    return transforms


def _transform(
    header: Any, child: str, place: list[float], quaternion: list[float], types: HriMessageTypes
) -> Any:
    message = types.TransformStamped(header=header, child_frame_id=child)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = place
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion
    return message
