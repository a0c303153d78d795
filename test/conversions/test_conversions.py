"""Conversion of people to messages and back."""

from __future__ import annotations

import dataclasses

import numpy as np
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.conversions.people import to_message, to_people
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17

CONVENTION = COCO_17.within(BLAZEPOSE_33)
HEADER = Header(frame_id='camera')


def test_every_array_of_a_skeleton_has_the_length_of_joint_names():
    message = to_message(
        people_at((0, 0, 3000), (500, 0, 4000)).in_convention(CONVENTION), HEADER, TYPES
    )
    assert len(message.joint_names) == 17
    assert len(message.skeletons) == 2
    for skeleton in message.skeletons:
        for name in skeleton.get_fields_and_field_types():
            value = getattr(skeleton, name)
            if hasattr(value, '__len__'):
                assert len(value) == 17, name


def test_positions_are_in_metres():
    message = to_message(people_at((0, 0, 3000)), HEADER, TYPES)
    hips = [message.skeletons[0].positions[i] for i in (23, 24)]
    assert sum(point.z for point in hips) / 2 == 3.0


def test_conversion_to_a_message_and_back_keeps_people():
    people = people_at((0, 0, 3000), (500, 0, 4000))
    converted = to_people(to_message(people, HEADER, TYPES))
    assert converted.skeleton == people.skeleton
    for field in dataclasses.fields(People):
        if field.name != 'skeleton':
            np.testing.assert_allclose(
                getattr(converted, field.name), getattr(people, field.name), rtol=1e-5, atol=1e-4
            )


def test_conversion_to_a_message_and_back_keeps_zero_people():
    message = to_message(People.empty(BLAZEPOSE_33), HEADER, TYPES)
    assert list(message.skeletons) == []
    assert to_people(message).poses3d_mm.shape == (0, 33, 3)
