"""Tracked people are scaled to their true size."""

import dataclasses

import numpy as np
import pytest
import scaled_people

from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import Cue
from metrabs_ros.tracking.tracker import Tracker

RATE_HZ = 15.0


def track(
    scene: scaled_people.Scene, cue: str, seconds: float = 2.0, noise: float = 0.3
) -> tuple[list[People], list[np.ndarray]]:
    """Return the published people of each frame after the first second, and the true joints."""
    rng = np.random.default_rng(0)
    network = scaled_people.Network(rng, RATE_HZ, noise)
    tracker = Tracker(min_hits=1)
    published, true_mm = [], []
    for i in range(round(seconds * RATE_HZ)):
        time_s = i / RATE_HZ
        people = tracker.update(
            network(scene, time_s),
            1 + time_s,
            scene.camera,
            scaled_people.IMAGE_SHAPE,
            ground=scene.ground if cue == 'ground' else None,
            depth=(
                scaled_people.render_depth(scene, time_s, rng, (180, 320))
                if cue == 'depth'
                else None
            ),
        )
        if time_s >= 1:
            published.append(people)
            true_mm.append(scene.joints_mm(time_s))
    return published, true_mm


def depth_errors(scene: scaled_people.Scene, cue: str) -> np.ndarray:
    """Return the relative depth errors of the hips."""
    published, true_mm = track(scene, cue)
    return np.array(
        [
            people.distances_mm[0] / np.linalg.norm(joints[[11, 12]].mean(axis=0)) - 1
            for people, joints in zip(published, true_mm)
        ]
    )


def scenes(posture: str, count: int, max_distance_mm: float) -> list[scaled_people.Scene]:
    """Return scenes with people within a distance."""
    rng = np.random.default_rng(2)
    found: list[scaled_people.Scene] = []
    while len(found) < count:
        scene = scaled_people.Scene.random(scaled_people.POSTURES[posture], rng)
        if scene.distance_mm < max_distance_mm:
            found.append(scene)
    return found


@pytest.mark.parametrize('posture', ['stand', 'walk'])
def test_the_ground_plane_corrects_the_distance(posture: str) -> None:
    errors = np.concatenate([depth_errors(own, 'ground') for own in scenes(posture, 8, 8000)])
    assert np.median(np.abs(errors)) < 0.02


@pytest.mark.parametrize('posture', list(scaled_people.POSTURES))
def test_the_ground_plane_makes_no_posture_worse(posture: str) -> None:
    own = scenes(posture, 6, 8000)
    without = np.concatenate([depth_errors(scene, '') for scene in own])
    with_ground = np.concatenate([depth_errors(scene, 'ground') for scene in own])
    assert np.median(np.abs(with_ground)) < np.median(np.abs(without)) + 0.005


def test_depth_images_correct_the_distance() -> None:
    errors = np.concatenate([depth_errors(own, 'depth') for own in scenes('walk', 4, 5000)])
    assert np.median(np.abs(errors)) < 0.015


def test_positions_velocities_and_deviations_are_scaled_and_image_points_are_not() -> None:
    (scene,) = scenes('stand', 1, 5000)
    scene = dataclasses.replace(scene, stature_mm=1300.0)
    without, _ = track(scene, '')
    with_ground, _ = track(scene, 'ground')
    factor = with_ground[-1].distances_mm[0] / without[-1].distances_mm[0]
    assert factor == pytest.approx(1300 / 1700, abs=0.05)
    np.testing.assert_allclose(
        with_ground[-1].poses3d_mm, factor * without[-1].poses3d_mm, rtol=1e-9
    )
    np.testing.assert_allclose(
        with_ground[-1].velocities_mm_s, factor * without[-1].velocities_mm_s, rtol=1e-9
    )
    np.testing.assert_allclose(with_ground[-1].poses2d_px, without[-1].poses2d_px)
    assert (with_ground[-1].axis_std_mm < without[-1].axis_std_mm).all()
    assert with_ground[-1].scale_cues[0] == Cue.GROUND_PLANE
    assert without[-1].scale_cues[0] == 0
    assert with_ground[-1].estimated_statures_mm[0] == pytest.approx(1300, rel=0.06)


def test_the_velocity_of_a_standing_person_is_zero_for_a_moving_camera() -> None:
    # The camera moves forward; the unscaled position moves in the world.
    (scene,) = scenes('stand', 1, 5000)
    scene = dataclasses.replace(scene, stature_mm=1200.0, distance_mm=5000.0)
    network = scaled_people.Network(np.random.default_rng(0), RATE_HZ, noise=0.0)
    tracker = Tracker(min_hits=1)
    for i in range(45):
        moved_mm = 500.0 * i / RATE_HZ
        extrinsics = scene.camera.extrinsic_matrix.copy()
        extrinsics[:3, 3] -= extrinsics[:3, 0] * moved_mm
        camera = dataclasses.replace(scene.camera, extrinsic_matrix=extrinsics)
        moved = dataclasses.replace(scene, camera=camera)
        people = tracker.update(
            network(moved, 0.0), 1 + i / RATE_HZ, camera, (1080, 1920), ground=scene.ground
        )
    assert np.linalg.norm(people.velocities_mm_s[0].mean(axis=0)) < 60


def test_the_size_is_remembered_by_the_track_without_the_ground() -> None:
    (scene,) = scenes('stand', 1, 5000)
    scene = dataclasses.replace(scene, stature_mm=1300.0)
    network = scaled_people.Network(np.random.default_rng(0), RATE_HZ, 0.3)
    tracker = Tracker(min_hits=1)
    distances_mm = []
    for i in range(60):
        people = tracker.update(
            network(scene, i / RATE_HZ),
            1 + i / RATE_HZ,
            scene.camera,
            scaled_people.IMAGE_SHAPE,
            ground=scene.ground if i < 30 else None,
        )
        distances_mm.append(people.distances_mm[0])
    assert distances_mm[-1] == pytest.approx(distances_mm[28], rel=0.06)
