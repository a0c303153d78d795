"""The errors of poses with known differences are these differences."""

from __future__ import annotations

import accuracy_metrics as metrics
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrabs_ros.skeletons.conventions import COCO_17

MIRROR = COCO_17.mirror
HIPS = [11, 12]
DEPTH_MM = 3000.0


def random_poses(count=3, seed=0):
    """Return poses [count, 17, 3] of about human size, 3 m in front of the camera."""
    poses_mm = np.random.default_rng(seed).normal(size=(count, 17, 3)) * (250, 600, 150)
    return poses_mm + np.array([200, 100, DEPTH_MM])


def project(poses_mm):
    return 1000 * poses_mm[..., :2] / poses_mm[..., 2:]


def rotation_matrix(vector):
    return cv2.Rodrigues(np.array(vector))[0]


def without_joints(poses, joints):
    poses = poses.copy()
    poses[:, joints] = np.nan
    return poses


def test_a_person_that_is_too_far_away_has_only_a_radial_error():
    true_mm = random_poses().mean(axis=1)
    nearer_mm = 0.9 * true_mm
    distances_mm = np.linalg.norm(true_mm, axis=-1)
    assert metrics.radial_errors(nearer_mm, true_mm) == pytest.approx(-0.1 * distances_mm)
    assert metrics.lateral_errors(nearer_mm, true_mm) == pytest.approx(0, abs=1e-6)


@given(st.floats(-500, 500), st.floats(-500, 500))
def test_radial_and_lateral_errors_add_up(along_mm, across_mm):
    true_mm = np.array([[1800.0, 0, 2400]])
    along, across = np.array([0.6, 0, 0.8]), np.array([0.8, 0, -0.6])
    position_mm = true_mm + along_mm * along + across_mm * across
    assert metrics.radial_errors(position_mm, true_mm) == pytest.approx([along_mm], abs=1e-6)
    assert metrics.lateral_errors(position_mm, true_mm) == pytest.approx([abs(across_mm)])


def test_a_shift_is_the_joint_error_and_vanishes_relative_to_the_root():
    true_mm = random_poses()
    shifted_mm = true_mm + np.array([30, -40, 120])
    assert metrics.joint_errors(shifted_mm, true_mm) == pytest.approx(130)
    assert metrics.root_relative_errors(shifted_mm, true_mm, HIPS) == pytest.approx(0, abs=1e-9)


def test_scaling_by_a_tenth_is_a_tenth_of_the_distances_from_the_root():
    true_mm = random_poses()
    root_mm = true_mm[:, HIPS].mean(axis=1, keepdims=True)
    larger_mm = root_mm + 1.1 * (true_mm - root_mm)
    expected_mm = 0.1 * np.linalg.norm(true_mm - root_mm, axis=-1).mean(axis=1)
    errors_mm = metrics.root_relative_errors(larger_mm, true_mm, HIPS)
    assert errors_mm == pytest.approx(expected_mm)
    assert metrics.aligned_errors(larger_mm, true_mm) == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.tuples(*[st.floats(-5000, 5000)] * 3),
    st.floats(0.2, 5),
    st.sets(st.integers(0, 16), max_size=12),
)
def test_alignment_undoes_rotation_translation_and_scale(rotation, shift_mm, scale, unknown):
    true_mm = random_poses()
    moved_mm = scale * true_mm @ rotation_matrix(rotation) + shift_mm
    known_mm = without_joints(true_mm, list(unknown))
    aligned_mm = metrics.procrustes_aligned(moved_mm, known_mm)
    np.testing.assert_allclose(aligned_mm, true_mm, atol=1e-4)
    assert metrics.aligned_errors(moved_mm, known_mm) == pytest.approx(0, abs=1e-4)


def test_alignment_does_not_undo_a_reflection():
    true_mm = random_poses()
    assert (metrics.aligned_errors(true_mm * (-1, 1, 1), true_mm) > 20).all()


def test_alignment_minimises_the_squared_error():
    rng = np.random.default_rng(1)
    true_mm = random_poses()
    noisy_mm = true_mm + rng.normal(scale=60, size=true_mm.shape)
    aligned_mm = metrics.procrustes_aligned(noisy_mm, true_mm)
    best = ((aligned_mm - true_mm) ** 2).sum(axis=(1, 2))
    centre_mm = aligned_mm.mean(axis=1, keepdims=True)
    for _ in range(20):
        rotation = rotation_matrix(rng.normal(scale=0.02, size=3))
        other_mm = centre_mm + rng.normal(1, 0.02) * (aligned_mm - centre_mm) @ rotation
        other_mm = other_mm + rng.normal(scale=3, size=3)
        assert (((other_mm - true_mm) ** 2).sum(axis=(1, 2)) >= best).all()


def test_unknown_true_joints_do_not_count():
    true_mm = random_poses()
    wrong_mm = true_mm.copy()
    wrong_mm[:, 3] += 1e5
    known_mm = without_joints(true_mm, [3])
    assert metrics.joint_errors(wrong_mm, known_mm) == pytest.approx(0)
    assert metrics.aligned_errors(wrong_mm, known_mm) == pytest.approx(0, abs=1e-6)


def test_only_mirrored_skeletons_are_swapped():
    true_px = project(random_poses())
    legs = np.arange(11, 17)
    points_px = np.stack([true_px[0], true_px[1][MIRROR], true_px[2] + 20])
    swapped = metrics.are_swapped(points_px, true_px, MIRROR, legs)
    assert swapped.tolist() == [False, True, False]


def test_swapped_legs_are_not_swapped_arms():
    true_px = project(random_poses())
    legs, arms = np.arange(11, 17), np.arange(5, 11)
    points_px = true_px.copy()
    points_px[:, legs] = true_px[:, MIRROR][:, legs]
    assert metrics.are_swapped(points_px, true_px, MIRROR, legs).all()
    assert not metrics.are_swapped(points_px, true_px, MIRROR, arms).any()


def test_the_acceleration_error_of_a_parabola_is_its_acceleration():
    times_s = 0.1 * np.arange(8)
    true_mm = np.broadcast_to(random_poses(1), (8, 17, 3))
    # 3 m/s^2: 1500 mm/s^2 t^2.
    accelerated_mm = true_mm + 1500 * times_s[:, None, None] ** 2 * np.array([0, 0, 1])
    errors_m_s2 = metrics.acceleration_errors(accelerated_mm, true_mm, 0.1)
    assert errors_m_s2 == pytest.approx(np.full(6 * 17, 3.0))


def test_a_constant_velocity_error_is_no_acceleration_error():
    true_mm = np.broadcast_to(random_poses(1), (5, 17, 3))
    moving_mm = true_mm + 100 * np.arange(5)[:, None, None]
    assert metrics.acceleration_errors(moving_mm, true_mm, 0.1) == pytest.approx(0, abs=1e-6)


def test_accelerations_next_to_missing_poses_are_left_out():
    true_mm = np.array(np.broadcast_to(random_poses(1), (9, 17, 3)))
    found_mm = true_mm.copy()
    found_mm[4] = np.nan
    # Middles 1, 2, 6 and 7 have both neighbours.
    assert len(metrics.acceleration_errors(found_mm, true_mm, 0.1)) == 4 * 17
    true_mm[:, 0] = np.nan
    assert len(metrics.acceleration_errors(found_mm, true_mm, 0.1)) == 4 * 16


def test_coverage_of_normal_errors():
    rng = np.random.default_rng(0)
    std_mm = rng.uniform(10, 100, (2000, 17, 3))
    errors_mm = rng.normal(scale=std_mm)
    errors_mm[0] = np.nan
    for deviations, share in ((1, 0.683), (2, 0.954)):
        assert metrics.coverage(errors_mm, std_mm, deviations) == pytest.approx(share, abs=0.01)


def test_coverage_tells_the_axes_apart():
    errors_mm = np.array([[[5.0, 15, 25]], [[-5, -15, -25]]])
    std_mm = np.full((2, 1, 1), 10.0)
    assert metrics.coverage(errors_mm, std_mm, 1).tolist() == [1, 0, 0]
    assert metrics.coverage(errors_mm, std_mm, 2).tolist() == [1, 1, 0]


def test_a_detection_matches_its_person_also_with_swapped_sides_or_few_wrong_joints():
    true_px = project(random_poses(1))[0]
    wrong_joints_px = true_px.copy()
    wrong_joints_px[:5] += 500
    far_px = true_px + 400
    points_px = np.stack([true_px, true_px[MIRROR], wrong_joints_px, far_px])
    costs = metrics.match_costs(points_px, true_px, MIRROR)
    assert costs[:3] == pytest.approx(0)
    assert costs[3] > metrics.MATCH_RATIO


def test_the_match_cost_does_not_depend_on_the_image_scale():
    true_px = project(random_poses(1))[0]
    points_px = true_px[None] + np.array([10, 0])
    costs = [metrics.match_costs(k * points_px, k * true_px, MIRROR) for k in (1, 3)]
    assert costs[0] == pytest.approx(costs[1])
