"""Which poses are believed, and which are the same person twice."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.people import People

FARTHEST_MM = 100_000.0
TALLEST_MM = 2_300.0
SHORTEST_MM = 300.0
SAME_POSE = 0.2
"""Poses whose joints lie apart by less of the person's size than this are the same person's."""

FRAGMENT_INSIDE = 0.8
FRAGMENT_SIZE = 0.6
"""A pose so much inside of another's box and so much smaller than it is seen as a part of it."""

UPRIGHT_DEGREES = 40.0
MOSTLY_IN_VIEW = 0.4
CONVINCING_USUAL = 0.35
CONVINCING_UNUSUAL = 0.75
"""How sure the networks must be: what seems to lie down or is cut off often is no person."""


def believable(people: People) -> BoolArray:
    """
    Tell whose pose can be a person's, [N].

    All joints are finite and in front of the camera, no farther than 100 m, and the body is
    neither larger than a tall person's nor smaller than an infant's.
    """
    poses_mm = people.poses3d_mm
    coordinates = np.concatenate([poses_mm, people.poses2d_px], axis=-1)
    finite = np.all(np.isfinite(coordinates), axis=(1, 2))
    poses_mm = np.where(finite[:, None, None], poses_mm, 0)
    depth_mm = poses_mm[..., 2]
    extent_mm = np.ptp(poses_mm, axis=1)
    # The diagonal of the limbs' reach exceeds the stature with raised arms: bound each axis.
    size_mm = extent_mm.max(axis=-1, initial=0)
    return (
        finite
        & (depth_mm.min(axis=1, initial=np.inf) > 0)
        & (depth_mm.max(axis=1, initial=0) < FARTHEST_MM)
        & (size_mm < TALLEST_MM)
        & (size_mm > SHORTEST_MM)
    )


def convincing(people: People, tilt_degrees: FloatArray) -> BoolArray:
    """
    Tell who is a person rather than a false alarm, [N].

    Parameters
    ----------
    people
        N people; their confidence is the detector's score times the pose network's.
    tilt_degrees
        [N], how far each person leans from upright.
    """
    cut_off = people.in_view.mean(axis=1) <= MOSTLY_IN_VIEW
    needed = np.where(cut_off, CONVINCING_UNUSUAL, needed_confidence(tilt_degrees))
    return people.confidence > needed


def needed_confidence(tilt_degrees: FloatArray) -> FloatArray:
    """Return how sure the networks must be of people who lean by so much, [N]."""
    return np.where(tilt_degrees < UPRIGHT_DEGREES, CONVINCING_USUAL, CONVINCING_UNUSUAL)


def distinct(people: People, priority: FloatArray) -> BoolArray:
    """
    Tell who is left when everybody is kept only once, [N].

    Two poses are one person's if they nearly coincide in the image, or if one is a small fragment
    within the other's box.

    Parameters
    ----------
    people
        N people.
    priority
        [N], of two poses that coincide the one with the larger is kept.
    """
    poses_px = people.poses2d_px
    size_px = np.linalg.norm(np.ptp(poses_px, axis=1), axis=-1)
    # The median, as two poses of one person often differ in a limb that one of them lost.
    apart_px = np.median(np.linalg.norm(poses_px[:, None] - poses_px[None], axis=-1), axis=-1)
    same = apart_px < SAME_POSE * np.minimum(size_px[:, None], size_px[None])
    kept = np.zeros(len(people), bool)
    for i in np.argsort(-priority, kind='stable'):
        kept[i] = not (same[i] & kept).any()
    return kept & ~(_fragments(people.boxes_px) & kept).any(axis=1)


def _fragments(boxes_px: FloatArray) -> BoolArray:
    """Tell of each box whether it is a fragment of each other one, [N, N]."""
    low, high = boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:4]
    overlap = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared_px2 = np.clip(overlap, 0, None).prod(axis=-1)
    area_px2 = np.maximum(boxes_px[:, 2:4].prod(axis=-1), 1e-9)
    inside = shared_px2 > FRAGMENT_INSIDE * area_px2[:, None]
    return inside & (area_px2[:, None] < FRAGMENT_SIZE * area_px2[None])
