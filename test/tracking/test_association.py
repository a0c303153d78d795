"""Association assigns each track and each detection at most once, at the lowest cost first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.tracking.association import (
    GATE,
    Pairs,
    assign_nearest_first,
    gated_pairs,
    position_std,
)

ORIGIN = np.zeros(3)


def pairs_of(*pairs):
    tracks, detections = np.array(pairs, np.intp).reshape(-1, 2).T
    zeros = np.zeros(len(pairs))
    return Pairs(tracks, detections, zeros, zeros, zeros)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20, unique=True),
    st.randoms(use_true_random=False),
)
def test_assignment_is_one_to_one_and_maximal_and_has_the_cheapest_pair(pairs, random):
    costs = np.array([random.random() for _ in pairs])
    assigned = assign_nearest_first(pairs_of(*pairs), costs)
    tracks = assigned.track_indices.tolist()
    detections = assigned.detection_indices.tolist()
    assert len(set(tracks)) == len(tracks)
    assert len(set(detections)) == len(detections)
    if pairs:
        assert pairs[int(np.argmin(costs))] in list(zip(tracks, detections))
    # No pair remains with both its track and its detection unassigned.
    for track, detection in pairs:
        assert track in tracks or detection in detections


def test_gate_is_wider_along_the_line_of_sight():
    std_mm = np.array([[100.0], [200.0]])
    expected = np.array([[0, 0, 5000.0]])
    detected = np.array([[0, 0, 5500.0], [500.0, 0, 5000], [0, 0, 6500], [0, 0, 9000]])
    pairs = gated_pairs(expected, detected, ORIGIN, std_mm)
    assert pairs.detection_indices.tolist() == [0, 2]
    assert pairs.is_in_gate.tolist() == [True, False]
    np.testing.assert_allclose(pairs.along, [2.5, 7.5])
    # The depth of a detection outside the gate is corrected to the gate's limit.
    np.testing.assert_allclose(pairs.depth_scale, [1, (5000 + GATE * 200) / 6500])


def test_position_std_grows_with_time_and_is_larger_for_new_tracks():
    std = position_std(
        np.full(2, 5000.0), np.full((2, 2), 30.0), np.array([0.0, 1.0]), np.full(2, 9)
    )
    assert (std[:, 1] > std[:, 0] + 1000).all()
    new = position_std(np.full(1, 5000.0), np.full((2, 1), 30.0), np.zeros(1), np.ones(1))
    assert new[1, 0] > std[1, 0] + 200
