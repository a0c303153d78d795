"""Which poses are believed, and which are the same person twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.skeletons.conventions import Skeleton

FARTHEST_MM = 100_000.0
TALLEST_MM = 2_300.0
SHORTEST_MM = 300.0
SAME_POSE = 0.2
"""Poses whose joints lie apart by less of the person's size than this are the same person's."""

FRAGMENT_INSIDE = 0.8
FRAGMENT_SIZE = 0.6
"""A pose so much inside of another's box and so much smaller than it is seen as a part of it."""

CONTAINED_INSIDE = 0.6
"""Who is so much inside of somebody's box may be the same, looked at askew."""
PART_CONFIDENCE_RATIO = 0.75
"""Whose confidence is more than this share of a part's is taken for the whole."""

BONES_MM = {
    frozenset({'hip', 'kne'}): 430.0,
    frozenset({'kne', 'ank'}): 420.0,
    frozenset({'ank', 'toe'}): 170.0,
    frozenset({'sho', 'elb'}): 300.0,
    frozenset({'elb', 'wri'}): 260.0,
    frozenset({'pelv', 'hip'}): 110.0,
    frozenset({'pelv', 'neck'}): 520.0,
    frozenset({'pelv', 'spin'}): 230.0,
    frozenset({'spin', 'neck'}): 280.0,
    frozenset({'neck', 'sho'}): 180.0,
    frozenset({'neck', 'head'}): 130.0,
    frozenset({'hip', 'sho'}): 500.0,
}
"""An adult's (after Drillis and Contini, 1966), by the joints' names without their sides."""
OTHER_BONE_MM = 250.0
BONE_RATIOS = (0.1, 3.0)
BONE_TOLERANCE_MM = 300.0

CONSISTENT_STD_MM = 200.0
CONSISTENT_JOINTS = 0.25
LEAST_OF_BOX = 0.5
SIMILAR_POSE = 0.4
SIMILAR_JOINTS = 0.25
NO_SIMILARITY_MM = 300.0

UPRIGHT_DEGREES = 40.0
MOSTLY_IN_VIEW = 0.4
CONFIDENT_UPRIGHT = 0.35
CONFIDENT_UNUSUAL = 0.75
"""How sure the networks must be: what seems to lie down or is cut off often is no person."""


def has_plausible_size(people: People) -> BoolArray:
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


def is_confident(people: People, tilt_degrees: FloatArray) -> BoolArray:
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
    needed = np.where(cut_off, CONFIDENT_UNUSUAL, needed_confidence(tilt_degrees))
    return people.confidence > needed


def needed_confidence(tilt_degrees: FloatArray) -> FloatArray:
    """Return how sure the networks must be of people who lean by so much, [N]."""
    return np.where(tilt_degrees < UPRIGHT_DEGREES, CONFIDENT_UPRIGHT, CONFIDENT_UNUSUAL)


def suppress_duplicates(people: People, priority: FloatArray) -> BoolArray:
    """
    Tell who is left when everybody is kept only once, [N].

    Two poses are one person's if they nearly coincide in the image, or if one is a small fragment
    within the other's box, and that one is convincing.

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
    area_px2 = people.boxes_px[:, 2:4].prod(axis=-1)
    smaller = area_px2[:, None] < FRAGMENT_SIZE * area_px2
    fragment = (_inside(people.boxes_px) > FRAGMENT_INSIDE) & smaller
    # Who is nobody has no parts.
    whole = kept & (people.confidence > CONFIDENT_UPRIGHT)
    return kept & ~(fragment & whole).any(axis=1)


def is_contained_duplicate(people: People, parts: BoolArray, priority: FloatArray) -> BoolArray:
    """
    Tell who may be but somebody else, looked at askew or in part, [N].

    That is who is mostly inside of the box of somebody with a larger priority, or small where
    somebody's body reaches who is about as convincing, unless the networks are sure.

    Parameters
    ----------
    people
        N people.
    parts
        [N, N], whose circle is that of a part of whose body, by `Regions.parts`.
    priority
        [N].
    """
    confidence = people.confidence
    part = parts & (confidence > PART_CONFIDENCE_RATIO * confidence[:, None])
    askew = (_inside(people.boxes_px) > CONTAINED_INSIDE) & (priority[:, None] < priority)
    return (confidence < CONFIDENT_UNUSUAL) & (part | askew).any(axis=1)


def _inside(boxes_px: FloatArray) -> FloatArray:
    """Return how much of each box is within each other one, [N, N], from 0 to 1."""
    low, high = boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:4]
    overlap = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared_px2 = np.clip(overlap, 0, None).prod(axis=-1)
    area_px2 = np.maximum(boxes_px[:, 2:4].prod(axis=-1), 1e-9)
    return shared_px2 / area_px2[:, None]


def plausible_poses(poses: Poses, skeleton: Skeleton) -> NDArray[np.intp]:
    """
    Return which of N people to keep, the surest first.

    A pose must be finite, have bones of a person's lengths, look alike in all augmentations and
    fill its box; of poses that are the same person's, the surest is kept.

    Parameters
    ----------
    poses
        Of N people.
    skeleton
        With all of their joints.
    """
    mean_mm, mean_px = poses.poses3d_mm.mean(axis=1), poses.poses2d_px.mean(axis=1)
    finite = np.isfinite(poses.poses3d_mm).all(axis=(1, 2, 3)) & (mean_mm[..., 2] > 0).any(axis=1)
    possible = np.flatnonzero(
        finite
        & bones_plausible(mean_mm, skeleton)
        & augmentations_consistent(poses.poses3d_mm)
        & fills_box(mean_px, poses.boxes_px)
    )
    similar = pose_similarity(mean_mm[possible]) > SIMILAR_POSE
    kept: list[int] = []
    for i in np.argsort(-poses.scores[possible], kind='stable'):
        if not similar[i, kept].any():
            kept.append(int(i))
    return possible[kept]


def bones_plausible(poses_mm: FloatArray, skeleton: Skeleton) -> BoolArray:
    """
    Tell whose bones may all be a person's, [N].

    A bone may not if it is a tenth or three times as long as it should be, and off by more than
    300 mm.

    Parameters
    ----------
    poses_mm
        [N, J, 3].
    skeleton
        With J joints; the lengths of its bones follow from their names.
    """
    ends = np.array(skeleton.edges, np.intp).reshape(-1, 2)
    lengths_mm = np.linalg.norm(poses_mm[:, ends[:, 0]] - poses_mm[:, ends[:, 1]], axis=-1)
    expected_mm = bone_lengths(skeleton)
    ratio = lengths_mm / expected_mm
    odd = (ratio < BONE_RATIOS[0]) | (ratio > BONE_RATIOS[1])
    far_off = np.abs(lengths_mm - expected_mm) > BONE_TOLERANCE_MM
    return ~(odd & far_off).any(axis=1)


def bone_lengths(skeleton: Skeleton) -> FloatArray:
    """Return how long a skeleton's bones are in an adult, [E], millimetres."""
    known = frozenset().union(*BONES_MM)
    plain = [name.split('_')[0] for name in skeleton.joint_names]
    parts = [name[1:] if name[1:] in known else name for name in plain]
    return np.array(
        [BONES_MM.get(frozenset({parts[a], parts[b]}), OTHER_BONE_MM) for a, b in skeleton.edges]
    )


def augmentations_consistent(poses_mm: FloatArray) -> BoolArray:
    """
    Tell of whom all augmentations show the same pose, [N].

    That is so if more than a quarter of the joints scatter by less than 200 mm, whatever the size.

    Parameters
    ----------
    poses_mm
        [N, A, J, 3], camera frame.
    """
    aligned_mm = scale_aligned(poses_mm)
    scatter_mm = np.sqrt(aligned_mm.var(axis=1).sum(axis=-1))
    return (scatter_mm < CONSISTENT_STD_MM).mean(axis=-1) > CONSISTENT_JOINTS


def fills_box(poses_px: FloatArray, boxes_px: FloatArray) -> BoolArray:
    """
    Tell whose pose reaches over half of its box or more, [N].

    Measured along the longer sides of the box and of what of the pose lies within it: a person
    seen from the side is slim.

    Parameters
    ----------
    poses_px
        [N, J, 2].
    boxes_px
        [N, 4], left, top, width, height.
    """
    low, high = boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:4]
    start = np.clip(poses_px.min(axis=1), low, high)
    end = np.clip(poses_px.max(axis=1), low, high)
    reach_px = (end - start).max(axis=1, initial=0)
    return reach_px >= LEAST_OF_BOX * boxes_px[:, 2:4].max(axis=1, initial=0)


def pose_similarity(poses_mm: FloatArray) -> FloatArray:
    """
    Return how much alike poses are, [N, N], from 0 to 1.

    It is how near the best quarter of the joints come to each other after scale alignment, as
    two poses of one person often differ in limbs that one of them lost.

    Parameters
    ----------
    poses_mm
        [N, J, 3], camera frame.
    """
    count, joints = poses_mm.shape[:2]
    first, second = np.broadcast_to(poses_mm, (count, *poses_mm.shape)).swapaxes(0, 1), poses_mm
    pairs_mm = scale_aligned(np.stack([first, np.broadcast_to(second, first.shape)], axis=2))
    apart_mm = np.linalg.norm(pairs_mm[:, :, 0] - pairs_mm[:, :, 1], axis=-1)
    best_mm = np.sort(apart_mm, axis=-1)[..., : max(1, int(SIMILAR_JOINTS * joints))]
    return np.clip(1 - best_mm / NO_SIMILARITY_MM, 0, None).mean(axis=-1)


def scale_aligned(poses_mm: FloatArray) -> FloatArray:
    """
    Bring several poses [..., A, J, 3] to one scale about the camera, their root mean square's.

    A camera sees no scale: poses that differ in nothing else look the same.
    """
    square = np.mean(poses_mm**2, axis=(-1, -2), keepdims=True)
    mean_square = square.mean(axis=-3, keepdims=True)
    return poses_mm * np.sqrt(mean_square / np.maximum(square, 1e-12))
