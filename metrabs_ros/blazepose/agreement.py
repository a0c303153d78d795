"""Agreement of BlazePose's estimates with each other and with MoveNet's keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.duplicates import keep_first
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.people import People
from metrabs_ros.plausibility import are_coinciding, are_fragments
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17

MAX_APART_MM = 150.0
"""Mean distance of the joints of two estimates of the same pose.  If the front of a person is
mistaken for the back, the distance is several times as large."""
MAX_DISAGREEMENT, MAX_BODY_DISAGREEMENT = 0.15, 0.25
"""Maximum mean distance of joints and keypoints of a person, as a share of the size of the box: of
all of them, and of those of the body."""
MIN_EVIDENCE = 0.1
"""Minimum product of the presence, the score of the detection, and that of the most certain
keypoint.  Each of them is high for some things that are no people, but rarely all three."""
SAME_PERSON_RATIO = 0.2
"""Median joint distance of two poses that may show the same person, as a share of the size of the
smaller one."""
MIN_BODY_POINTS = 3
"""Minimum number of visible keypoints of the body; the shoulders alone do not show a pose."""

COCO_JOINTS = COCO_17.within(BLAZEPOSE_33).indices
"""MoveNet's keypoints among the joints of BlazePose."""
BODY = slice(5, 17)
"""Keypoints of the body, from the shoulders to the ankles.  Those of the head are so close to each
other that they do not distinguish poses."""
HIPS = COCO_JOINTS[11:13]


def keypoint_disagreement(people: People, keypoints: Keypoints) -> FloatArray:
    """
    Return how far the joints of the bodies of people are from their keypoints.

    Parameters
    ----------
    people
        N people in the skeleton of BlazePose.
    keypoints
        The same N people.

    Returns
    -------
    [N], mean distance in the image, weighted by the scores of the visible keypoints, as a share of
    the diagonal of the box.  The head is included if the body is hardly visible, as in portraits.
    """
    return _disagreement(people, keypoints, _body_keypoints(keypoints))


def _body_keypoints(keypoints: Keypoints) -> BoolArray:
    """Return which keypoints show the pose of the body, [N, 17]."""
    shows_pose = keypoints.visible
    is_visible = shows_pose[:, BODY].sum(axis=1) >= MIN_BODY_POINTS
    shows_pose[is_visible, : BODY.start] = False
    return shows_pose


def _disagreement(people: People, keypoints: Keypoints, compared: BoolArray) -> FloatArray:
    """Return the disagreement with the compared keypoints [N, 17] as a share of the box, [N]."""
    mean_px = _mean_distance_px(people.poses2d_px, keypoints, compared)
    size_px = np.linalg.norm(keypoints.boxes_px[:, 2:], axis=1)
    return mean_px / np.maximum(size_px, 1e-6)


def _mean_distance_px(
    poses_px: FloatArray, keypoints: Keypoints, compared: BoolArray
) -> FloatArray:
    """
    Return the mean distance of poses and keypoints, [N], weighted by their scores.

    Parameters
    ----------
    poses_px
        [N, 33, 2], or one pose [33, 2].
    keypoints
        N people.
    compared
        [N, 17], keypoints to compare.
    """
    apart_px = np.linalg.norm(poses_px[..., COCO_JOINTS, :] - keypoints.points_px, axis=-1)
    # Of people without any of these keypoints, all are compared.
    compared = compared | ~compared.any(axis=1, keepdims=True)
    weights = np.where(compared, np.maximum(keypoints.point_scores, 1e-6), 0)
    is_finite = np.isfinite(apart_px)
    sum_px = (np.where(is_finite, apart_px, 0) * weights).sum(axis=1)
    # Poses that are not finite have an infinite disagreement.
    return np.where(is_finite.all(axis=1), sum_px / weights.sum(axis=1), np.inf)


def is_confirmed(people: People, keypoints: Keypoints) -> BoolArray:
    """
    Return which people, detected by MoveNet, BlazePose confirms, [N].

    Parameters
    ----------
    people
        N people with the presence as their confidence.
    keypoints
        The same N people.
    """
    return (
        (people.confidence * evidence_of(keypoints) > MIN_EVIDENCE)
        & (_disagreement(people, keypoints, keypoints.visible) < MAX_DISAGREEMENT)
        & (keypoint_disagreement(people, keypoints) < MAX_BODY_DISAGREEMENT)
    )


def evidence_of(keypoints: Keypoints) -> FloatArray:
    """Return MoveNet's part of the evidence for people, [N]; see `MIN_EVIDENCE`."""
    return np.asarray(keypoints.scores * keypoints.point_scores.max(axis=1, initial=0))


def shows_own_person(people: People, keypoints: Keypoints) -> BoolArray:
    """
    Return which people to keep so that each person is kept only once, [N].

    The keypoints show different people.  A pose is a duplicate if it nearly coincides with that of
    other keypoints, or is a fragment of it, and is at least as near to those as to its own.
    People next to each other can coincide, but each pose is nearer to its own keypoints.  A
    fragment without a visible head shows a part of the other person in any case.

    Parameters
    ----------
    people
        N people in the skeleton of BlazePose.
    keypoints
        The same N people.
    """
    is_fragment = are_fragments(people)
    is_same = are_coinciding(people, SAME_PERSON_RATIO) | is_fragment
    np.fill_diagonal(is_same, False)
    has_head = np.asarray(keypoints.visible[:, : BODY.start].any(axis=1))
    compared = _body_keypoints(keypoints)
    own_px = _mean_distance_px(people.poses2d_px, keypoints, compared)
    for i in range(len(people)):
        others = np.flatnonzero(is_same[i])
        other_px = _mean_distance_px(
            people.poses2d_px[i], keypoints.select(others), compared[others]
        )
        is_same[i, others] = (other_px <= own_px[i]) | (is_fragment[i, others] & ~has_head[i])
    # Of two poses of the same person, the one that is nearest to its own keypoints comes first.
    order = np.lexsort((-people.confidence, is_same.any(axis=1)))
    return keep_first(is_same, order)


def pose_distance_mm(first_mm: FloatArray, second_mm: FloatArray) -> FloatArray:
    """Return the mean distance of the joints of poses [N, 33, 3] after aligning the hips, [N]."""
    apart_mm = [
        poses_mm[:, COCO_JOINTS[BODY]] - poses_mm[:, HIPS].mean(axis=1, keepdims=True)
        for poses_mm in (first_mm, second_mm)
    ]
    return np.asarray(np.linalg.norm(apart_mm[0] - apart_mm[1], axis=-1).mean(axis=1))


def merge(first: People, second: People, prefer_second: BoolArray) -> tuple[FloatArray, ...]:
    """
    Merge two estimates of the same people.

    The mean of two estimates that disagree would be a pose that neither of them shows.

    Parameters
    ----------
    first, second
        N people each.
    prefer_second
        [N], which second estimates are used if the estimates disagree.

    Returns
    -------
    Poses [N, 33, 3] in millimetres, joint confidences [N, 33], confidences [N], and the network's
    image points [N, 33, 2] in pixels.
    """
    agree = pose_distance_mm(first.poses3d_mm, second.poses3d_mm) <= MAX_APART_MM
    weight = np.where(agree, 0.5, prefer_second)

    def mix(name: str) -> FloatArray:
        values, others = getattr(first, name), getattr(second, name)
        share = weight.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(share == 0, values, np.where(share == 1, others, (values + others) / 2))

    names = ('poses3d_mm', 'joint_confidence', 'confidence', 'network_poses2d_px')
    return tuple(mix(name) for name in names)


def select_better(first: People, second: People, use_second: BoolArray) -> People:
    """Return the second estimate of the people selected by a mask [N], and the first of others."""
    both = People.concatenate([first, second])
    return both.select(np.arange(len(use_second)) + len(use_second) * use_second)


def replace_better(
    people: People, which: NDArray[np.intp], others: People, use_others: BoolArray
) -> People:
    """Return people with those at indices [K] replaced by others [K] where a mask [K] is set."""
    order = np.arange(len(people))
    order[which[use_others]] = len(people) + np.flatnonzero(use_others)
    return People.concatenate([people, others]).select(order)
