"""What messages hold that are shown, checked before it takes memory or time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from metrabs_ros.conversions.people import to_people
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size
from metrabs_ros.people import MAX_MAGNITUDE, People

MOST_JOINTS = 1000
MOST_BONES = 10_000
MOST_SKELETONS = 1000
MOST_POINTS = 100_000
"""Joints, or bones, of all skeletons of a message: they are converted one by one."""
ONE_EACH = ('positions', 'image_points', 'confidences', 'in_view')
"""Fields of a Skeleton with an entry for each joint."""
ONE_EACH_OR_NONE = ('velocities', 'standard_deviations')
"""Fields of a Skeleton with an entry for each joint, or empty."""
MOST_PIXELS = 50_000_000
"""Of an image that is shown; a browser decodes it, too."""
PNG_START = b'\x89PNG'
JPEG_START = b'\xff\xd8\xff'


def checked_people(message: Any) -> People:
    """
    Return the people in a SkeletonArray whose joints have possible positions.

    Velocities that are not finite are replaced by 0.

    Raises
    ------
    ValueError
        If its arrays have other lengths than it has joints, its bones have no such joints,
        there are too many of anything, or its stamp is negative.
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
    Check how many entries a SkeletonArray has, and the joints of its bones.

    Raises
    ------
    ValueError
        See `checked_people`.
    """
    joints, bones = len(message.joint_names), len(message.joint_edges) // 2
    skeletons = len(message.skeletons)
    for count, limit, what in (
        (joints, MOST_JOINTS, 'joints'),
        (bones, MOST_BONES, 'bones'),
        (skeletons, MOST_SKELETONS, 'people'),
        (skeletons * joints, MOST_POINTS, 'joints of all people'),
        (skeletons * bones, MOST_POINTS, 'bones of all people'),
    ):
        if count > limit:
            raise ValueError(f'{count} {what} are too many; up to {limit} are shown')
    if any(not 0 <= joint < joints for joint in message.joint_edges):
        raise ValueError(f'joint_edges has an index outside of 0 to {joints - 1}')
    for skeleton in message.skeletons:
        for field in (*ONE_EACH, *ONE_EACH_OR_NONE):
            count = len(getattr(skeleton, field))
            if count != joints and (count or field in ONE_EACH):
                raise ValueError(f'{field} has {count} entries, but there are {joints} joints')


def checked_file(message: Any) -> tuple[bytes, tuple[int, int]]:
    """
    Return the bytes of a CompressedImage that browsers show, and its height and width.

    Raises
    ------
    ValueError
        If it is no JPEG and no PNG image, or too large.
    """
    data = bytes(message.data)
    size = image_size(data)
    if size is None or not data.startswith((JPEG_START, PNG_START)):
        raise ValueError(
            f'{len(data)} bytes of format {printable(message.format)!r} are neither JPEG nor PNG'
        )
    width, height = size
    check_image_size(width, height, MOST_PIXELS)
    return data, (height, width)
