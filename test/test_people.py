"""Selection, conversion and derived properties of people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from strategies import standing_person

from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton


def people_at(*positions_mm: tuple[float, float, float]) -> People:
    """Return standing people with their hips at positions in the frame of a level camera."""
    count = len(positions_mm)
    body_mm = standing_person(np.array([0, -1.0, 0]), facing=0.5)
    poses_mm = np.array(positions_mm, float).reshape(-1, 1, 3) + body_mm
    poses_px = 500 * poses_mm[..., :2] / poses_mm[..., 2:] + (320, 240)
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    return People(
        BLAZEPOSE_33,
        np.concatenate([low, high - low], axis=1),
        np.linspace(0.9, 0.5, count),
        poses_mm,
        poses_px,
        np.full((count, 33), 0.8),
        np.ones((count, 33), bool),
        np.arange(1, count + 1),
    )


def test_empty_people_have_arrays_of_the_right_shapes():
    empty = People.empty(COCO_17)
    assert len(empty) == 0
    assert empty.poses3d_mm.shape == (0, 17, 3)
    assert empty.positions_mm.shape == (0, 3)
    assert empty.statures_mm.shape == (0,)


def test_select_and_concatenate_apply_to_all_arrays():
    people = people_at((0, 0, 3000), (500, 0, 4000), (900, 0, 5000))
    again = People.concatenate([people.select(np.array([2])), people.select(np.array([0, 1]))])
    assert again.ids.tolist() == [3, 1, 2]
    for field in dataclasses.fields(People):
        if field.name != 'skeleton':
            np.testing.assert_array_equal(
                getattr(again, field.name), getattr(people, field.name)[[2, 0, 1]]
            )


def test_people_with_infinite_or_huge_values_are_not_finite():
    people = people_at(*[(0, 0, 3000)] * 5)
    people.poses3d_mm[1, 3, 2] = np.nan
    people.poses2d_px[2, 3, 0] = np.inf
    people.boxes_px[3, 0] = 1e12
    assert people.finite().tolist() == [True, False, False, False, True]
    assert People.empty(COCO_17).finite().shape == (0,)


def test_the_distance_is_measured_to_the_hips():
    np.testing.assert_allclose(people_at((3000, 0, 4000)).distances_mm, [5000])


@pytest.mark.parametrize('skeleton', [BLAZEPOSE_33, COCO_17])
def test_the_stature_is_close_to_that_of_the_synthetic_person(skeleton):
    stature_mm = (
        people_at((0, 0, 3000)).in_convention(skeleton.within(BLAZEPOSE_33)).statures_mm[0]
    )
    assert 1600 < stature_mm < 1850


def test_a_convention_selects_joints():
    people = people_at((0, 0, 3000)).in_convention(COCO_17.within(BLAZEPOSE_33))
    assert people.poses3d_mm.shape == (1, 17, 3)
    assert people.in_view.shape == people.joint_confidence.shape == (1, 17)
    np.testing.assert_allclose(people.positions_mm, [(0, 0, 3000)], atol=1e-9)


def test_people_without_hips_have_the_mean_joint_position_and_no_stature():
    arms = Skeleton('arms', ('left_wrist', 'right_wrist'), ()).within(BLAZEPOSE_33)
    people = people_at((0, 0, 3000)).in_convention(arms)
    np.testing.assert_allclose(people.positions_mm, people.poses3d_mm.mean(axis=1))
    assert np.isnan(people.statures_mm).all()


def test_deviations_along_and_across_the_line_of_sight_are_kept_by_a_transform():
    people = people_at((4000, 0, 4000), (0, 300, 2000))
    sight = people.poses3d_mm / np.linalg.norm(people.poses3d_mm, axis=-1, keepdims=True)
    variance_mm2 = 30.0**2 * (1 - sight**2) + 300.0**2 * sight**2
    people = dataclasses.replace(people, axis_std_mm=np.sqrt(variance_mm2))
    cos = np.sqrt(0.5)
    rotation = np.array([[cos, 0, -cos], [0, 1, 0], [cos, 0, cos]])
    turned = people.transformed(rotation, np.array([10.0, 20, 30]))
    sight = sight @ rotation.T
    expected_mm2 = 30.0**2 * (1 - sight**2) + 300.0**2 * sight**2
    np.testing.assert_allclose(turned.axis_std_mm, np.sqrt(expected_mm2), rtol=1e-6)


@pytest.mark.parametrize('shape', [(2, 17, 3), (2, 3, 33, 3)])
def test_predictions_with_other_joints_or_several_augmentations_are_rejected(shape):
    prediction = {
        'boxes': np.zeros((2, 5)),
        'poses3d': np.zeros(shape),
        'poses2d': np.zeros((*shape[:-1], 2)),
    }
    with pytest.raises(ValueError, match=r'poses3d has shape .*expected \[N, 33, 3\]'):
        People.of_prediction(prediction, BLAZEPOSE_33, (480, 640))
