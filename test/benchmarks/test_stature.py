"""The stature benchmark finds by how much simulated networks misjudge the size of people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import stature
from hypothesis import given
from hypothesis import strategies as st
from strategies import standing_person

from metrabs_ros.people import People, in_view
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

CAMERA = stature.pets_camera()
IMAGE_SHAPE = (576, 768)
ANKLES = list(BLAZEPOSE_33.part('ankle', 'left')) + list(BLAZEPOSE_33.part('ankle', 'right'))


def pedestrian_mm(place_px, facing=0.7):
    """Return a pose [33, 3] of the world whose ankles are above a point of the ground."""
    body_mm = CAMERA.to_world(standing_person(CAMERA.up, facing)) - CAMERA.position_mm
    (place_mm,) = stature.points_at_height(np.array([place_px]), 0, CAMERA)
    return body_mm - body_mm[ANKLES].mean(axis=0) + place_mm + [0, 0, stature.ANKLE_HEIGHT_MM]


def people_at(*poses_mm, scale=1.0):
    """Return people that a network places at a multiple of their true distance."""
    poses_mm = scale * CAMERA.from_world(np.array(poses_mm))
    poses_px = CAMERA.project(poses_mm)
    count, joints = poses_mm.shape[:2]
    return People(
        BLAZEPOSE_33,
        np.ones((count, 4)),
        np.ones(count),
        poses_mm,
        poses_px,
        np.ones((count, joints)),
        in_view(poses_mm, poses_px, IMAGE_SHAPE),
        np.arange(count),
    )


def test_the_camera_of_the_video_looks_down_from_a_first_floor():
    assert CAMERA.position_mm[2] == pytest.approx(7066, abs=1)
    assert np.degrees(np.arcsin(-CAMERA.up[2])) == pytest.approx(16.5, abs=0.1)
    assert np.linalg.det(CAMERA.extrinsic_matrix) == pytest.approx(1)


@given(st.floats(0, 767), st.floats(0, 575))
def test_the_lens_is_that_of_the_published_model(x, y):
    # Tsai: undistorted = distorted * (1 + kappa * r^2), on the sensor, in millimetres.
    sensor_mm = (np.array([x, y]) - stature.CENTRE_PX) * stature.PIXEL_MM
    sensor_mm[0] /= stature.HORIZONTAL_SCALE
    undistorted_mm = sensor_mm * (1 + stature.KAPPA_PER_MM2 * (sensor_mm**2).sum())
    ray = CAMERA.unproject(np.array([[x, y]]))[0]
    assert ray[:2] == pytest.approx(undistorted_mm / stature.FOCAL_MM, abs=3e-4)


@given(st.floats(0.8, 1.2), st.floats(100, 650), st.floats(200, 500), st.floats(-3, 3))
def test_the_ratio_of_distances_is_the_scale_of_the_network(scale, x, y, facing):
    people = people_at(pedestrian_mm((x, y), facing), scale=scale)
    measured = stature.measure_people(people, np.array([1]), CAMERA)
    assert measured.distance_ratios == pytest.approx([scale], rel=5e-3)


def test_the_true_stature_does_not_depend_on_the_network():
    (nose,) = BLAZEPOSE_33.part('nose')
    # The nose is in front of the feet: its height is right on average over all directions.
    poses_mm = [pedestrian_mm((400, 300), facing) for facing in (0, np.pi / 2, np.pi, -np.pi / 2)]
    expected_mm = poses_mm[0][nose, 2] / stature.NOSE_TO_STATURE
    for scale in (0.9, 1.1):
        people = people_at(*poses_mm, scale=scale)
        measured = stature.measure_people(people, np.arange(4), CAMERA)
        assert measured.statures_mm.mean() == pytest.approx(expected_mm, rel=0.005)


def test_only_upright_people_with_visible_nose_and_ankles_are_used():
    people = people_at(*[pedestrian_mm((400, 300))] * 4, pedestrian_mm((767, 400)))
    confidence = people.joint_confidence.copy()
    confidence[1, ANKLES[0]] = 0.7
    confidence[2, BLAZEPOSE_33.part('nose')] = 0.7
    poses_mm = people.poses3d_mm.copy()
    legs = [i for i, name in enumerate(BLAZEPOSE_33.joint_names) if 'ankle' in name]
    poses_mm[3, legs] = people.midpoint('hip')[3] + np.array([400.0, 0, 0])
    people = dataclasses.replace(people, joint_confidence=confidence, poses3d_mm=poses_mm)
    assert stature.is_upright(people).tolist() == [True, False, False, False, False]


def test_each_pedestrian_counts_once_and_rare_ones_do_not():
    ids = np.repeat([1, 2, 3], [100, stature.MIN_DETECTIONS, stature.MIN_DETECTIONS - 1])
    values = np.repeat([1.0, 2.0, 9.0], [100, stature.MIN_DETECTIONS, stature.MIN_DETECTIONS - 1])
    assert stature.medians_by_person(values, ids).tolist() == [1, 2]


def test_the_reported_factor_undoes_the_bias_of_the_network():
    ids = np.repeat(np.arange(9), 6)
    ratios = np.repeat(np.linspace(0.85, 0.95, 9), 6)
    statures_mm = np.full(len(ids), 1700.0)
    lines = stature.report(
        'blazepose', stature.Measurements(ids, ratios, statures_mm, statures_mm)
    )
    assert lines[0].startswith('blazepose: factor 1.111 +- 0.0')
