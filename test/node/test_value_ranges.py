"""Only finite values of plausible magnitude are published for any transforms and model output."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from known_people import KnownPeople
from rclpy.qos import DurabilityPolicy, QoSProfile
from robots import BLACK, pose_node, transform, wait_for
from test_fuzz import is_finite
from test_people import people_at
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster

from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node.transforms import INVALID_TRANSFORM, MAX_TRANSLATION_M, to_rigid_transform
from metrabs_ros.people import MAX_MAGNITUDE

PERSON_MM = (500.0, 0.0, 4000.0)
IDENTITY = (0.0, 0.0, 0.0, 1.0)
NAN, INF = math.nan, math.inf
TRANSLATIONS = [
    (1e308, 0.0, 0.0),
    (0.0, -1e308, 1e308),
    (INF, 0.0, 0.0),
    (0.0, 0.0, -INF),
    (NAN, 0.0, 0.0),
    (0.0, 1.1 * MAX_TRANSLATION_M, 0.0),
]
ROTATIONS = [
    (0.0, 0.0, 0.0, 0.0),
    (NAN, 0.0, 0.0, 1.0),
    (NAN, NAN, NAN, NAN),
    (INF, 0.0, 0.0, 1.0),
    (1e308, 1e308, 1e308, 1e308),
    (1e-200, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 2.0),
]
BAD_TRANSFORMS = [
    *((translation, IDENTITY) for translation in TRANSLATIONS),
    *((((1.0, 2.0, 3.0), rotation)) for rotation in ROTATIONS),
]
bad_transforms = pytest.mark.parametrize(('translation', 'rotation'), BAD_TRANSFORMS)


@bad_transforms
def test_invalid_transforms_are_rejected(translation, rotation):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(UnusableInput, match='the transform from a to b has'):
            to_rigid_transform(np.array(translation), np.array(rotation), 'from a to b')


def test_transforms_with_a_rounded_quaternion_are_accepted():
    motion = to_rigid_transform(
        np.array([0.0, 0.0, MAX_TRANSLATION_M]), np.array([0, 0, 0.7, 0.71]), ''
    )
    np.testing.assert_allclose(motion.rotation @ motion.rotation.T, np.eye(3), atol=1e-12)


def published(robot):
    """Return all received messages about people."""
    transforms = robot.transforms.all_frames_as_string()
    assert 'nan' not in transforms
    assert 'inf' not in transforms
    return [*robot.skeletons, *robot.markers]


@pytest.mark.parametrize('fallback', ['camera', 'drop'])
@pytest.mark.parametrize('frame', ['target_frame', 'world_frame'])
def test_invalid_transforms_do_not_cause_non_finite_output(frame, fallback, capfd):
    parameters = {frame: 'map', 'tf': 'joints', 'tf_timeout': 0.2, 'tf_fallback': fallback}
    with pose_node(KnownPeople(PERSON_MM), **parameters) as (node, robot):
        # A StaticTransformBroadcaster would publish the first transform of a frame again.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        static = robot.create_publisher(TFMessage, '/tf_static', latched)
        wait_for(lambda: node.count_publishers('/tf_static'))

        def send(rotation, translation):
            turned = transform('map', 'camera_optical_frame', rotation, translation)
            static.publish(TFMessage(transforms=[turned]))
            return robot.send(BLACK)

        drops, fallbacks = node.statistics.drops, node.statistics.fallbacks
        for translation, rotation in BAD_TRANSFORMS:
            counts = drops if fallback == 'drop' else fallbacks
            before = sum(counts.counts().values())
            stamp = send(rotation, translation)
            wait_for(lambda counts=counts, before=before: sum(counts.counts().values()) > before)
            if fallback == 'camera':
                answer = robot.receive(stamp)
                assert answer.header.frame_id == 'camera_optical_frame'
                assert answer.skeletons
        assert {*drops.counts(), *fallbacks.counts()} <= {INVALID_TRANSFORM, 'no transform'}
        assert bool(robot.skeletons) == (fallback == 'camera')
        # Valid transforms are used again.
        expected = 'map' if frame == 'target_frame' else 'camera_optical_frame'
        wait_for(
            lambda: (
                (send(IDENTITY, (1.0, 2.0, 3.0)) and robot.skeletons)
                and robot.skeletons[-1].header.frame_id == expected
            )
        )
        assert all(map(is_finite, published(robot)))
    assert 'RuntimeWarning' not in capfd.readouterr().err


def test_people_too_far_away_in_the_output_frame_are_left_out():
    far_mm = 0.8 * MAX_MAGNITUDE
    model = KnownPeople(PERSON_MM, (0.0, far_mm, 4000.0))
    with pose_node(model, target_frame='map', tf='joints') as (node, robot):
        StaticTransformBroadcaster(robot).sendTransform(
            transform('map', 'camera_optical_frame', IDENTITY, (0.0, 0.5 * MAX_TRANSLATION_M, 0.0))
        )
        answer = wait_for(
            lambda: [s for s in (robot.receive(robot.send(BLACK)),) if s.header.frame_id == 'map']
        )[0]
        assert len(answer.skeletons) == 1
        assert node.statistics.fallbacks.counts()['pose not finite']
        assert all(map(is_finite, published(robot)))


@pytest.mark.parametrize(
    'field',
    [
        *('poses3d_mm', 'poses2d_px', 'boxes_px', 'joint_std_mm', 'joint_confidence'),
        *('velocities_mm_s', 'confidence', 'ages_s'),
    ],
)
@pytest.mark.parametrize('value', [NAN, INF, -INF, 1e300, -1.1 * MAX_MAGNITUDE])
def test_every_array_of_people_is_checked(field, value):
    people = people_at(PERSON_MM, (0.0, 0.0, 3000.0))
    assert people.finite().all()
    array = np.array(getattr(people, field), float)
    array.reshape(-1)[-1] = value
    people = dataclasses.replace(people, **{field: array})
    assert people.finite().tolist() == [True, False]
