"""SkeletonArray messages of other nodes are validated before they are used."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from hypothesis import given
from hypothesis import strategies as st
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.conversions.people import to_message, to_people
from metrabs_ros.conversions.skeleton_validation import (
    MAX_BONES,
    MAX_JOINTS,
    MAX_SKELETONS,
    OPTIONAL_FIELDS,
    REQUIRED_FIELDS,
    valid_people,
)
from metrabs_ros.msg import ImagePoint, Skeleton, SkeletonArray
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.people import MAX_MAGNITUDE

JOINTS = 3
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 3e38]),
    st.floats(-2, 2),
)
FLOAT32 = NUMBERS.map(lambda x: float(np.float32(x)) if abs(x) < 3.4e38 else math.inf)


def two_people():
    return to_message(people_at((0, 0, 3000), (500, 0, 4000)), Header(), TYPES)


def test_valid_people_are_returned_unchanged():
    people, invalid = valid_people(two_people())
    assert not invalid
    np.testing.assert_array_equal(people.poses3d_mm, to_people(two_people()).poses3d_mm)


def test_optional_arrays_may_be_empty():
    message = two_people()
    for skeleton in message.skeletons:
        for field in OPTIONAL_FIELDS:
            setattr(skeleton, field, [])
    people, invalid = valid_people(message)
    assert len(people) == 2
    assert not invalid
    assert not people.velocities_mm_s.any()


@pytest.mark.parametrize('field', [*REQUIRED_FIELDS, *OPTIONAL_FIELDS])
def test_a_person_with_an_array_of_another_length_is_counted(field):
    message = two_people()
    setattr(message.skeletons[0], field, getattr(message.skeletons[0], field)[:5])
    people, invalid = valid_people(message)
    assert people.distances_mm[0] > 3900
    assert dict(invalid) == {f'{field} has 5 entries, but there are 33 joints': 1}


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('positions', [Point(x=math.nan)] * 33),
        ('velocities', [Vector3(y=1e300)] * 33),
        ('confidence', 1.5),
        ('confidence', math.nan),
        ('box_left', math.inf),
        ('standard_deviations', [-1.0] * 33),
        ('axis_standard_deviations', [Vector3(z=-1.0)] * 33),
        ('network_image_points', [ImagePoint(x=math.nan)] * 33),
    ],
)
def test_a_person_with_a_value_out_of_range_is_counted(field, value):
    message = two_people()
    setattr(message.skeletons[1], field, value)
    people, invalid = valid_people(message)
    assert len(people) == 1
    assert dict(invalid) == {'a value is not finite or out of range': 1}


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'joint_names': []}, 'joint_names is empty'),
        ({'joint_names': ['x'] * (MAX_JOINTS + 1)}, 'has 1001 joints; at most 1000'),
        ({'joint_edges': [0, 1, 2]}, 'joint_edges has 3 entries'),
        ({'joint_edges': [0, 33]}, 'joint_edges has an index that is not from 0 to 32'),
        ({'joint_edges': [0, 1] * (MAX_BONES + 1)}, 'has 10001 bones; at most 10000'),
        ({'skeletons': [Skeleton()] * (MAX_SKELETONS + 1)}, 'has 1001 people; at most 1000'),
        ({'header': Header(stamp=Time(sec=-1))}, 'the stamp -1 s and 0 ns is invalid'),
        ({'header': Header(stamp=Time(nanosec=10**9))}, 'the stamp 0 s and 1000000000 ns'),
    ],
)
def test_an_invalid_message_is_rejected_with_the_reason(changes, reason):
    message = two_people()
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=reason):
        valid_people(message)


@st.composite
def skeletons(draw):
    """Draw a skeleton whose arrays have any lengths and values."""
    lengths = st.sampled_from([JOINTS] * 8 + [0, 1])

    def array(entries):
        return draw(lengths.flatmap(lambda n: st.lists(entries, min_size=n, max_size=n)))

    return Skeleton(
        confidence=draw(FLOAT32),
        box_left=draw(FLOAT32),
        age=draw(FLOAT32),
        stature=draw(FLOAT32),
        positions=array(st.builds(Point, x=NUMBERS, z=NUMBERS)),
        velocities=array(st.builds(Vector3, y=NUMBERS)),
        image_points=array(st.builds(ImagePoint, x=FLOAT32)),
        confidences=array(FLOAT32),
        in_view=array(st.booleans()),
        standard_deviations=array(FLOAT32),
        axis_standard_deviations=array(st.builds(Vector3, x=NUMBERS)),
        network_image_points=array(st.builds(ImagePoint, y=FLOAT32)),
    )


@given(st.lists(skeletons(), max_size=3))
def test_of_any_people_only_finite_ones_are_returned_and_the_others_are_counted(drawn):
    message = SkeletonArray(joint_names=['a', 'b', 'c'], joint_edges=[0, 1], skeletons=drawn)
    people, invalid = valid_people(message)
    assert len(people) + invalid.total() == len(drawn)
    for values in (people.poses3d_mm, people.velocities_mm_s, people.axis_std_mm):
        assert (np.abs(values) < MAX_MAGNITUDE).all()
    assert ((people.confidence >= 0) & (people.confidence <= 1)).all()
