"""Estimates are compared with each other and with keypoints; those that disagree are not mixed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import angles, standing_person
from test_people import people_at

from metrabs_ros.blazepose.agreement import (
    BODY,
    COCO_JOINTS,
    MAX_APART_MM,
    MAX_DISAGREEMENT,
    is_confirmed,
    keypoint_disagreement,
    merge,
    pose_distance_mm,
    select_better,
    shows_own_person,
)
from metrabs_ros.blazepose.regions import SHOULDERS
from metrabs_ros.movenet.decoding import MIN_POINT_SCORE, Keypoints
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

UP = np.array([0, -1.0, 0])
NOSE, LEFT_WRIST = 0, 9
"""Keypoints of COCO."""


def keypoints_of(people, shift_px=0.0):
    """Return keypoints at the joints of people, shifted to the right."""
    points_px = people.poses2d_px[:, COCO_JOINTS] + (shift_px, 0)
    return Keypoints(people.boxes_px, people.confidence, points_px, np.ones((len(people), 17)))


def with_poses(people, poses_mm):
    return dataclasses.replace(people, poses3d_mm=poses_mm)


def sizes_px(people):
    return np.linalg.norm(people.boxes_px[:, 2:], axis=1)


@given(st.floats(0, 500), st.floats(0.1, 10))
def test_disagreement_is_the_distance_as_a_share_of_the_box(shift_px, scale):
    people = people_at((0, 0, 3000), (500, 100, 7000))
    large = dataclasses.replace(
        people, boxes_px=scale * people.boxes_px, poses2d_px=scale * people.poses2d_px
    )
    keypoints = keypoints_of(large, scale * shift_px)
    np.testing.assert_allclose(
        keypoint_disagreement(large, keypoints), shift_px / sizes_px(people), atol=1e-9
    )


@pytest.mark.parametrize(('keypoint', 'score'), [(NOSE, 1.0), (LEFT_WRIST, 0.0)])
def test_keypoints_of_the_head_and_invisible_ones_are_not_compared(keypoint, score):
    people = people_at((0, 0, 3000))
    keypoints = keypoints_of(people)
    keypoints.point_scores[0, keypoint] = score
    keypoints.points_px[0, keypoint] += 100
    assert keypoint_disagreement(people, keypoints) == pytest.approx(0, abs=1e-6)


def test_people_disagree_with_keypoints_of_the_other_sides():
    people = people_at((0, 0, 3000))
    keypoints = keypoints_of(people)
    swapped = dataclasses.replace(
        keypoints, points_px=people.poses2d_px[:, BLAZEPOSE_33.mirror][:, COCO_JOINTS]
    )
    assert keypoint_disagreement(people, swapped) > 0.06


def portrait(people, shift_px):
    """Return keypoints of which the head and shoulders are visible and the others are guessed."""
    keypoints = keypoints_of(people, shift_px)
    scores = np.full((len(people), 17), MIN_POINT_SCORE - 0.01)
    scores[:, : SHOULDERS.stop] = 0.6
    points_px = keypoints.points_px.copy()
    points_px[:, SHOULDERS.stop :] = points_px[:, SHOULDERS].mean(axis=1, keepdims=True)
    return dataclasses.replace(keypoints, points_px=points_px, point_scores=scores)


def test_people_without_a_visible_body_are_confirmed_by_their_heads_and_shoulders():
    people = people_at((0, 0, 3000))
    assert keypoint_disagreement(people, portrait(people, 0)) == pytest.approx(0, abs=1e-6)
    assert is_confirmed(people, portrait(people, 0)).all()
    far_px = 1.1 * MAX_DISAGREEMENT * sizes_px(people)[0]
    assert not is_confirmed(people, portrait(people, far_px)).any()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_poses_that_are_not_finite_are_not_confirmed(value):
    people = people_at((0, 0, 3000), (500, 0, 3000))
    keypoints = keypoints_of(people)
    people.poses2d_px[1] = value
    assert keypoint_disagreement(people, keypoints).tolist() == [0, np.inf]
    assert is_confirmed(people, keypoints).tolist() == [True, False]


def test_people_are_confirmed_if_the_networks_agree():
    people = people_at(*[(0, 0, 3000)] * 2)
    keypoints = keypoints_of(people)
    keypoints.points_px[1] += 1.1 * MAX_DISAGREEMENT * sizes_px(people)[1]
    assert is_confirmed(people, keypoints).tolist() == [True, False]


@pytest.mark.parametrize(
    ('presence', 'score', 'best_point_score', 'confirmed'),
    [
        *[(1.0, 0.4, 0.5, True), (0.5, 0.4, 0.7, True), (0.2, 0.9, 0.7, True)],
        *[(0.5, 0.4, 0.3, False), (0.1, 0.9, 0.7, False), (1.0, 0.4, 0.2, False)],
    ],
)
def test_all_scores_together_decide_whether_a_person_is_confirmed(
    presence, score, best_point_score, confirmed
):
    people = people_at((0, 0, 3000))
    keypoints = dataclasses.replace(keypoints_of(people), scores=np.array([score]))
    keypoints.point_scores[0] = 0.2 * best_point_score
    keypoints.point_scores[0, 3] = best_point_score
    people = dataclasses.replace(people, confidence=np.array([presence]))
    assert is_confirmed(people, keypoints).tolist() == [confirmed]


def test_people_who_hide_each_other_are_both_kept():
    # The joints of two people at the same place in the image are at 10 % of their size.
    people = people_at((0, 0, 3000), (150, 0, 3000))
    assert shows_own_person(people, keypoints_of(people)).all()


@pytest.mark.parametrize('confidence', [(0.9, 0.5), (0.5, 0.9)])
def test_an_estimate_of_another_persons_pose_is_suppressed(confidence):
    people = people_at((0, 0, 3000), (150, 0, 3000))
    keypoints = keypoints_of(people)
    # The crop of the second person shows more of the first one.
    both_first = people_at((0, 0, 3000), (20, 0, 3000))
    both_first = dataclasses.replace(both_first, confidence=np.array(confidence))
    assert shows_own_person(both_first, keypoints).tolist() == [True, False]


def test_of_two_estimates_between_the_people_the_more_confident_one_is_kept():
    people = people_at((0, 0, 3000), (150, 0, 3000))
    keypoints = keypoints_of(people)
    crossed = people_at((100, 0, 3000), (50, 0, 3000))
    assert shows_own_person(crossed, keypoints).tolist() == [True, False]


@pytest.mark.parametrize('has_head', [True, False])
def test_a_child_in_front_of_an_adult_is_kept_but_not_legs(has_head):
    people = people_at((0, 0, 3000), (0, 0, 3000))
    poses_mm = people.poses3d_mm.copy()
    # Both stand on the floor.
    floor_mm = np.array([0, poses_mm[1, :, 1].max(), 3000])
    poses_mm[1] = floor_mm + 0.6 * (poses_mm[1] - floor_mm)
    poses_px = 500 * poses_mm[..., :2] / poses_mm[..., 2:] + (320, 240)
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    people = dataclasses.replace(
        people,
        poses3d_mm=poses_mm,
        poses2d_px=poses_px,
        boxes_px=np.concatenate([low, high - low], axis=1),
    )
    keypoints = keypoints_of(people)
    keypoints.point_scores[1, : BODY.start] = float(has_head)
    assert shows_own_person(people, keypoints).tolist() == [True, has_head]


def test_a_body_part_within_a_person_is_suppressed():
    people = people_at((0, 0, 3000), (0, 0, 3000))
    keypoints = keypoints_of(people)
    poses_px, boxes_px = people.poses2d_px.copy(), people.boxes_px.copy()
    poses_px[1] = poses_px[1].mean(axis=0) + 0.5 * (poses_px[1] - poses_px[1].mean(axis=0))
    boxes_px[1] = (*(boxes_px[1, :2] + boxes_px[1, 2:] / 4), *(boxes_px[1, 2:] / 2))
    people = dataclasses.replace(people, poses2d_px=poses_px, boxes_px=boxes_px)
    assert shows_own_person(people, keypoints).tolist() == [True, False]


def test_nobody_is_suppressed_among_no_people():
    empty = People.empty(BLAZEPOSE_33)
    assert shows_own_person(empty, keypoints_of(empty)).shape == (0,)


shifts_mm = st.tuples(*[st.floats(-1e4, 1e4)] * 3)


@given(angles, angles, shifts_mm)
def test_pose_distance_is_symmetric_and_independent_of_the_position(facing, other, shift_mm):
    poses_mm = [standing_person(UP, angle)[None] for angle in (facing, other)]
    distance_mm = pose_distance_mm(*poses_mm)
    np.testing.assert_allclose(pose_distance_mm(*poses_mm[::-1]), distance_mm)
    np.testing.assert_allclose(
        pose_distance_mm(poses_mm[0], poses_mm[1] + shift_mm), distance_mm, atol=1e-6
    )
    assert pose_distance_mm(poses_mm[0], poses_mm[0] + shift_mm) == pytest.approx(0, abs=1e-6)


@given(angles)
def test_mistaking_the_front_for_the_back_is_a_large_distance(facing):
    front_mm, back_mm = (standing_person(UP, angle)[None] for angle in (facing, facing + np.pi))
    assert pose_distance_mm(front_mm, back_mm) > 2 * MAX_APART_MM


def test_pose_distance_without_people_is_empty():
    assert pose_distance_mm(np.zeros((0, 33, 3)), np.zeros((0, 33, 3))).shape == (0,)


def estimates(facing, other):
    """Return two estimates of the same two people, of which the second one differs by an angle."""
    first = people_at((0, 0, 3000), (1000, 0, 4000))
    poses_mm = first.poses3d_mm.copy()
    poses_mm[1] += standing_person(UP, other) - standing_person(UP, facing)
    second = dataclasses.replace(
        first,
        poses3d_mm=poses_mm,
        joint_confidence=np.full((2, 33), 0.4),
        confidence=np.array([0.1, 0.3]),
    )
    return first, second


@given(angles, angles, st.booleans())
def test_estimates_that_disagree_are_never_averaged(facing, other, prefer_second):
    first, second = estimates(facing, other)
    agree = pose_distance_mm(first.poses3d_mm, second.poses3d_mm)[1] <= MAX_APART_MM
    weight = 0.5 if agree else float(prefer_second)
    merged = merge(first, second, np.array([not prefer_second, prefer_second]))
    for values, name in zip(merged, ('poses3d_mm', 'joint_confidence', 'confidence')):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(values[1], (1 - weight) * a[1] + weight * b[1])
        # The other person's estimates are equal.
        np.testing.assert_allclose(values[0], (a[0] + b[0]) / 2)


@pytest.mark.parametrize('prefer_second', [False, True])
def test_an_estimate_that_is_not_finite_does_not_affect_the_preferred_one(prefer_second):
    people = people_at((0, 0, 3000))
    invalid = with_poses(people, np.full_like(people.poses3d_mm, np.nan))
    pair = (invalid, people) if prefer_second else (people, invalid)
    poses_mm, _, confidence, _ = merge(*pair, np.array([prefer_second]))
    np.testing.assert_array_equal(poses_mm, people.poses3d_mm)
    np.testing.assert_array_equal(confidence, people.confidence)


def test_the_selected_estimates_of_each_person_are_returned():
    first, second = people_at((0, 0, 3000), (500, 0, 4000)), people_at((0, 0, 5000), (9, 0, 6000))
    chosen = select_better(first, second, np.array([False, True]))
    np.testing.assert_array_equal(chosen.poses3d_mm[0], first.poses3d_mm[0])
    np.testing.assert_array_equal(chosen.poses3d_mm[1], second.poses3d_mm[1])
    empty = People.empty(BLAZEPOSE_33)
    assert len(select_better(empty, empty, np.zeros(0, bool))) == 0
