"""Test the conversion of people to messages of ROS4HRI bodies."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrabs_ros.conversions.bodies import (
    KEYPOINTS,
    body_ids,
    id_prefixes,
    to_position,
    to_regions,
    to_skeletons2d,
    to_velocity,
)
from metrabs_ros.conversions.transforms import is_person_frame
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.landmarks import LANDMARKS

SHAPE = (480, 640, 3)
TOPIC_TOKEN = re.compile(r'[A-Za-z](?!.*__)[A-Za-z0-9_]*')
namespaces = st.from_regex(r'[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*){0,2}', fullmatch=True)


def vector():
    return types.SimpleNamespace(x=0.0, y=0.0, z=0.0)


def record(**fields):
    return types.SimpleNamespace(
        point=vector(), twist=types.SimpleNamespace(linear=vector()), **fields
    )


MESSAGES = types.SimpleNamespace(
    **dict.fromkeys(
        (
            *('Header', 'NormalizedRegionOfInterest2D', 'NormalizedPointOfInterest2D'),
            *('Skeleton2D', 'PointStamped', 'TwistStamped'),
        ),
        record,
    )
)
HEADER = record(stamp='stamp', frame_id='camera')


@given(st.lists(st.one_of(st.just(''), namespaces), min_size=1, max_size=4, unique=True))
def test_ids_are_different_start_with_a_letter_and_are_valid_in_topics_and_frames(cameras):
    prefixes = id_prefixes(cameras)
    ids = [body for camera in cameras for body in body_ids(prefixes[camera], np.array([1, 23]))]
    assert len(set(ids)) == 2 * len(cameras)
    assert all(TOPIC_TOKEN.fullmatch(body) for body in ids), ids
    for link in human_model().tree.link_names:
        assert all(is_person_frame(f'{link}_{body}') for body in ids)


def test_the_ids_of_a_single_camera_are_those_of_the_skeletons():
    assert body_ids(id_prefixes([''])[''], np.array([7])) == ['p7']
    assert id_prefixes(['front', 'rear/left']) == {'front': 'front_', 'rear/left': 'rear_left_'}


finite = st.floats(-1e9, 1e9)


@given(arrays.arrays(float, (3, 4), elements=finite))
def test_regions_are_within_the_image_for_any_boxes(boxes_px):
    boxes_px[:, 2:] = np.abs(boxes_px[:, 2:])
    for region in to_regions(boxes_px, np.full(3, 0.5), SHAPE, HEADER, MESSAGES):
        assert 0 <= region.xmin <= region.xmax <= 1
        assert 0 <= region.ymin <= region.ymax <= 1
        assert region.c == 0.5


def test_regions_are_shares_of_the_image():
    (region,) = to_regions(np.array([[64.0, 48, 320, 240]]), np.ones(1), SHAPE, HEADER, MESSAGES)
    np.testing.assert_allclose(
        [region.xmin, region.ymin, region.xmax, region.ymax], [0.1, 0.1, 0.6, 0.6]
    )


@given(arrays.arrays(float, (2, 17, 2), elements=finite))
def test_keypoints_are_within_the_image_and_have_no_confidence_outside(points_px):
    skeletons = to_skeletons2d(points_px, np.full((2, 17), 0.9), SHAPE, HEADER, MESSAGES)
    for own_px, skeleton in zip(points_px, skeletons):
        assert len(skeleton.skeleton) == 18
        for name, point in zip(KEYPOINTS, skeleton.skeleton):
            assert 0 <= point.x <= 1
            assert 0 <= point.y <= 1
            if name != 'neck':
                x, y = (own_px[LANDMARKS.index(name)] + 0.5) / (640, 480)
                assert (point.c == 0) == (not (0 <= x <= 1 and 0 <= y <= 1))


def test_positions_are_in_metres():
    message = to_position(np.array([1000.0, -2000, 500]), HEADER, MESSAGES)
    assert (message.point.x, message.point.y, message.point.z) == (1.0, -2.0, 0.5)
    assert message.header is HEADER


def test_velocities_are_along_the_axes_of_the_body():
    # The body faces the camera: its forward direction is -z of the camera.
    rotation = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    message = to_velocity(np.array([0, 0, -1500.0]), rotation, 'p7', HEADER, MESSAGES)
    assert message.header.frame_id == 'body_p7'
    linear = message.twist.linear
    assert (linear.x, linear.y, linear.z) == pytest.approx((1.5, 0, 0))
