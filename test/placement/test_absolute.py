"""Absolute poses are reconstructed from image points and root-relative poses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import IMAGE_SHAPE, angles, cameras, standing_person

from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.placement.absolute import absolute_points, full_perspective, weak_perspective


def absolute_pose(points, relative_mm, inside, mix=0.5, find_reference=full_perspective):
    """Return the absolute pose."""
    reference_mm = find_reference(points, relative_mm, inside)
    return absolute_points(points, relative_mm, reference_mm, inside, mix)


@given(
    camera=cameras(),
    pixel=st.tuples(st.floats(0, IMAGE_SHAPE[1] - 1), st.floats(0, IMAGE_SHAPE[0] - 1)),
    distance_mm=st.floats(1500, 60_000),
    facing=angles,
)
def test_a_synthetic_person_is_reconstructed_through_lens_and_crop(
    camera, pixel, distance_mm, facing
):
    ray = camera.unproject(np.array(pixel))
    position_mm = distance_mm * ray / np.linalg.norm(ray)
    person_mm = position_mm + standing_person(camera.up, facing)
    assume((person_mm[:, 2] > 300).all())
    image_points_px = camera.project(person_mm)
    assume(((image_points_px >= 0) & (image_points_px < IMAGE_SHAPE[::-1])).all())
    boxes = np.concatenate([image_points_px.min(axis=0), np.ptp(image_points_px, axis=0)])[None]
    virtual = virtual_cameras_on_regions(Regions.around_boxes(boxes, camera), camera, 256, 1.25)

    rays = camera.unproject(image_points_px) @ virtual.rotation[0].T
    image_points = (rays[:, :2] / rays[:, 2:])[None]
    root_relative_mm = ((person_mm - position_mm) @ virtual.rotation[0].T)[None]
    estimated_mm = virtual.to_camera(
        absolute_pose(image_points, root_relative_mm, np.ones((1, 33), bool))
    )[0]

    error_mm = np.linalg.norm(estimated_mm - person_mm, axis=-1).max()
    assert error_mm < max(1.0, 0.0005 * np.linalg.norm(position_mm))


def test_joints_outside_the_view_hardly_affect_the_others():
    person_mm = standing_person(np.array([0, -1.0, 0]), 0.7)
    absolute_mm = person_mm + np.array([300, -100, 4000])
    image_points = absolute_mm[:, :2] / absolute_mm[:, 2:]
    inside = np.ones(33, bool)
    inside[25:] = False
    image_points[25:] += 0.4
    estimated_mm = absolute_pose(image_points[None], person_mm[None], inside[None])[0]
    # The outliers affect the scaling, and therefore the bias of the regularisation.
    np.testing.assert_allclose(estimated_mm, absolute_mm, atol=0.005 * 4000)


def test_mix_interpolates_between_back_projected_and_translated_joints():
    rng = np.random.default_rng(0)
    points = rng.normal(scale=0.1, size=(1, 17, 2))
    relative_mm = rng.normal(scale=300, size=(1, 17, 3))
    inside = np.ones((1, 17), bool)
    translated = absolute_pose(points, relative_mm, inside, mix=1.0)
    root_mm = full_perspective(points, relative_mm, inside)
    np.testing.assert_allclose(translated, relative_mm + root_mm[:, None])
    projected = absolute_pose(points, relative_mm, inside, mix=0.0)
    np.testing.assert_allclose(projected[..., :2] / projected[..., 2:], points)


def test_a_pose_does_not_depend_on_other_people():
    rng = np.random.default_rng(1)
    points = rng.normal(scale=0.1, size=(5, 33, 2))
    relative_mm = rng.normal(scale=300, size=(5, 33, 3))
    inside = rng.random((5, 33)) > 0.2
    together = absolute_pose(points, relative_mm, inside)
    for i in range(5):
        alone = absolute_pose(points[i : i + 1], relative_mm[i : i + 1], inside[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-9)


@pytest.mark.parametrize('find_reference', [full_perspective, weak_perspective])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_result_is_finite_if_no_joint_is_inside(find_reference, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(3, 17, 2)) * rng.choice([0, 1e-6, 1, 1e6])
    relative_mm = rng.normal(size=(3, 17, 3)) * rng.choice([0, 1, 1e3])
    estimated_mm = absolute_pose(
        points, relative_mm, np.zeros((3, 17), bool), find_reference=find_reference
    )
    assert np.isfinite(estimated_mm).all()


def test_weak_perspective_is_exact_for_flat_objects():
    rng = np.random.default_rng(2)
    flat_mm = rng.normal(scale=300, size=(1, 17, 3)) * (1, 1, 0)
    absolute_mm = flat_mm + np.array([400.0, -200, 5000])
    points = absolute_mm[..., :2] / absolute_mm[..., 2:]
    inside = np.arange(17)[None] < 12
    estimated_mm = absolute_pose(points, flat_mm, inside, find_reference=weak_perspective)
    # The minimum standard deviation in the formula has a small bias.
    np.testing.assert_allclose(estimated_mm, absolute_mm, rtol=1e-4, atol=0.5)
