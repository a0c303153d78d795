"""Pairs are those who may be the same, each at most once, the nearest first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.tracking.association import (
    GATE,
    Pairs,
    assign_nearest_first,
    box_overlap,
    gated_pairs,
    position_std,
)

HERE = np.zeros(3)


def pairs_of(*pairs):
    known, found = np.array(pairs, np.intp).reshape(-1, 2).T
    nothing = np.zeros(len(pairs))
    return Pairs(known, found, nothing, nothing, nothing)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20, unique=True),
    st.randoms(use_true_random=False),
)
def test_nobody_is_two_people_and_the_cheapest_pair_is_always_kept(pairs, random):
    costs = np.array([random.random() for _ in pairs])
    kept = assign_nearest_first(pairs_of(*pairs), costs)
    assert len(set(kept.known.tolist())) == len(kept.known)
    assert len(set(kept.found.tolist())) == len(kept.found)
    left = list(zip(kept.known.tolist(), kept.found.tolist()))
    if pairs:
        assert pairs[int(np.argmin(costs))] in left
    # Whoever is not paired has only partners who are.
    for known, found in pairs:
        assert known in kept.known or found in kept.found


def test_depth_may_be_farther_off_than_the_place_in_the_image():
    std_mm = np.array([[100.0], [200.0]])
    expected = np.array([[0, 0, 5000.0]])
    found = np.array([[0, 0, 5500.0], [500.0, 0, 5000], [0, 0, 6500], [0, 0, 9000]])
    pairs = gated_pairs(expected, found, HERE, std_mm)
    assert pairs.found.tolist() == [0, 2]
    assert pairs.near.tolist() == [True, False]
    np.testing.assert_allclose(pairs.along, [2.5, 7.5])
    # Who is taken for the same by the box is brought as near as is credible.
    np.testing.assert_allclose(pairs.nearing, [1, (5000 + GATE * 200) / 6500])


def test_the_longer_people_are_unseen_the_farther_they_may_have_gone():
    std = position_std(
        np.full(2, 5000.0), np.full((2, 2), 30.0), np.array([0.0, 1.0]), np.full(2, 9)
    )
    assert (std[:, 1] > std[:, 0] + 1000).all()
    new = position_std(np.full(1, 5000.0), np.full((2, 1), 30.0), np.zeros(1), np.ones(1))
    assert new[1, 0] > std[1, 0] + 200


def test_boxes_overlap_by_their_shared_part():
    box = np.array([[0, 0, 10, 10.0]])
    others = np.array([[0, 0, 10, 10.0], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]])
    overlap = box_overlap(np.repeat(box, 4, axis=0), others)
    np.testing.assert_allclose(overlap, [1, 1 / 3, 0, 0])
    assert pytest.approx(0) == box_overlap(others[3:], others[3:])[0]
