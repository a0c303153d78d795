"""All pairs of people are compared in blocks, and each person is kept once."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import hypothesis
import numpy as np
from hypothesis import strategies as st

from metrabs_ros import duplicates
from metrabs_ros.duplicates import are_near, keep_first


@hypothesis.given(
    st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([1, 3, 17]), st.integers(1, 500)
)
def test_people_are_near_if_the_median_distance_is_below_the_limit(
    seed, count, points, block_values
):
    rng = np.random.default_rng(seed)
    points_px = rng.uniform(0, 100, (count, points, 2))
    limits_px = rng.uniform(0, 100, (count, count))
    apart_px = np.linalg.norm(points_px[:, None] - points_px, axis=-1)
    expected = np.median(apart_px, axis=-1) < limits_px
    with mock.patch.object(duplicates, 'MAX_BLOCK_VALUES', block_values):
        np.testing.assert_array_equal(are_near(points_px, limits_px), expected)


def test_points_that_are_not_finite_are_near_to_nothing():
    points_px = np.zeros((2, 3, 2))
    points_px[1] = np.nan
    assert are_near(points_px, np.ones((2, 2))).tolist() == [[True, False], [False, False]]


def test_the_memory_for_1000_people_is_limited():
    points_px = np.random.default_rng(0).uniform(0, 1000, (1000, 33, 2))
    limits_px = np.full((1000, 1000), 50.0)
    tracemalloc.start()
    try:
        are_near(points_px, limits_px)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6


def test_a_duplicate_of_a_person_that_is_not_kept_is_kept():
    same = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    assert keep_first(same, np.array([0, 1, 2])).tolist() == [True, False, True]
    assert keep_first(same, np.array([2, 1, 0])).tolist() == [True, True, True]
    assert keep_first(np.zeros((0, 0), bool), np.zeros(0, int)).tolist() == []
