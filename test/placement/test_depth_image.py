"""Depth images as a cue of the person scale."""

import numpy as np
import pytest
import scaled_people
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metrabs_ros.people import People
from metrabs_ros.placement.depth_image import DepthImage, observe_depth
from metrabs_ros.skeletons.conventions import COCO_17, Skeleton

SIZE = (180, 320)


def scene_and_person(seed: int, noise: float = 0.3) -> tuple[scaled_people.Scene, People]:
    """Return a scene within the range of a depth camera, and its person by the network."""
    rng = np.random.default_rng(seed)
    while True:
        scene = scaled_people.Scene.random(scaled_people.stand, rng)
        if scene.distance_mm < 4000:
            return scene, scaled_people.Network(rng, 30.0, noise)(scene, 0.0)


def test_the_factor_is_that_of_the_surface() -> None:
    errors = []
    for seed in range(12):
        scene, people = scene_and_person(seed)
        depth = scaled_people.render_depth(scene, 0.0, np.random.default_rng(seed), SIZE)
        own = observe_depth(people, depth)
        true_mm = np.linalg.norm(scene.joints_mm(0.0)[[11, 12]].mean(axis=0))
        errors.append(own.log_factor[0, 0] - np.log(true_mm / people.distances_mm[0]))
    assert np.median(np.abs(errors)) < 0.02
    # The arm in front of the trunk can cover most samples.
    assert np.percentile(np.abs(errors), 80) < 0.04


def test_a_wall_behind_the_person_is_no_surface_of_the_person() -> None:
    scene, people = scene_and_person(1)
    depth = scaled_people.render_depth(scene, 0.0, np.random.default_rng(1), SIZE)
    farthest_mm = scene.joints_mm(0.0)[:, 2].max()
    is_wall = depth.depth_mm > farthest_mm + 200
    log_factors = []
    for wall_mm in (farthest_mm + 400, 20_000, np.nan):
        depth_mm = np.where(is_wall, wall_mm, depth.depth_mm.astype(float))
        own = observe_depth(people, DepthImage(depth_mm, depth.camera))
        log_factors.append(own.log_factor[0, 0])
    np.testing.assert_allclose(log_factors, log_factors[0], atol=0.01)


@pytest.mark.parametrize('value', [0, np.nan, np.inf, -1.0])
def test_images_without_valid_depths_yield_nothing(value: float) -> None:
    scene, people = scene_and_person(1)
    depth = DepthImage(np.full(SIZE, value), scene.camera)
    assert np.isnan(observe_depth(people, depth).log_factor).all()


def test_people_that_were_not_detected_are_not_used() -> None:
    scene, people = scene_and_person(1)
    depth = scaled_people.render_depth(scene, 0.0, np.random.default_rng(1), SIZE)
    people.seen[:] = False
    assert np.isnan(observe_depth(people, depth).log_factor).all()


def test_no_people_and_skeletons_without_limbs_yield_nothing() -> None:
    scene, people = scene_and_person(1)
    depth = scaled_people.render_depth(scene, 0.0, np.random.default_rng(1), SIZE)
    assert observe_depth(People.empty(COCO_17), depth).log_factor.shape == (0, 1)
    head = Skeleton('head', ('nose', 'left_eye'), ((0, 1),)).within(COCO_17)
    assert np.isnan(observe_depth(people.in_convention(head), depth).log_factor).all()


@given(arrays(np.float32, (9, 16), elements=st.floats(width=32)))
def test_any_depth_image_yields_finite_factors_or_none(depth_mm: np.ndarray) -> None:
    scene, people = scene_and_person(1)
    own = observe_depth(people, DepthImage(depth_mm, scene.camera))
    assert not np.isinf(own.log_factor).any()
    assert (own.std > 0).all()
