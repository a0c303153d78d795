"""From people to transforms: a frame at each person's pelvis."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.people import People

IDENTITY_QUATERNION = np.array([0.0, 0.0, 0.0, 1.0])


def to_transforms(
    people: People,
    header: Any,
    types: MessageTypes,
    prefix: str = '',
    with_joints: bool = False,
) -> list[Any]:
    """
    Return the TransformStampeds of the frames ``person_<id>``, and of those of their joints.

    A person's frame sits between the hips, x forward, y left, z up along the spine (REP 103).  A
    joint's frame is below it, turned the same way.

    Parameters
    ----------
    people
        In the frame of the header.
    header
        With the image's stamp.
    types
        What makes messages.
    prefix
        Comes before the frames' names.
    with_joints
        Whether there is to be a frame ``person_<id>_<joint>`` for each joint.
    """
    origins = people.positions_mm
    axes = body_axes(people)
    rotations = quaternions(axes)
    in_body_mm = (people.poses3d_mm - origins[:, None]) @ axes
    suffixes = [frame_name(name) for name in people.skeleton.joint_names]
    transforms = []
    for i in range(len(people)):
        name = f'{prefix}person_{people.ids[i]}'
        transforms.append(_transform(header, name, origins[i], rotations[i], types))
        if with_joints:
            below = types.Header(stamp=header.stamp, frame_id=name)
            transforms += [
                _transform(below, f'{name}_{suffix}', place_mm, IDENTITY_QUATERNION, types)
                for suffix, place_mm in zip(suffixes, in_body_mm[i])
            ]
    return transforms


def frame_name(text: str) -> str:
    """Return a text with all that a frame's name cannot have replaced."""
    return re.sub(r'[^A-Za-z0-9_]', '_', text)


def _transform(
    header: Any, child: str, place_mm: FloatArray, rotation: FloatArray, types: MessageTypes
) -> Any:
    message = types.TransformStamped(header=header, child_frame_id=child)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = to_metres(place_mm).tolist()
    turn.x, turn.y, turn.z, turn.w = rotation.tolist()
    return message


def body_axes(people: People) -> FloatArray:
    """
    Return each body's forward, left and up directions, as columns of rotations [N, 3, 3].

    Up runs along the spine, left from the right hip to the left one as far as it is at right
    angles to it.
    """
    up = _unit(people.midpoint('shoulder') - people.midpoint('hip'), (0, -1, 0))
    across = people.place('hip', 'left') - people.place('hip', 'right')
    across = across - (across * up).sum(axis=-1, keepdims=True) * up
    left = _unit(across, (1, 0, 0))
    # Where a fallback came in, the two may not be at right angles.
    forward = _unit(np.cross(left, up), (0, 0, -1))
    left = np.cross(up, forward)
    return np.stack([forward, left, up], axis=-1)


def quaternions(rotations: FloatArray) -> FloatArray:
    """Return the quaternions (x, y, z, w), [N, 4], of rotations [N, 3, 3]."""
    # Four times the products of the quaternion's elements, row by row (Shepperd's method): the
    # row with the largest diagonal element is the one that divides by no small number.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.moveaxis(rotations, 0, -1)
    products = np.array(
        [
            [1 + xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy],
            [zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz],
        ]
    )
    best = np.argmax(np.einsum('iin->in', products), axis=0)
    rows = products[best, :, np.arange(len(rotations))]
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _unit(vectors: FloatArray, fallback: tuple[float, float, float]) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), fallback)
