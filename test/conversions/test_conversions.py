"""Conversion of people to messages and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.conversions.people import to_message, to_people
from metrabs_ros.msg import Skeleton
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import Cue
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


def test_stature_and_scale_are_converted_and_unknown_statures_are_zero():
    people = dataclasses.replace(
        people_at((0, 0, 3000), (500, 0, 4000), (900, 0, 5000)),
        estimated_statures_mm=np.array([1650.0, np.nan, np.inf]),
        scale_cues=np.array([5, 0, 0], np.uint8),
    )
    message = to_message(people, HEADER, TYPES)
    np.testing.assert_allclose([s.stature for s in message.skeletons], [1.65, 0, 0], rtol=1e-6)
    assert message.skeletons[0].scale_source == (
        Skeleton.SCALE_GROUND_PLANE | Skeleton.SCALE_STATURE
    )
    converted = to_people(message)
    np.testing.assert_allclose(converted.estimated_statures_mm, [1650, np.nan, np.nan], rtol=1e-6)
    assert converted.scale_cues.tolist() == [5, 0, 0]


@pytest.mark.parametrize('stature', [np.nan, -1.0, np.inf, 3e38])
def test_invalid_statures_of_messages_are_unknown(stature):
    message = to_message(people_at((0, 0, 3000)), HEADER, TYPES)
    message.skeletons[0].stature = stature
    assert np.isnan(to_people(message).estimated_statures_mm).all()


def test_the_constants_of_the_message_are_the_cues():
    assert {cue.name: cue.value for cue in Cue} == {
        name: getattr(Skeleton, f'SCALE_{name}')
        for name in ('GROUND_PLANE', 'DEPTH_IMAGE', 'STATURE')
    }
    assert Skeleton.SCALE_NETWORK == 0


def test_standard_deviations_along_the_axes_are_optional_in_messages():
    people = people_at((0, 0, 3000))
    message = to_message(people, HEADER, TYPES)
    message.skeletons[0].axis_standard_deviations = []
    expected = np.repeat(people.joint_std_mm[..., None], 3, axis=-1)
    np.testing.assert_allclose(to_people(message).axis_std_mm, expected, rtol=1e-5)


def test_the_image_points_of_the_network_are_part_of_messages():
    people = people_at((0, 0, 3000))
    points_px = people.poses2d_px + np.array([3, -4])
    people = dataclasses.replace(people, network_poses2d_px=points_px)
    message = to_message(people, HEADER, TYPES)
    np.testing.assert_allclose(to_people(message).network_poses2d_px, points_px, rtol=1e-5)
    message.skeletons[0].network_image_points = []
    np.testing.assert_allclose(to_people(message).network_poses2d_px, people.poses2d_px, rtol=1e-5)
