"""Affine regression: known weights, missing joints, sparsity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.skeletons.affine_regression import (
    SquaredDifferences,
    affine_weights,
    check_common_poses,
    fill_missing,
    joint_covariance,
    most_common_pose,
    sparse_affine_weights,
)

JOINTS = 8


def poses(count, seed=0, noise_mm=0.0):
    """Return poses of eight independent joints, and a ninth that is a combination of three."""
    rng = np.random.default_rng(seed)
    joints_mm = rng.normal(0, 300, (count, JOINTS, 3)) + rng.normal(0, 3000, (count, 1, 3))
    target_mm = np.array([0.7, 0.5, -0.2]) @ joints_mm[:, [1, 4, 6]]
    together = np.concatenate([joints_mm, target_mm[:, None]], axis=1)
    return together + noise_mm * rng.standard_normal(together.shape)


def covariance_of(poses_mm):
    return SquaredDifferences.of_poses(poses_mm).covariance()


def test_differences_are_those_of_the_coordinates():
    poses_mm = poses(500)
    differences = SquaredDifferences.of_poses(poses_mm)
    expected = ((poses_mm[:, 2] - poses_mm[:, 5]) ** 2).mean()
    assert differences.mean_mm2[2, 5] == pytest.approx(expected)
    assert (differences.counts == 500).all()


@given(st.integers(0, 10_000))
def test_missing_joints_leave_the_other_differences_unchanged(seed):
    poses_mm = poses(60, seed)
    rng = np.random.default_rng(seed)
    missing = poses_mm.copy()
    missing[rng.random(missing.shape[:2]) < 0.4] = np.nan
    differences = SquaredDifferences.of_poses(missing)
    known = np.isfinite(missing).all(axis=-1)
    both = known[:, 1] & known[:, 3]
    assert differences.counts[1, 3] == both.sum()
    if both.any():
        expected = ((poses_mm[both, 1] - poses_mm[both, 3]) ** 2).mean()
        assert differences.mean_mm2[1, 3] == pytest.approx(expected)
    assert np.isfinite(differences.covariance()).all()


@pytest.mark.parametrize('noise_mm', [0.0, 3.0])
def test_known_weights_are_found(noise_mm):
    covariance = covariance_of(poses(3000, noise_mm=noise_mm))
    expected = np.zeros(JOINTS)
    expected[[1, 4, 6]] = 0.7, 0.5, -0.2
    dense = affine_weights(covariance, np.arange(JOINTS), np.array([JOINTS]))
    np.testing.assert_allclose(dense[0], expected, atol=2e-3)
    sparse = sparse_affine_weights(covariance, np.arange(JOINTS), JOINTS, 3)
    np.testing.assert_allclose(sparse, expected, atol=2e-3)
    assert (sparse != 0).sum() == 3


@given(st.integers(0, 10_000), st.integers(1, JOINTS), st.floats(0.1, 50))
def test_weights_sum_to_one_and_are_at_most_as_many_as_requested(seed, count, ridge_mm):
    covariance = covariance_of(poses(5, seed))
    weights = sparse_affine_weights(covariance, np.arange(JOINTS), JOINTS, count, ridge_mm)
    assert weights.sum() == pytest.approx(1)
    assert 1 <= (weights != 0).sum() <= count
    assert np.isfinite(weights).all()


def test_identical_poses_give_finite_weights():
    poses_mm = np.repeat(poses(1), 30, axis=0)
    weights = sparse_affine_weights(covariance_of(poses_mm), np.arange(JOINTS), JOINTS, 4)
    assert np.isfinite(weights).all()
    assert np.abs(weights).max() < 10


def test_missing_joints_are_predicted_from_incomplete_poses():
    poses_mm = poses(4000, noise_mm=2)
    missing = poses_mm.copy()
    missing[np.random.default_rng(1).random(missing.shape[:2]) < 0.2] = np.nan
    missing[:20] = np.nan
    covariance = joint_covariance(missing, np.arange(JOINTS + 1))
    new = poses(200, seed=9, noise_mm=2)
    incomplete = new.copy()
    incomplete[:, JOINTS] = np.nan
    incomplete[0] = np.nan
    filled = fill_missing(incomplete, covariance)
    errors_mm = np.linalg.norm(filled - new, axis=-1)
    assert errors_mm[1:, JOINTS].mean() < 6
    assert (errors_mm[1:, :JOINTS] == 0).all()
    assert (filled[0] == 0).all()


def test_joints_without_common_poses_are_named():
    poses_mm = poses(20)
    poses_mm[:10, 0] = np.nan
    poses_mm[10:, 3] = np.nan
    names = tuple(f'joint {i}' for i in range(JOINTS + 1))
    with pytest.raises(ValueError, match="the joints 'joint 0' and 'joint 3' occur together in 0"):
        check_common_poses(SquaredDifferences.of_poses(poses_mm), names)


def test_a_typical_pose_is_one_of_the_complete_poses():
    poses_mm = poses(50)
    poses_mm[::2, 0] = np.nan
    assert (most_common_pose(poses_mm) == poses_mm[1::2]).all(axis=(1, 2)).any()
    poses_mm[:, 0] = np.nan
    assert np.isfinite(most_common_pose(poses_mm)).all()
