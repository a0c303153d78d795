"""The store keeps the arrays of all tracks in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import IMAGE_SHAPE, INTRINSICS, people_from, standing_body

from metrabs_ros.camera import Camera
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.tracks import MAX_ID, TrackerInput, Tracks, moved_boxes, unused_ids

CAMERA = Camera(INTRINSICS)
POSITIONS_MM = np.array([(-800.0, 100.0, 4000.0), (0.0, 100.0, 5000.0), (900.0, 100.0, 6000.0)])


@pytest.fixture
def tracks():
    """Return tracks 1, 2 and 3 after one detection each."""
    tracks = Tracks.empty(COCO_17, smoothing=0.5)
    tracks.add(frame_of(POSITIONS_MM, 0.0), np.arange(3), np.array([1, 2, 3]))
    return tracks


def frame_of(positions_mm, stamp_s):
    people = people_from(positions_mm[:, None] + standing_body(), CAMERA)
    return TrackerInput(people, people.poses3d_mm, stamp_s, CAMERA, IMAGE_SHAPE, np.zeros(3))


def people_of(tracks):
    return tracks.people(tracks.motion.positions_mm, 0.0, CAMERA, IMAGE_SHAPE)


def test_remaining_tracks_keep_their_poses(tracks):
    before = people_of(tracks)
    tracks.keep(np.array([True, False, True]))
    after = people_of(tracks)
    assert len(tracks) == len(tracks.history.streak) == 2
    assert after.ids.tolist() == [1, 3]
    np.testing.assert_array_equal(after.poses3d_mm, before.poses3d_mm[[0, 2]])
    np.testing.assert_array_equal(after.boxes_px, before.boxes_px[[0, 2]])


def test_correction_counts_hits_and_misses(tracks):
    frame = frame_of(POSITIONS_MM[:1], 0.1)
    tracks.correct(frame, np.array([-1, 0, -1]))
    assert tracks.hits.tolist() == [1, 2, 1]
    assert tracks.misses.tolist() == [1, 0, 1]
    assert tracks.seen.tolist() == [False, True, False]
    assert tracks.last_seen_s.tolist() == [0, 0.1, 0]
    np.testing.assert_array_equal(tracks.boxes_px[1], frame.detections.boxes_px[0])


def test_merged_track_has_the_id_of_the_lost_and_the_pose_of_the_new_track(tracks):
    before = people_of(tracks)
    order = tracks.merge(np.array([0]), np.array([2]))
    after = people_of(tracks)
    assert order.tolist() == [2, 1]
    assert after.ids.tolist() == [1, 2]
    assert tracks.hits.tolist() == [2, 1]
    np.testing.assert_array_equal(after.poses3d_mm, before.poses3d_mm[order])


def test_ids_continue_at_1_after_the_maximum_and_skip_used_ids():
    assert unused_ids(MAX_ID, 3, np.array([1, 3])).tolist() == [MAX_ID, 2, 4]


def test_boxes_move_and_scale_with_people_and_are_clipped_to_the_image():
    boxes_px = np.array([[600.0, 300, 80, 200]] * 2)
    before_mm = np.array([[0, 0, 4000.0]] * 2)
    after_mm = np.array([[0, 0, 8000.0], [-2800, 0, 4000]])
    moved_px = moved_boxes(boxes_px, before_mm, after_mm, CAMERA, IMAGE_SHAPE)
    np.testing.assert_allclose(moved_px[0], [620, 350, 40, 100])
    np.testing.assert_allclose(moved_px[1], [0, 300, 50, 200])
