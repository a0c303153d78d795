"""Absolute positions follow from certain points in the crop, whatever the others are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import angles, standing_person

from metrabs_ros.nlf.absolute import full_reference, place_points, weak_reference
from metrabs_ros.nlf.network import NlfConfig

CONFIG = NlfConfig('s', 256, 32, True, 8, 2200.0, 512)
INTRINSICS = np.array([[[500.0, 0, 128], [0, 500, 128], [0, 0, 1]]])
UP = np.array([0, -1.0, 0])
CERTAIN_M = np.full((1, 33), 0.1)


def place(absolute_mm, relative_mm, uncertainties_m=CERTAIN_M, image_points=None, config=CONFIG):
    """Return placed points of one person whose points [P, 3] are seen by the camera."""
    if image_points is None:
        image_points = absolute_mm[:, :2] / absolute_mm[:, 2:]
    image_points_px = image_points @ INTRINSICS[0, :2, :2].T + INTRINSICS[0, :2, 2]
    return place_points(
        image_points[None],
        relative_mm[None],
        uncertainties_m,
        image_points_px[None],
        INTRINSICS,
        config,
    )[0]


@given(
    x_mm=st.floats(-300, 300),
    distance_mm=st.floats(5500, 40_000),
    facing=angles,
    weak=st.booleans(),
)
def test_a_synthetic_person_is_reconstructed(x_mm, distance_mm, facing, weak):
    person_mm = standing_person(UP, facing)
    absolute_mm = person_mm + np.array([x_mm, 0, distance_mm])
    config = dataclasses.replace(CONFIG, weak_perspective=weak)
    error_mm = np.linalg.norm(place(absolute_mm, person_mm, config=config) - absolute_mm, axis=-1)
    # Weak perspective is an approximation: it ignores the depths of the points.
    assert error_mm.max() < distance_mm * (0.12 if weak else 0.001)


@pytest.mark.parametrize('find_reference', [full_reference, weak_reference])
def test_invalid_points_do_not_affect_the_reference(find_reference):
    person_mm = standing_person(UP, 0.4)
    absolute_mm = person_mm + np.array([100, -50, 6000])
    points = absolute_mm[:, :2] / absolute_mm[:, 2:]
    valid = np.ones((1, 33), bool)
    valid[0, 20:] = False
    before_mm = find_reference(points[None], person_mm[None], valid)
    points[20:] += 5
    after_mm = find_reference(points[None], person_mm[None], valid)
    np.testing.assert_allclose(after_mm, before_mm, atol=2)


@pytest.mark.parametrize('reason', ['uncertain', 'near the edge'])
def test_uncertain_points_and_points_near_the_edge_do_not_affect_the_others(reason):
    person_mm = standing_person(UP, 0.4)
    absolute_mm = person_mm + np.array([100, -50, 6000])
    image_points = absolute_mm[:, :2] / absolute_mm[:, 2:]
    uncertainties_m = CERTAIN_M.copy()
    if reason == 'uncertain':
        image_points[25:] += 0.05
        uncertainties_m[:, 25:] = 0.31
    else:
        image_points[25:] = (230 - 128) / 500
    placed_mm = place(absolute_mm, person_mm, uncertainties_m, image_points)
    np.testing.assert_allclose(placed_mm[:25], absolute_mm[:25], atol=5)


def test_points_whose_3d_position_is_outside_of_the_crop_are_not_back_projected():
    person_mm = standing_person(UP, 0.4)
    person_mm[0] += (3000, 0, 0)
    absolute_mm = person_mm + np.array([0, 0, 6000])
    image_points = absolute_mm[:, :2] / absolute_mm[:, 2:]
    # The image point claims to be inside.
    image_points[0] = 0
    uncertainties_m = CERTAIN_M.copy()
    uncertainties_m[:, 0] = 1
    placed_mm = place(absolute_mm, person_mm, uncertainties_m, image_points)
    np.testing.assert_allclose(placed_mm[0], absolute_mm[0], atol=5)
    # A point inside is the mean of both positions.
    person_mm[0] -= (2900, 0, 0)
    absolute_mm = person_mm + np.array([0, 0, 6000])
    placed_mm = place(absolute_mm, person_mm, uncertainties_m, image_points)
    np.testing.assert_allclose(placed_mm[0, :2], absolute_mm[0, :2] / 2, atol=5)


def test_poses_without_valid_points_are_finite():
    rng = np.random.default_rng(0)
    relative_mm = rng.normal(scale=300, size=(33, 3))
    for config in (CONFIG, dataclasses.replace(CONFIG, weak_perspective=True)):
        placed_mm = place(
            relative_mm + np.array([0, 0, 4000]), relative_mm, CERTAIN_M + 1, config=config
        )
        assert np.isfinite(placed_mm).all()


def test_a_pose_does_not_depend_on_other_people():
    rng = np.random.default_rng(1)
    points = rng.normal(scale=0.1, size=(5, 33, 2))
    relative_mm = rng.normal(scale=300, size=(5, 33, 3))
    valid = rng.random((5, 33)) > 0.2
    for find_reference in (full_reference, weak_reference):
        together_mm = find_reference(points, relative_mm, valid)
        for i in range(5):
            alone_mm = find_reference(points[[i]], relative_mm[[i]], valid[[i]])
            np.testing.assert_allclose(together_mm[[i]], alone_mm, rtol=1e-9)
