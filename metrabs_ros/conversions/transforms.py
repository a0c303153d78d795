"""Convert people to transforms: one frame at the pelvis of each person."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.people import People

PERSON_FRAME = re.compile(r'\w*person_\d+(_\w+)?')
"""Names of the TF frames that are published for people."""
BODY_FRAME = re.compile(
    r'(body|waist|torso|([rpy]_)?head|[lr]_(([yp]_)?(shoulder|hip)|elbow|wrist|knee|ankle))'
    r'_(\w+_)?p\d+'
)
"""Names of the TF frames that are published for ROS4HRI bodies."""
MAX_FRAME_CHARS = 1000
IDENTITY_QUATERNION = np.array([0.0, 0.0, 0.0, 1.0])


def to_transforms(
    people: People,
    header: Any,
    types: MessageTypes,
    prefix: str = '',
    with_joints: bool = False,
) -> list[Any]:
    """
    Create a TransformStamped for each person, and optionally for each joint.

    The origin of the frame ``person_<id>`` is between the hips, x points forward, y left, and z up
    along the spine (REP 103).  Joint frames are children of it with the same orientation.

    Parameters
    ----------
    people
        The people, in the frame of the header.
    header
        Header with the stamp of the image.
    types
        Constructors of the message types.
    prefix
        Prefix of the frame names.
    with_joints
        Whether to create a frame ``person_<id>_<joint>`` for each joint.

    Returns
    -------
    list of TransformStamped
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
            person_header = types.Header(stamp=header.stamp, frame_id=name)
            transforms += [
                _transform(person_header, f'{name}_{suffix}', joint_mm, IDENTITY_QUATERNION, types)
                for suffix, joint_mm in zip(suffixes, in_body_mm[i])
            ]
    return transforms


def frame_name(text: str) -> str:
    """Replace characters that are not allowed in frame names by underscores."""
    return re.sub(r'[^A-Za-z0-9_]', '_', text)


def is_person_frame(frame_id: str) -> bool:
    """Return whether a TF frame has the name of a frame of a person."""
    if len(frame_id) > MAX_FRAME_CHARS:
        return False
    return any(pattern.fullmatch(frame_id) for pattern in (PERSON_FRAME, BODY_FRAME))


def _transform(
    header: Any,
    child: str,
    translation_mm: FloatArray,
    quaternion: FloatArray,
    types: MessageTypes,
) -> Any:
    message = types.TransformStamped(header=header, child_frame_id=child)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = to_metres(translation_mm).tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion.tolist()
    return message


def body_axes(people: People) -> FloatArray:
    """
    Return the forward, left and up directions of each body, as columns of rotations [N, 3, 3].

    Up is the direction of the spine.  Left is the component of the direction from the right to the
    left hip that is orthogonal to it.
    """
    up = _unit(people.midpoint('shoulder') - people.midpoint('hip'), (0, -1, 0))
    across = people.part_position('hip', 'left') - people.part_position('hip', 'right')
    across = across - (across * up).sum(axis=-1, keepdims=True) * up
    left = _unit(across, (1, 0, 0))
    # With a fallback, the two directions may not be orthogonal.
    forward = _unit(np.cross(left, up), (0, 0, -1))
    left = np.cross(up, forward)
    return np.stack([forward, left, up], axis=-1)


def quaternions(rotations: FloatArray) -> FloatArray:
    """Convert rotations [N, 3, 3] to quaternions (x, y, z, w), [N, 4]."""
    # Shepperd's method: the matrix contains four times the products of the quaternion elements.
    # The row with the largest diagonal element is normalised, to avoid division by small numbers.
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


def rotation_matrix(x: float, y: float, z: float, w: float) -> FloatArray:
    """Return the rotation matrix [3, 3] of a quaternion with a norm other than 0."""
    axis = np.array([x, y, z])
    norm = max(float(axis @ axis + w * w), 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 / norm * (w * cross + cross @ cross)


def _unit(vectors: FloatArray, fallback: tuple[float, float, float]) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), fallback)
