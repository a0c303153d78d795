"""Validation of SkeletonArray messages from other nodes, with limits on memory and time."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from metrabs_ros.arrays import BoolArray
from metrabs_ros.conversions.people import people_of, skeleton_of
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.people import People

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
"""Fields of a Skeleton with one entry per joint, or empty in all skeletons of a message."""


def valid_people(message: Any) -> tuple[People, collections.Counter[str]]:
    """
    Return the valid people of a SkeletonArray, and the numbers of invalid ones by reason.

    People are valid if their arrays have one entry per joint, their values are finite and in
    range, confidences are from 0 to 1, and standard deviations are not negative.

    Raises
    ------
    ValueError
        If the message as a whole is not valid: there are no joint names, a bone has an invalid
        joint index, a limit is exceeded, or the stamp is invalid.
    """
    _check_message(message)
    lengths = _array_lengths(message)
    invalid: collections.Counter[str] = collections.Counter()
    consistent = []
    for skeleton in message.skeletons:
        if reason := _inconsistency(skeleton, lengths):
            invalid[reason] += 1
        else:
            consistent.append(skeleton)
    with np.errstate(over='ignore', invalid='ignore'):
        people = people_of(consistent, skeleton_of(message))
    is_valid = people.finite() & _in_range(people)
    if not is_valid.all():
        invalid['a value is not finite or out of range'] += int((~is_valid).sum())
        people = people.select(is_valid)
    return people, invalid


def _check_message(message: Any) -> None:
    """
    Check the stamp, the numbers of skeletons, joints and bones, and the joint indices of bones.

    Raises
    ------
    ValueError
        As in `valid_people`.
    """
    stamp = message.header.stamp
    if stamp.sec < 0 or stamp.nanosec >= NS_PER_S:
        raise ValueError(f'the stamp {stamp.sec} s and {stamp.nanosec} ns is invalid')
    joints, edges = len(message.joint_names), len(message.joint_edges)
    skeletons = len(message.skeletons)
    for count, limit, what in (
        (joints, MAX_JOINTS, 'joints'),
        (edges // 2, MAX_BONES, 'bones'),
        (skeletons, MAX_SKELETONS, 'people'),
        (skeletons * joints, MAX_POINTS, 'joints of all people'),
        (skeletons * (edges // 2), MAX_POINTS, 'bones of all people'),
    ):
        if count > limit:
            raise ValueError(f'the message has {count} {what}; at most {limit} are supported')
    if not joints:
        raise ValueError('joint_names is empty; set it also in messages without people')
    if edges % 2:
        raise ValueError(f'joint_edges has {edges} entries; it must be a list of pairs of joints')
    if any(not 0 <= joint < joints for joint in message.joint_edges):
        raise ValueError(f'joint_edges has an index that is not from 0 to {joints - 1}')


def _array_lengths(message: Any) -> dict[str, int]:
    """Return the lengths that the arrays of all skeletons must have, by field."""
    joints = len(message.joint_names)
    lengths = dict.fromkeys(REQUIRED_FIELDS, joints)
    for field in OPTIONAL_FIELDS:
        is_given = any(len(getattr(skeleton, field)) for skeleton in message.skeletons)
        lengths[field] = joints if is_given else 0
    return lengths


def _inconsistency(skeleton: Any, lengths: dict[str, int]) -> str:
    """Return which array of a skeleton has a wrong length; '' if none has."""
    for field, length in lengths.items():
        count = len(getattr(skeleton, field))
        if count != length:
            return f'{field} has {count} entries, but there are {length} joints'
    return ''


def _in_range(people: People) -> BoolArray:
    """Return whether confidences and standard deviations are in range, [N]."""
    # The conditions also reject NaN.
    return np.asarray(
        (people.confidence >= 0)
        & (people.confidence <= 1)
        & (people.joint_std_mm >= 0).all(axis=1)
        & (people.axis_std_mm >= 0).all(axis=(1, 2))
    )
