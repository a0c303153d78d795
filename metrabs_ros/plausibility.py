"""Plausibility checks of poses, and suppression of duplicate poses of the same person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.box_overlap import box_containment
from metrabs_ros.duplicates import are_near, keep_first
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.skeletons.conventions import Skeleton

MAX_DISTANCE_MM = 100_000.0
MAX_EXTENT_MM = 2_300.0
MIN_EXTENT_MM = 300.0
DUPLICATE_DISTANCE_RATIO = 0.1
"""Poses are duplicates if their median joint distance is below this share of the size of the
smaller one.  People who walk next to each other, seen from the side, are at 0.15 to 0.2."""

FRAGMENT_CONTAINMENT = 0.8
"""Minimum containment of the box of a pose that is a fragment of another one."""
FRAGMENT_SIZE_RATIO = 0.8
"""Maximum size of a fragment, as a share of the other pose.  People who are partly hidden by
others next to them have a smaller area, but the same height."""
MIN_ENCLOSING_CONFIDENCE = 0.35
"""Minimum confidence of people whose fragments are suppressed."""

BONE_LENGTHS_MM = {
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
"""Bone lengths of an adult (after Drillis and Contini, 1966), by joint names without sides."""
DEFAULT_BONE_LENGTH_MM = 250.0
BONE_LENGTH_RATIO_RANGE = (0.1, 3.0)
BONE_LENGTH_TOLERANCE_MM = 300.0

MAX_CONSISTENT_STD_MM = 200.0
MIN_CONSISTENT_JOINTS = 0.25
"""Minimum share of joints with a scatter below `MAX_CONSISTENT_STD_MM`."""
MIN_BOX_COVERAGE = 0.5
SIMILARITY_THRESHOLD = 0.4
COMPARED_JOINTS = 0.25
"""Share of the joints, those with the smallest distances, that pose similarity is based on."""
ZERO_SIMILARITY_MM = 300.0


def has_plausible_size(people: People) -> BoolArray:
    """
    Return which people have a possible size and distance, [N].

    All joints must be finite, in front of the camera and within 100 m.  The extent of the body
    must be between that of an infant and that of a tall person.
    """
    poses_mm = people.poses3d_mm
    coordinates = np.concatenate([poses_mm, people.poses2d_px], axis=-1)
    finite = np.all(np.isfinite(coordinates), axis=(1, 2))
    poses_mm = np.where(finite[:, None, None], poses_mm, 0)
    depth_mm = poses_mm[..., 2]
    extent_mm = np.ptp(poses_mm, axis=1)
    # With raised arms the diagonal of the extent exceeds the stature, so check each axis.
    size_mm = extent_mm.max(axis=-1, initial=0)
    return (
        finite
        & (depth_mm.min(axis=1, initial=np.inf) > 0)
        & (depth_mm.max(axis=1, initial=0) < MAX_DISTANCE_MM)
        & (size_mm < MAX_EXTENT_MM)
        & (size_mm > MIN_EXTENT_MM)
    )


def suppress_duplicates(people: People, priority: FloatArray) -> BoolArray:
    """
    Return which people to keep so that each person is kept only once, [N].

    Two poses are duplicates if they nearly coincide in the image, or if one is a fragment of the
    other one.

    Parameters
    ----------
    people
        N people.
    priority
        [N], of two poses that coincide, the one with the higher priority is kept.
    """
    same = are_coinciding(people, DUPLICATE_DISTANCE_RATIO)
    kept = keep_first(same, np.argsort(-priority, kind='stable'))
    return kept & ~(are_fragments(people) & kept).any(axis=1)


def are_coinciding(people: People, distance_ratio: float) -> BoolArray:
    """
    Return which pairs of poses nearly coincide in the image, [N, N].

    Parameters
    ----------
    people
        N people.
    distance_ratio
        Limit of the median joint distance, as a share of the size of the smaller pose.
    """
    # The median, because two poses of one person often differ in a limb that one of them missed.
    sizes_px = _sizes_px(people)
    limits_px = distance_ratio * np.minimum(sizes_px[:, None], sizes_px)
    return are_near(people.poses2d_px, limits_px)


def are_fragments(people: People) -> BoolArray:
    """
    Return which poses (rows) are small fragments of others (columns), [N, N].

    They are within the box of the other pose.  Poses of body parts can be as far from the pose of
    the whole person as that of a child in front of an adult; only keypoints distinguish them.
    """
    boxes_px, sizes_px = people.boxes_px, _sizes_px(people)
    is_smaller = sizes_px[:, None] < FRAGMENT_SIZE_RATIO * sizes_px
    is_contained = box_containment(boxes_px[:, None], boxes_px[None]) > FRAGMENT_CONTAINMENT
    # Low-confidence poses must not suppress fragments.
    can_suppress = people.confidence > MIN_ENCLOSING_CONFIDENCE
    return is_smaller & is_contained & can_suppress


def _sizes_px(people: People) -> FloatArray:
    """Return the diagonals of poses, [N]."""
    return np.asarray(np.linalg.norm(np.ptp(people.poses2d_px, axis=1), axis=-1))


def plausible_poses(poses: Poses, skeleton: Skeleton) -> NDArray[np.intp]:
    """
    Return the indices of people with plausible poses, in descending order of score.

    A plausible pose is finite, has bones of possible lengths, is similar in all augmentations and
    fills its box.  Of similar poses, only the one with the highest score is kept.

    Parameters
    ----------
    poses
        N people.
    skeleton
        Skeleton with all joints of the poses.
    """
    mean_mm, mean_px = poses.poses3d_mm.mean(axis=1), poses.poses2d_px.mean(axis=1)
    finite = np.isfinite(poses.poses3d_mm).all(axis=(1, 2, 3)) & (mean_mm[..., 2] > 0).any(axis=1)
    possible = np.flatnonzero(
        finite
        & has_plausible_bones(mean_mm, skeleton)
        & has_consistent_augmentations(poses.poses3d_mm)
        & fills_box(mean_px, poses.boxes_px)
    )
    similar = pose_similarity(mean_mm[possible]) > SIMILARITY_THRESHOLD
    kept: list[int] = []
    for i in np.argsort(-poses.scores[possible], kind='stable'):
        if not similar[i, kept].any():
            kept.append(int(i))
    return possible[kept]


def has_plausible_bones(poses_mm: FloatArray, skeleton: Skeleton) -> BoolArray:
    """
    Return which poses have only bones of possible lengths, [N].

    A bone is implausible if it is shorter than a tenth or longer than three times the expected
    length, and the difference is more than 300 mm.

    Parameters
    ----------
    poses_mm
        [N, J, 3].
    skeleton
        Skeleton with J joints; the expected lengths depend on the joint names.
    """
    ends = np.array(skeleton.edges, np.intp).reshape(-1, 2)
    lengths_mm = np.linalg.norm(poses_mm[:, ends[:, 0]] - poses_mm[:, ends[:, 1]], axis=-1)
    expected_mm = expected_bone_lengths(skeleton)
    ratio = lengths_mm / expected_mm
    is_out_of_range = (ratio < BONE_LENGTH_RATIO_RANGE[0]) | (ratio > BONE_LENGTH_RATIO_RANGE[1])
    is_far_off = np.abs(lengths_mm - expected_mm) > BONE_LENGTH_TOLERANCE_MM
    return ~(is_out_of_range & is_far_off).any(axis=1)


def expected_bone_lengths(skeleton: Skeleton) -> FloatArray:
    """Return the lengths of a skeleton's bones in an adult, [E], millimetres."""
    known = frozenset().union(*BONE_LENGTHS_MM)
    plain = [name.split('_')[0] for name in skeleton.joint_names]
    parts = [name[1:] if name[1:] in known else name for name in plain]
    return np.array(
        [
            BONE_LENGTHS_MM.get(frozenset({parts[a], parts[b]}), DEFAULT_BONE_LENGTH_MM)
            for a, b in skeleton.edges
        ]
    )


def has_consistent_augmentations(poses_mm: FloatArray) -> BoolArray:
    """
    Return which people have similar poses in all augmentations, [N].

    After scale alignment, more than a quarter of the joints must scatter by less than 200 mm.

    Parameters
    ----------
    poses_mm
        [N, A, J, 3], camera frame.
    """
    aligned_mm = align_scale(poses_mm)
    scatter_mm = np.sqrt(aligned_mm.var(axis=1).sum(axis=-1))
    return (scatter_mm < MAX_CONSISTENT_STD_MM).mean(axis=-1) > MIN_CONSISTENT_JOINTS


def fills_box(poses_px: FloatArray, boxes_px: FloatArray) -> BoolArray:
    """
    Return which poses extend over at least half of their box, [N].

    Compared are the longer side of the box and the longer side of the part of the pose within the
    box, because a person seen from the side is narrow.

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
    return reach_px >= MIN_BOX_COVERAGE * boxes_px[:, 2:4].max(axis=1, initial=0)


def pose_similarity(poses_mm: FloatArray) -> FloatArray:
    """
    Return the similarity of each pair of poses, [N, N], from 0 to 1.

    It depends on the quarter of the joints with the smallest distances after scale alignment,
    because two poses of one person often differ in a limb that one of them missed.

    Parameters
    ----------
    poses_mm
        [N, J, 3], camera frame.
    """
    count, joints = poses_mm.shape[:2]
    compared = max(1, int(COMPARED_JOINTS * joints))
    similarity = np.empty((count, count))
    # Row by row, because the distances of all pairs need much memory.
    for i, pose_mm in enumerate(poses_mm):
        pairs_mm = align_scale(np.stack([np.broadcast_to(pose_mm, poses_mm.shape), poses_mm], 1))
        apart_mm = np.linalg.norm(pairs_mm[:, 0] - pairs_mm[:, 1], axis=-1)
        best_mm = np.sort(apart_mm, axis=-1)[:, :compared]
        similarity[i] = np.clip(1 - best_mm / ZERO_SIMILARITY_MM, 0, None).mean(axis=-1)
    return similarity


def align_scale(poses_mm: FloatArray) -> FloatArray:
    """
    Scale poses [..., A, J, 3] about the camera so that all A have the same root mean square.

    A single camera does not observe the scale: poses that differ only in scale have the same
    image.
    """
    square = np.mean(poses_mm**2, axis=(-1, -2), keepdims=True)
    mean_square = square.mean(axis=-3, keepdims=True)
    return poses_mm * np.sqrt(mean_square / np.maximum(square, 1e-12))
