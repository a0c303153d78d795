"""New tracks continue lost tracks that are close to them."""

from __future__ import annotations

import numpy as np

from metrabs_ros.tracking.reidentification import match_lost_tracks, reidentification_candidates

ORIGIN = np.zeros(3)
STD_MM = np.full((2, 2), 100.0)


def test_candidates_are_confirmed_lost_and_recently_detected_new_tracks():
    hits, misses = np.array([9, 9, 2, 2, 3]), np.array([0, 4, 0, 1, 0])
    lost, new = reidentification_candidates(hits, misses, min_hits=3)
    assert lost.tolist() == [1]
    assert new.tolist() == [2]


def test_new_track_needs_no_more_hits_than_confirm_a_track():
    _, new = reidentification_candidates(np.array([1, 2]), np.zeros(2, int), min_hits=1)
    assert new.tolist() == [0]


def test_each_lost_track_matches_the_nearest_new_track_inside_the_gate():
    lost_mm = np.array([[0, 0, 5000.0], [4000, 0, 5000]])
    new_mm = np.array([[700, 0, 5000.0], [300, 0, 5000], [-3000, 0, 5000]])
    lost, new = match_lost_tracks(lost_mm, new_mm, ORIGIN, STD_MM)
    assert lost.tolist() == [0]
    assert new.tolist() == [1]
