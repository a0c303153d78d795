"""Implausible poses are rejected, and duplicates are suppressed."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from test_people import people_at

from metrabs_ros.people import People
from metrabs_ros.plausibility import (
    align_scale,
    expected_bone_lengths,
    fills_box,
    has_consistent_augmentations,
    has_plausible_bones,
    has_plausible_size,
    plausible_poses,
    pose_similarity,
    suppress_duplicates,
)
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, Skeleton


def changed(people, **arrays):
    return dataclasses.replace(people, **arrays)


def test_people_in_front_of_the_camera_have_a_plausible_size():
    assert has_plausible_size(people_at((0, 0, 2000), (3000, 0, 90_000))).all()


@pytest.mark.parametrize(
    'position_mm',
    [(0, 0, -3000), (0, 0, 100), (0, 0, 150_000)],
    ids=['behind', 'too close', 'too far'],
)
def test_people_at_impossible_positions_are_rejected(position_mm):
    assert not has_plausible_size(people_at(position_mm)).any()


@pytest.mark.parametrize('factor', [0.1, 2.0])
def test_people_of_impossible_size_are_rejected(factor):
    people = people_at((0, 0, 5000))
    poses_mm = people.positions_mm[:, None] + factor * (
        people.poses3d_mm - people.positions_mm[:, None]
    )
    assert not has_plausible_size(changed(people, poses3d_mm=poses_mm)).any()


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('name', ['poses3d_mm', 'poses2d_px'])
def test_people_with_infinite_values_are_rejected(name, value):
    people = people_at((0, 0, 3000), (500, 0, 3000))
    array = getattr(people, name).copy()
    array[1, 5, 0] = value
    assert has_plausible_size(changed(people, **{name: array})).tolist() == [True, False]


def test_the_duplicate_with_the_higher_priority_is_kept():
    people = people_at((0, 0, 3000), (30, 0, 3000), (900, 0, 3000))
    assert suppress_duplicates(people, np.array([1.0, 2.0, 0.5])).tolist() == [False, True, True]


def test_people_side_by_side_are_both_kept():
    people = people_at((0, 0, 3000), (550, 0, 3000))
    assert suppress_duplicates(people, people.confidence).all()


def test_people_who_walk_next_to_each_other_are_both_kept():
    # From the side, the joints of a person hide those of another one, by 15 % of their size.
    people = people_at((0, 0, 3000), (270, 0, 3000))
    assert suppress_duplicates(people, people.confidence).all()


def shrunk(people, factor):
    """Return people, the second one of which is smaller, about the middle of its image."""
    poses_px = people.poses2d_px.copy()
    poses_px[1] = poses_px[1].mean(axis=0) + factor * (poses_px[1] - poses_px[1].mean(axis=0))
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    return changed(people, poses2d_px=poses_px, boxes_px=np.concatenate([low, high - low], axis=1))


def test_a_fragment_inside_a_person_is_suppressed():
    people = shrunk(people_at((0, 0, 3000), (0, 0, 3000)), 0.7)
    assert suppress_duplicates(people, np.array([0.5, 0.9])).tolist() == [True, False]


def test_a_person_of_the_same_height_half_hidden_by_another_one_is_kept():
    people = people_at((0, 0, 3000), (270, 0, 3000))
    left, top, width, height = people.boxes_px[0]
    people.boxes_px[1] = (left + width / 2, top + 1, width / 2, height - 2)
    assert suppress_duplicates(people, people.confidence).all()


def test_low_confidence_people_do_not_suppress_fragments():
    people = shrunk(people_at((0, 0, 3000), (0, 0, 3000)), 0.7)
    people = changed(people, confidence=np.array([0.06, 0.9]))
    assert suppress_duplicates(people, people.confidence)[1]


def test_empty_people_are_accepted():
    empty = People.empty(BLAZEPOSE_33)
    assert (
        has_plausible_size(empty).shape
        == suppress_duplicates(empty, empty.confidence).shape
        == (0,)
    )


def poses_of(people, augmentations=1):
    """Return the poses of people in several augmentations with a little noise."""
    rng = np.random.default_rng(0)
    shape = (len(people), augmentations, 33)
    poses3d_mm = people.poses3d_mm[:, None] + rng.normal(scale=5, size=(*shape, 3))
    poses2d_px = np.repeat(people.poses2d_px[:, None], augmentations, axis=1)
    return Poses(people.boxes_px, people.confidence, poses3d_mm, poses2d_px)


def test_separate_people_are_sorted_by_score():
    people = people_at((0, 0, 3000), (700, 0, 4000), (-900, 0, 6000))
    people = changed(people, confidence=np.array([0.5, 0.9, 0.7]))
    assert plausible_poses(poses_of(people, 3), BLAZEPOSE_33).tolist() == [1, 2, 0]
    assert plausible_poses(poses_of(people.select(np.zeros(0, int))), BLAZEPOSE_33).tolist() == []


def test_of_similar_poses_at_different_depths_the_one_with_the_highest_score_is_kept():
    people = people_at((0, 0, 3000), (60, 0, 3600), (2000, 0, 5000))
    assert plausible_poses(poses_of(people), BLAZEPOSE_33).tolist() == [0, 2]


def test_too_long_bones_are_implausible():
    people = people_at((0, 0, 3000), (0, 0, 3000))
    people.poses3d_mm[1, 15] += (0, 1500, 0)
    assert has_plausible_bones(people.poses3d_mm, BLAZEPOSE_33).tolist() == [True, False]
    assert plausible_poses(poses_of(people), BLAZEPOSE_33).tolist() == [0]


def test_short_bones_are_implausible_only_if_300_mm_are_missing():
    legs = Skeleton('', ('lhip', 'lkne', 'lank', 'ltoe'), ((0, 1), (1, 2), (2, 3)))
    np.testing.assert_allclose(expected_bone_lengths(legs), [430, 420, 170])
    down_mm = np.array([[0, 430, 850, 1020], [0, 40, 460, 630], [0, 430, 850, 851.0]])
    poses_mm = np.stack([np.zeros_like(down_mm), down_mm, np.full_like(down_mm, 3000)], axis=-1)
    assert has_plausible_bones(poses_mm, legs).tolist() == [True, False, True]


def test_bones_of_every_convention_have_an_expected_length():
    names = ('pelv_smpl', 'lhip_smpl', 'rhip_smpl', 'nose', 'lear', 'rear')
    lengths_mm = expected_bone_lengths(Skeleton('', names, ((0, 1), (0, 2), (3, 4))))
    np.testing.assert_allclose(lengths_mm, [110, 110, 250])


def test_inconsistent_augmentations_are_detected_independent_of_scale():
    poses_mm = np.repeat(people_at((0, 0, 3000)).poses3d_mm[None], 5, axis=1)
    poses_mm = np.repeat(poses_mm.reshape(1, 5, 33, 3), 3, axis=0)
    poses_mm[1] *= np.linspace(0.7, 1.3, 5)[:, None, None]
    poses_mm[2] += np.random.default_rng(0).normal(scale=400, size=(5, 33, 3))
    assert has_consistent_augmentations(poses_mm).tolist() == [True, True, False]


def test_a_quarter_of_the_joints_must_be_consistent():
    rng = np.random.default_rng(1)
    poses_mm = np.repeat(people_at((0, 0, 3000)).poses3d_mm, 5, axis=0)[None]
    for loose, consistent in ((20, True), (27, False)):
        scattered_mm = poses_mm.copy()
        scattered_mm[:, :, :loose] += rng.normal(scale=500, size=(1, 5, loose, 3))
        assert has_consistent_augmentations(scattered_mm).tolist() == [consistent]


def test_a_pose_must_cover_half_of_its_box():
    box = np.array([[100.0, 100, 100, 400]])
    pose = np.array([[[120.0, 150], [160, 330]]])
    assert not fills_box(pose, box).any()
    longer = np.array([[[120.0, 150], [160, 360]]])
    assert fills_box(longer, box).all()
    # Parts of the pose outside the box are ignored.
    assert not fills_box(longer + np.array([0, 250]), box).any()


def test_similarity_is_1_for_equal_poses_and_0_for_distant_people():
    people = people_at((0, 0, 3000), (0, 0, 6000), (1500, 0, 3000))
    people.poses3d_mm[1] = 2 * people.poses3d_mm[0]
    similarity = pose_similarity(people.poses3d_mm)
    np.testing.assert_allclose(similarity, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)


def test_scale_alignment_keeps_directions():
    poses_mm = people_at((500, 0, 3000), (0, 200, 5000)).poses3d_mm
    aligned_mm = align_scale(poses_mm)
    np.testing.assert_allclose(
        aligned_mm[..., :2] / aligned_mm[..., 2:], poses_mm[..., :2] / poses_mm[..., 2:]
    )
    size_mm = np.sqrt((aligned_mm**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(size_mm[0], size_mm[1])


def test_similarity_of_many_people_with_many_joints_needs_little_memory():
    poses_mm = np.random.default_rng(0).normal(0, 300, (60, 555, 3)) + np.array([0, 0, 3000])
    tracemalloc.start()
    try:
        similarity = pose_similarity(poses_mm)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(similarity, similarity.T)
    assert peak_bytes < 30e6
