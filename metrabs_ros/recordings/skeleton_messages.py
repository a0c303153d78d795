"""Reading of SkeletonArray messages from untrusted recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.conversions.people import to_people
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MAX_MAGNITUDE, People
from metrabs_ros.recordings.bag_message import BagMessage
from metrabs_ros.recordings.typestore import SKELETONS, typestore

MAX_JOINTS = 1000
PER_JOINT = (
    *('positions', 'velocities', 'standard_deviations', 'confidences', 'image_points', 'in_view'),
    *('axis_standard_deviations', 'network_image_points'),
)
"""The fields of a Skeleton with one entry per joint."""


class UnusableSkeletons(ValueError):  # noqa: N818
    """A message with skeletons is not valid; the text states the reason."""


def valid_people(
    message: BagMessage, count_invalid: Callable[[str, int, str], None]
) -> tuple[Any, People]:
    """
    Return a SkeletonArray and its valid people.

    Raises
    ------
    UnusableSkeletons
        If the message as a whole is not valid.
    """
    try:
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
    except Exception as error:  # Invalid data can raise any exception in the library.
        raise UnusableSkeletons(f'the data is not a SkeletonArray ({printable(error)})') from error
    joints, edges = len(skeletons.joint_names), len(skeletons.joint_edges)
    if not 0 < joints <= MAX_JOINTS:
        raise UnusableSkeletons(f'joint_names has {joints} names; it must have 1 to {MAX_JOINTS}')
    if edges % 2 or (edges and int(max(skeletons.joint_edges)) >= joints):
        raise UnusableSkeletons('joint_edges is not a list of pairs of joints')
    sec, nanosec = int(skeletons.header.stamp.sec), int(skeletons.header.stamp.nanosec)
    if sec < 0 or nanosec >= NS_PER_S:
        raise UnusableSkeletons(f'the stamp {sec} s and {nanosec} ns is invalid')
    consistent = []
    for skeleton in skeletons.skeletons:
        lengths = {name: len(getattr(skeleton, name)) for name in PER_JOINT}
        wrong = next((name for name, length in lengths.items() if length != joints), None)
        if wrong is None:
            consistent.append(skeleton)
        else:
            count_invalid(
                'skeletons', 1, f'{wrong} has {lengths[wrong]} entries for {joints} joint_names'
            )
    people = to_people(dataclasses.replace(skeletons, skeletons=consistent))
    usable = people.finite() & _in_range(people)
    if not usable.all():
        count_invalid('skeletons', int((~usable).sum()), 'a value is not finite or out of range')
        people = people.select(usable)
    return skeletons, people


def _in_range(people: People) -> NDArray[np.bool_]:
    """Return whether velocities, confidence and standard deviations are in range, [N]."""
    velocities = np.abs(people.velocities_mm_s).max(axis=(1, 2), initial=0)
    confidence = people.confidence
    # The conditions also reject NaN.
    return np.asarray(
        (velocities < MAX_MAGNITUDE)
        & (confidence >= 0)
        & (confidence <= 1)
        & (people.joint_std_mm >= 0).all(axis=1)
        & (people.axis_std_mm >= 0).all(axis=(1, 2))
    )
