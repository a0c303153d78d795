"""Augmentations are combined robustly: outliers and uncertain ones hardly count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.nlf.combination import combine_augmentations, geometric_median

RNG = np.random.default_rng(0)
PERSON_MM = RNG.normal(scale=300, size=(2, 1, 24, 3)) + np.array([0, 0, 4000])


def test_a_single_augmentation_is_unchanged():
    uncertainties_m = RNG.uniform(0.05, 0.5, (2, 1, 24))
    poses_mm, combined_m = combine_augmentations(PERSON_MM, uncertainties_m)
    np.testing.assert_allclose(poses_mm, PERSON_MM[:, 0])
    np.testing.assert_allclose(combined_m, uncertainties_m[:, 0])


@given(scales=st.lists(st.floats(0.8, 1.25), min_size=2, max_size=7))
def test_poses_that_differ_in_scale_only_get_their_root_mean_square_scale(scales):
    factors = np.array(scales)
    poses_mm = PERSON_MM * factors[:, None, None]
    uncertainties_m = np.full(poses_mm.shape[:3], 0.2)
    combined_mm, combined_m = combine_augmentations(poses_mm, uncertainties_m)
    scale = np.sqrt((factors**2).mean())
    np.testing.assert_allclose(combined_mm, scale * PERSON_MM[:, 0], rtol=1e-9)
    np.testing.assert_allclose(combined_m, 0.2)


def test_the_median_is_near_the_majority():
    points_mm = np.zeros((1, 5, 1, 3))
    points_mm[0, 4] = 1000
    median_mm, weights = geometric_median(points_mm, np.ones((1, 5, 1)))
    assert np.linalg.norm(median_mm) < 30 < np.linalg.norm(points_mm.mean(axis=1))
    assert weights.sum() == pytest.approx(1)


@given(uncertain_m=st.floats(0.5, 5))
def test_uncertain_augmentations_hardly_count(uncertain_m):
    points_mm = np.zeros((1, 2, 1, 3))
    points_mm[0, 1, 0, 0] = 100
    uncertainties_m = np.array([[[0.05], [uncertain_m]]])
    poses_mm, combined_m = combine_augmentations(
        points_mm + np.array([0, 0, 5000]), uncertainties_m
    )
    assert 0 <= poses_mm[0, 0, 0] < 10
    assert 0.05 <= combined_m < 0.05 + 0.1 * uncertain_m
