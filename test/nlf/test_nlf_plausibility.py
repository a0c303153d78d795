"""Certain poses in their boxes are plausible; of similar ones the most certain is kept."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import standing_person

from metrabs_ros.camera import Camera
from metrabs_ros.nlf.plausibility import plausible_poses, pose_similarity
from metrabs_ros.pose_estimator import Poses

CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
PERSON_MM = standing_person(np.array([0, -1.0, 0]), 0.5)


def poses_at(*positions_mm, std_mm=100.0, scores=None):
    """Return people at positions, each with a box around the image points."""
    poses_mm = np.array([PERSON_MM + position_mm for position_mm in positions_mm])
    poses_px = CAMERA.project(poses_mm)
    low = poses_px.min(axis=1)
    boxes_px = np.concatenate([low, poses_px.max(axis=1) - low], axis=1)
    count = len(poses_mm)
    return Poses(
        boxes_px,
        np.ones(count) if scores is None else np.array(scores),
        poses_mm[:, None],
        poses_px[:, None],
        joint_std_mm=np.broadcast_to(std_mm, (count, poses_mm.shape[1])).copy(),
    )


def test_separate_people_are_kept_in_the_order_of_score_over_uncertainty():
    poses = poses_at((0, 0, 4000), (2000, 0, 5000), (-2000, 0, 5000), scores=[0.5, 0.9, 0.9])
    poses.joint_std_mm[1] = 200
    assert plausible_poses(poses).tolist() == [2, 0, 1]


def test_of_poses_that_differ_in_scale_and_a_little_one_is_kept():
    poses = poses_at((0, 0, 4000), (20, 0, 4100), (2000, 0, 5000), scores=[0.6, 0.7, 0.5])
    assert plausible_poses(poses).tolist() == [1, 2]


@pytest.mark.parametrize(('certain_joints', 'is_plausible'), [(11, False), (12, True)])
def test_more_than_a_third_of_the_points_must_be_certain(certain_joints, is_plausible):
    poses = poses_at((0, 0, 4000), std_mm=251.0)
    poses.joint_std_mm[0, :certain_joints] = 249
    assert bool(len(plausible_poses(poses))) == is_plausible


@pytest.mark.parametrize(('shift', 'is_plausible'), [(0.7, True), (0.8, False)])
def test_the_points_must_cover_a_quarter_of_the_box(shift, is_plausible):
    poses = poses_at((0, 0, 4000))
    poses.boxes_px[:, 0] += shift * poses.boxes_px[:, 2]
    assert bool(len(plausible_poses(poses))) == is_plausible


def test_poses_that_are_not_finite_are_implausible():
    poses = poses_at((0, 0, 4000), (2000, 0, 5000))
    poses.poses3d_mm[0, 0, 3] = np.nan
    assert plausible_poses(poses).tolist() == [1]


def test_similarity_is_symmetric_and_1_for_equal_poses():
    poses_mm = poses_at((0, 0, 4000), (50, 0, 4000), (400, 0, 4000)).poses3d_mm[:, 0]
    similarity = pose_similarity(poses_mm)
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_allclose(np.diag(similarity), 1)
    assert similarity[0, 1] > 0.8 > 0.01 > similarity[0, 2]


def test_few_points_and_no_people_have_similarities():
    assert pose_similarity(np.ones((2, 2, 3))).tolist() == [[1, 1], [1, 1]]
    assert plausible_poses(poses_at((0, 0, 4000)).select(np.zeros(0, int))).tolist() == []
