"""Only what a person can be is believed, and everybody only once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_people import people_at

from metrabs_ros.people import People
from metrabs_ros.plausibility import (
    augmentations_consistent,
    bone_lengths,
    bones_plausible,
    fills_box,
    has_plausible_size,
    is_confident,
    is_contained_duplicate,
    needed_confidence,
    plausible_poses,
    pose_similarity,
    scale_aligned,
    suppress_duplicates,
)
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, Skeleton

NO_PARTS = np.zeros((2, 2), bool)


def changed(people, **arrays):
    return dataclasses.replace(people, **arrays)


def test_people_in_front_of_the_camera_are_believed():
    assert has_plausible_size(people_at((0, 0, 2000), (3000, 0, 90_000))).all()


@pytest.mark.parametrize(
    'place_mm', [(0, 0, -3000), (0, 0, 100), (0, 0, 150_000)], ids=['behind', 'in', 'far beyond']
)
def test_people_where_nobody_can_be_seen_are_not(place_mm):
    assert not has_plausible_size(people_at(place_mm)).any()


@pytest.mark.parametrize('factor', [0.1, 2.0])
def test_giants_and_dwarfs_are_not(factor):
    people = people_at((0, 0, 5000))
    poses_mm = people.positions_mm[:, None] + factor * (
        people.poses3d_mm - people.positions_mm[:, None]
    )
    assert not has_plausible_size(changed(people, poses3d_mm=poses_mm)).any()


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('name', ['poses3d_mm', 'poses2d_px'])
def test_what_is_not_finite_is_not(name, value):
    people = people_at((0, 0, 3000), (500, 0, 3000))
    array = getattr(people, name).copy()
    array[1, 5, 0] = value
    assert has_plausible_size(changed(people, **{name: array})).tolist() == [True, False]


def test_who_leans_far_needs_more_confidence():
    upright, lying = needed_confidence(np.array([10.0, 80.0]))
    assert upright < lying
    people = changed(people_at((0, 0, 3000), (0, 0, 3000)), confidence=np.array([0.6, 0.6]))
    assert is_confident(people, np.array([10.0, 80.0])).tolist() == [True, False]


def test_who_is_mostly_out_of_view_needs_more_confidence():
    people = changed(people_at((0, 0, 3000), (0, 0, 3000)), confidence=np.array([0.6, 0.6]))
    in_view = people.in_view.copy()
    in_view[1, :30] = False
    people = changed(people, in_view=in_view)
    assert is_confident(people, np.zeros(2)).tolist() == [True, False]


def test_of_two_poses_of_one_person_the_preferred_is_kept():
    people = people_at((0, 0, 3000), (30, 0, 3000), (900, 0, 3000))
    assert suppress_duplicates(people, np.array([1.0, 2.0, 0.5])).tolist() == [False, True, True]


def test_people_side_by_side_are_both_kept():
    people = people_at((0, 0, 3000), (550, 0, 3000))
    assert suppress_duplicates(people, people.confidence).all()


def test_a_fragment_within_a_person_is_dropped():
    people = people_at((0, 0, 3000), (0, -300, 9000))
    assert suppress_duplicates(people, np.array([0.5, 0.9])).tolist() == [True, False]


def test_who_is_hardly_there_swallows_nobody():
    people = changed(people_at((0, 0, 3000), (0, -300, 9000)), confidence=np.array([0.06, 0.9]))
    assert suppress_duplicates(people, people.confidence)[1]


def test_who_is_within_somebody_elses_box_must_be_sure():
    people = people_at((0, 0, 3000), (150, 100, 3300))
    for confidence, seen in ((0.5, [False, True]), (0.9, [False, False])):
        both = changed(people, confidence=np.array([0.95, confidence]))
        assert is_contained_duplicate(both, NO_PARTS, both.confidence).tolist() == seen


def test_who_is_small_where_somebody_elses_body_reaches_must_be_sure():
    people = people_at((0, 0, 3000), (900, 0, 3000))
    second_of_first = np.array([[False, False], [True, False]])
    for confidence, seen in ((0.5, [False, True]), (0.9, [False, False])):
        both = changed(people, confidence=np.array([0.95, confidence]))
        assert is_contained_duplicate(both, second_of_first, both.confidence).tolist() == seen


def test_nobody_is_no_trouble():
    empty = People.empty(BLAZEPOSE_33)
    assert (
        has_plausible_size(empty).shape
        == suppress_duplicates(empty, empty.confidence).shape
        == (0,)
    )
    assert is_confident(empty, np.zeros(0)).shape == (0,)
    assert is_contained_duplicate(empty, np.zeros((0, 0), bool), empty.confidence).shape == (0,)


def poses_of(people, augmentations=1):
    """Return people's poses, as seen in several augmentations with a little noise."""
    rng = np.random.default_rng(0)
    shape = (len(people), augmentations, 33)
    poses3d_mm = people.poses3d_mm[:, None] + rng.normal(scale=5, size=(*shape, 3))
    poses2d_px = np.repeat(people.poses2d_px[:, None], augmentations, axis=1)
    return Poses(people.boxes_px, people.confidence, poses3d_mm, poses2d_px)


def test_people_apart_are_all_plausible_the_surest_first():
    people = people_at((0, 0, 3000), (700, 0, 4000), (-900, 0, 6000))
    people = changed(people, confidence=np.array([0.5, 0.9, 0.7]))
    assert plausible_poses(poses_of(people, 3), BLAZEPOSE_33).tolist() == [1, 2, 0]
    assert plausible_poses(poses_of(people.select(np.zeros(0, int))), BLAZEPOSE_33).tolist() == []


def test_a_pose_found_twice_is_kept_where_it_is_surest_whatever_its_depth():
    people = people_at((0, 0, 3000), (60, 0, 3600), (2000, 0, 5000))
    assert plausible_poses(poses_of(people), BLAZEPOSE_33).tolist() == [0, 2]


def test_bones_longer_than_any_persons_are_noticed():
    people = people_at((0, 0, 3000), (0, 0, 3000))
    people.poses3d_mm[1, 15] += (0, 1500, 0)
    assert bones_plausible(people.poses3d_mm, BLAZEPOSE_33).tolist() == [True, False]
    assert plausible_poses(poses_of(people), BLAZEPOSE_33).tolist() == [0]


def test_shrunk_bones_are_noticed_only_where_300_mm_are_missing():
    legs = Skeleton('', ('lhip', 'lkne', 'lank', 'ltoe'), ((0, 1), (1, 2), (2, 3)))
    np.testing.assert_allclose(bone_lengths(legs), [430, 420, 170])
    down_mm = np.array([[0, 430, 850, 1020], [0, 40, 460, 630], [0, 430, 850, 851.0]])
    poses_mm = np.stack([np.zeros_like(down_mm), down_mm, np.full_like(down_mm, 3000)], axis=-1)
    assert bones_plausible(poses_mm, legs).tolist() == [True, False, True]


def test_bones_of_any_convention_have_a_length():
    names = ('pelv_smpl', 'lhip_smpl', 'rhip_smpl', 'nose', 'lear', 'rear')
    lengths_mm = bone_lengths(Skeleton('', names, ((0, 1), (0, 2), (3, 4))))
    np.testing.assert_allclose(lengths_mm, [110, 110, 250])


def test_augmentations_that_disagree_are_noticed_and_their_scale_is_not():
    poses_mm = np.repeat(people_at((0, 0, 3000)).poses3d_mm[None], 5, axis=1)
    poses_mm = np.repeat(poses_mm.reshape(1, 5, 33, 3), 3, axis=0)
    poses_mm[1] *= np.linspace(0.7, 1.3, 5)[:, None, None]
    poses_mm[2] += np.random.default_rng(0).normal(scale=400, size=(5, 33, 3))
    assert augmentations_consistent(poses_mm).tolist() == [True, True, False]


def test_a_quarter_of_the_joints_must_agree():
    rng = np.random.default_rng(1)
    poses_mm = np.repeat(people_at((0, 0, 3000)).poses3d_mm, 5, axis=0)[None]
    for loose, consistent in ((20, True), (27, False)):
        scattered_mm = poses_mm.copy()
        scattered_mm[:, :, :loose] += rng.normal(scale=500, size=(1, 5, loose, 3))
        assert augmentations_consistent(scattered_mm).tolist() == [consistent]


def test_a_pose_must_reach_over_half_of_its_box():
    box = np.array([[100.0, 100, 100, 400]])
    pose = np.array([[[120.0, 150], [160, 330]]])
    assert not fills_box(pose, box).any()
    longer = np.array([[[120.0, 150], [160, 360]]])
    assert fills_box(longer, box).all()
    # Beside the box it does not count.
    assert not fills_box(longer + np.array([0, 250]), box).any()


def test_similarity_is_1_of_the_same_and_0_of_people_apart():
    people = people_at((0, 0, 3000), (0, 0, 6000), (1500, 0, 3000))
    people.poses3d_mm[1] = 2 * people.poses3d_mm[0]
    similarity = pose_similarity(people.poses3d_mm)
    np.testing.assert_allclose(similarity, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)


def test_scale_alignment_keeps_directions():
    poses_mm = people_at((500, 0, 3000), (0, 200, 5000)).poses3d_mm
    aligned_mm = scale_aligned(poses_mm)
    np.testing.assert_allclose(
        aligned_mm[..., :2] / aligned_mm[..., 2:], poses_mm[..., :2] / poses_mm[..., 2:]
    )
    size_mm = np.sqrt((aligned_mm**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(size_mm[0], size_mm[1])
