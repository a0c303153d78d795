from __future__ import annotations

import numpy as np
import pytest
import simulated_rooms as rooms

from metrabs_ros.camera import Camera
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton

CAMERA = rooms.looking_at(np.array([4.0, 0, 2]), np.array([0, 0, 1.0]))


def test_points_that_are_not_finite_and_zero_confidences_are_not_seen():
    points_px = np.full((1, 17, 2), 300.0)
    points_px[0, 0, 0], points_px[0, 1, 1], points_px[0, 2, 0] = np.nan, np.inf, 1e12
    confidence = np.ones((1, 17))
    confidence[0, 3], confidence[0, 4], confidence[0, 5] = 0, -1, np.nan
    people = CameraPeople('a', CAMERA, 1.0, COCO_17, points_px, confidence)
    np.testing.assert_array_equal(people.joint_confidence[0, :6], 0)
    assert (people.joint_confidence[0, 6:] == 1).all()
    assert np.isfinite(people.points2d_px).all()
    assert (people.track_ids == UNKNOWN_ID).all()


def test_a_wrong_shape_is_named_with_the_camera():
    with pytest.raises(ValueError, match=r'joint_confidence of camera a .*\(1, 16\).*\(1, 17\)'):
        CameraPeople('a', CAMERA, 1.0, COCO_17, np.zeros((1, 17, 2)), np.zeros((1, 16)))


def test_a_skeleton_without_joints_is_named_with_the_camera():
    with pytest.raises(ValueError, match='the skeleton nothing of camera a has no joints'):
        CameraPeople(
            'a', CAMERA, 1.0, Skeleton('nothing', (), ()), np.zeros((1, 0, 2)), np.zeros((1, 0))
        )


def test_another_skeleton_is_converted_by_the_names_of_the_joints():
    points_px = np.arange(66.0).reshape(1, 33, 2)
    people = CameraPeople('a', CAMERA, 1.0, BLAZEPOSE_33, points_px, np.ones((1, 33)))
    converted = people.in_skeleton(COCO_17)
    wrist = [s.joint_names.index('left_wrist') for s in (COCO_17, BLAZEPOSE_33)]
    np.testing.assert_array_equal(converted.points2d_px[0, wrist[0]], points_px[0, wrist[1]])
    back = converted.in_skeleton(BLAZEPOSE_33)
    assert back.joint_confidence[0, BLAZEPOSE_33.joint_names.index('left_heel')] == 0
    assert back.joint_confidence[0, wrist[1]] == 1


def test_people_of_a_tracker_are_moved_to_the_world_without_extrapolated_ones():
    poses_mm = np.random.default_rng(0).normal((0, 0, 4000), 300, (2, 17, 3))
    people = People(
        COCO_17,
        np.zeros((2, 4)),
        np.ones(2),
        poses_mm,
        CAMERA.project(poses_mm),
        np.ones((2, 17)),
        np.ones((2, 17), bool),
        np.array([7, 8]),
        seen=np.array([True, False]),
        network_poses2d_px=CAMERA.project(poses_mm) + 3,
    )
    own = CameraPeople.from_people('a', CAMERA, 1.0, people)
    np.testing.assert_array_equal(own.track_ids, [7])
    np.testing.assert_allclose(own.poses3d_mm, CAMERA.to_world(poses_mm[:1]))
    np.testing.assert_allclose(own.points2d_px, CAMERA.project(poses_mm[:1]) + 3)


def test_no_people_are_valid():
    own = CameraPeople.from_people(
        'a', Camera(np.diag([500, 500, 1.0])), 1.0, People.empty(COCO_17)
    )
    assert len(own) == 0
    assert own.poses3d_mm.shape == (0, 17, 3)
