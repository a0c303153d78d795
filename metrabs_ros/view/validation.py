"""Validation of messages before they are displayed, with limits on memory and time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from metrabs_ros.conversions.people import to_people
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size
from metrabs_ros.people import MAX_MAGNITUDE, People

MAX_JOINTS = 1000
MAX_BONES = 10_000
MAX_SKELETONS = 1000
MAX_POINTS = 100_000
"""Maximum number of joints, and of bones, of all people of a message."""
REQUIRED_FIELDS = ('positions', 'image_points', 'confidences', 'in_view')
"""Fields of a Skeleton with one entry per joint."""
OPTIONAL_FIELDS = (
    'velocities',
    'standard_deviations',
    'axis_standard_deviations',
    'network_image_points',
)
"""Fields of a Skeleton with one entry per joint, or empty."""
MAX_PIXELS = 50_000_000
"""Maximum size of a displayed image, which the browser must decode."""
PNG_START = b'\x89PNG'
JPEG_START = b'\xff\xd8\xff'


def validate_people(message: Any) -> People:
    """
    Return the people in a SkeletonArray that have finite joint positions in range.

    Velocities that are not are replaced by 0.

    Raises
    ------
    ValueError
        If there are no joint names, the lengths of arrays are inconsistent, a bone has an invalid
        joint index, a limit is exceeded, or the stamp is negative.
    """
    _check_counts(message)
    if message.header.stamp.sec < 0:
        raise ValueError(f'the stamp {message.header.stamp.sec} s is negative')
    with np.errstate(over='ignore', invalid='ignore'):
        people = to_people(message)
    people = people.select(people.finite())
    velocities = people.velocities_mm_s
    is_possible = np.abs(velocities) < MAX_MAGNITUDE
    return dataclasses.replace(people, velocities_mm_s=np.where(is_possible, velocities, 0.0))


def _check_counts(message: Any) -> None:
    """
    Check the lengths of the arrays in a SkeletonArray, and the joint indices of its bones.

    Raises
    ------
    ValueError
        As in `validate_people`.
    """
    joints, bones = len(message.joint_names), len(message.joint_edges) // 2
    skeletons = len(message.skeletons)
    for count, limit, what in (
        (joints, MAX_JOINTS, 'joints'),
        (bones, MAX_BONES, 'bones'),
        (skeletons, MAX_SKELETONS, 'people'),
        (skeletons * joints, MAX_POINTS, 'joints of all people'),
        (skeletons * bones, MAX_POINTS, 'bones of all people'),
    ):
        if count > limit:
            raise ValueError(f'the message has {count} {what}; at most {limit} are displayed')
    if not joints:
        raise ValueError('joint_names is empty; set it also in messages without people')
    if any(not 0 <= joint < joints for joint in message.joint_edges):
        raise ValueError(f'joint_edges has an index that is not from 0 to {joints - 1}')
    for skeleton in message.skeletons:
        for field in (*REQUIRED_FIELDS, *OPTIONAL_FIELDS):
            count = len(getattr(skeleton, field))
            if count != joints and (count or field in REQUIRED_FIELDS):
                raise ValueError(f'{field} has {count} entries, but there are {joints} joints')


def validate_image_file(message: Any) -> tuple[bytes, tuple[int, int]]:
    """
    Return the data of a CompressedImage that browsers can display, and its height and width.

    Raises
    ------
    ValueError
        If the data is not a JPEG or PNG image, or the image is too large.
    """
    data = bytes(message.data)
    size = image_size(data)
    if size is None or not data.startswith((JPEG_START, PNG_START)):
        raise ValueError(
            f'the image of format {printable(message.format)!r} is neither a JPEG nor a PNG image'
        )
    width, height = size
    check_image_size(width, height, MAX_PIXELS)
    return data, (height, width)
