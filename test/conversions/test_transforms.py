"""The frame of a person is at the pelvis: x forward, y left, z up."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from std_msgs.msg import Header
from strategies import angles, standing_person
from test_people import people_at

from metrabs_ros.conversions.transforms import body_axes, quaternions, to_transforms
from metrabs_ros.node.generated_messages import TYPES

unit_quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


def rotation_of(x, y, z, w):
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(unit_quaternions)
def test_quaternions_describe_the_same_rotations(q):
    rotation = rotation_of(*(np.array(q) / np.linalg.norm(q)))
    np.testing.assert_allclose(rotation_of(*quaternions(rotation[None])[0]), rotation, atol=1e-9)


@given(facing=angles)
def test_axes_point_forward_left_and_up(facing):
    people = people_at((0, 0, 3000))
    body_mm = standing_person(np.array([0, -1.0, 0]), facing)
    people = dataclasses.replace(people, poses3d_mm=(body_mm + np.array([0, 0, 3000]))[None])
    forward, left, up = body_axes(people)[0].T
    np.testing.assert_allclose(up, (0, -1, 0), atol=1e-6)
    np.testing.assert_allclose(np.cross(forward, left), up, atol=1e-9)
    nose_mm = people.part_position('nose')[0] - people.midpoint('ear')[0]
    assert nose_mm @ forward > 0
    assert (people.part_position('hip', 'left') - people.part_position('hip', 'right'))[
        0
    ] @ left > 0


def test_axes_are_orthonormal_if_all_joints_coincide():
    people = people_at((0, 0, 3000))
    people = dataclasses.replace(people, poses3d_mm=np.full((1, 33, 3), 1000.0))
    axes = body_axes(people)[0]
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def test_transforms_have_the_header_and_the_id_in_the_frame_name():
    header = Header(frame_id='camera')
    first, second = to_transforms(people_at((0, 0, 3000), (500, 0, 4000)), header, TYPES)
    assert (first.header.frame_id, first.child_frame_id) == ('camera', 'person_1')
    assert second.child_frame_id == 'person_2'
    assert second.transform.translation.x == 0.5
    assert second.transform.translation.z == 4.0
