"""People are published as ROS4HRI bodies, with real subscribers over DDS."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hri_consumer import IMAGE, LATCHED, OTHER_MM, TYPES, Consumer, hri_msgs, publishers_of
from known_people import KnownPeople
from rclpy.time import Time
from robots import call, pose_node, set_parameters, wait_for
from std_msgs.msg import String
from std_srvs.srv import Trigger
from test_people import people_at
from test_pose_node_known import PERSON_MM

from metrabs_ros.conversions.bodies import KEYPOINTS
from metrabs_ros.conversions.transforms import body_axes, rotation_matrix
from metrabs_ros.kinematics import body_tracks
from metrabs_ros.kinematics.kinematic_tree import parse_urdf
from metrabs_ros.kinematics.postures import Posture
from metrabs_ros.node import body_publishers


@pytest.fixture(scope='module')
def shared_node():
    """Yield a node that publishes the bodies of one person, its robot and the model."""
    model = KnownPeople(PERSON_MM)
    with pose_node(model, hri=True) as (node, robot):
        yield node, robot, model


@pytest.fixture
def shared(shared_node):
    """Yield the node without tracks, a consumer and the model."""
    node, robot, model = shared_node
    model.places_mm = (PERSON_MM,)
    assert call(robot, Trigger, 'pose/reset')[0].success
    set_parameters(robot, hri_tf=False, min_hits=1)
    consumer = Consumer(robot)
    yield node, consumer, model
    model.places_mm = ()
    # People who were tracked for long are extrapolated for a moment.
    wait_for(lambda: consumer.send() == [])
    # Publishers are destroyed after more than a second.
    for _ in range(2):
        assert consumer.send() == []


def test_ids_are_listed_for_each_image_also_without_people(shared):
    _, consumer, model = shared
    (first,) = consumer.send()
    assert first[0].isalpha()
    assert consumer.send() == [first]
    model.places_mm = (PERSON_MM, OTHER_MM)
    assert len(consumer.send()) == 2
    model.places_mm = ()
    assert wait_for(lambda: consumer.send() == [])


def test_all_topics_agree_with_the_skeleton(shared):
    _, consumer, _ = shared
    (body,) = consumer.send()
    messages = consumer.receive(body)
    stamp = messages['roi'].header.stamp
    skeleton = consumer.robot.receive(stamp).skeletons[0]
    assert body == f'p{skeleton.id}'
    people = people_at(PERSON_MM)

    roi = messages['roi']
    np.testing.assert_allclose(
        [roi.xmin, roi.ymin, roi.xmax, roi.ymax],
        np.clip(
            [
                skeleton.box_left / 640,
                skeleton.box_top / 480,
                (skeleton.box_left + skeleton.box_width) / 640,
                (skeleton.box_top + skeleton.box_height) / 480,
            ],
            0,
            1,
        ),
        atol=1e-6,
    )
    assert roi.c == pytest.approx(skeleton.confidence)
    cropped = messages['cropped']
    left, top = int(roi.xmin * 640), int(roi.ymin * 480)
    assert (cropped.encoding, cropped.step) == ('bgr8', 3 * cropped.width)
    pixels = np.array(cropped.data, np.uint8).reshape(cropped.height, cropped.width, 3)
    np.testing.assert_array_equal(
        pixels[..., ::-1], IMAGE[top : top + cropped.height, left : left + cropped.width]
    )

    names = people.skeleton.joint_names
    keypoints = dict(zip(KEYPOINTS, messages['skeleton2d'].skeleton))
    for name in ('nose', 'left_wrist', 'right_ankle', 'left_ear'):
        expected = skeleton.image_points[names.index(name)]
        assert keypoints[name].x == pytest.approx(
            np.clip((expected.x + 0.5) / 640, 0, 1), abs=1e-6
        )
        assert keypoints[name].y == pytest.approx(
            np.clip((expected.y + 0.5) / 480, 0, 1), abs=1e-6
        )
    middle = (keypoints['left_shoulder'].x + keypoints['right_shoulder'].x) / 2
    assert keypoints['neck'].x == pytest.approx(middle, abs=1e-6)
    assert list(KEYPOINTS).index('left_ankle') == hri_msgs.Skeleton2D.LEFT_ANKLE

    place = messages['position'].point
    np.testing.assert_allclose((place.x, place.y, place.z), np.array(PERSON_MM) / 1000, atol=2e-3)
    assert messages['position'].header.frame_id == 'camera_optical_frame'
    assert messages['velocity'].header.frame_id == f'body_{body}'
    assert abs(messages['velocity'].twist.linear.x) < 0.01
    assert messages['posture'].posture == hri_msgs.BodyPosture.STANDING

    state = messages['joint_states']
    angles = dict(zip(state.name, state.position))
    assert len(angles) == 20
    assert all(name.endswith(f'_{body}') for name in angles)
    assert all(np.isfinite(state.position))
    assert abs(angles[f'l_knee_{body}']) < 0.5


def test_postures_have_the_values_of_the_message():
    message = hri_msgs.BodyPosture
    constants = [message.OTHER, message.STANDING, message.SITTING, message.CROUCHING]
    assert [*constants, message.LAYING] == list(Posture)


def test_the_urdf_is_latched_and_published_once_for_constant_lengths(shared):
    _, consumer, _ = shared
    (body,) = consumer.send()
    consumer.topics = ('urdf',)
    consumer.follow(body)
    for _ in range(6):
        consumer.send()
    urdfs = consumer.messages[body]['urdf']
    wait_for(lambda: urdfs)
    (first,) = urdfs
    late = []
    consumer.robot.create_subscription(String, f'/humans/bodies/{body}/urdf', late.append, LATCHED)
    wait_for(lambda: late)
    assert late[0].data == first.data
    tree = parse_urdf(first.data, f'_{body}')
    people = people_at(PERSON_MM)
    thigh_mm = np.linalg.norm(
        people.part_position('hip', 'left') - people.part_position('knee', 'left')
    )
    assert -tree.origins_mm[tree.index('l_knee'), 2] == pytest.approx(thigh_mm, rel=0.05)


def test_nothing_is_computed_without_subscribers(shared, monkeypatch):
    node, consumer, _ = shared

    def fail(*arguments, **options):
        raise AssertionError('computed without a subscriber')

    monkeypatch.setattr(body_tracks, 'joint_angles', fail)
    monkeypatch.setattr(body_tracks, 'classify_postures', fail)
    monkeypatch.setattr(body_publishers, 'urdf_text', fail)
    monkeypatch.setattr(body_publishers, 'to_cropped', fail)
    monkeypatch.setattr(body_publishers.conversions, 'to_skeletons2d', fail)
    monkeypatch.setattr(body_publishers.conversions, 'to_joint_state', fail)
    for _ in range(5):
        assert len(consumer.send()) == 1
    assert node.statistics.drops.counts() == {}


def transform_of(robot, parent, child, stamp):
    robot_can = functools.partial(
        robot.transforms.can_transform, parent, child, Time.from_msg(stamp)
    )
    wait_for(robot_can)
    message = robot.transforms.lookup_transform(parent, child, Time.from_msg(stamp)).transform
    pose = np.eye(4)
    turn, move = message.rotation, message.translation
    pose[:3, :3] = rotation_matrix(turn.x, turn.y, turn.z, turn.w)
    pose[:3, 3] = move.x, move.y, move.z
    return pose


def test_the_body_frame_is_at_the_hips_with_x_forward_and_z_to_the_head(shared):
    _, consumer, _ = shared
    (body,) = consumer.send()
    stamp = consumer.tracked[-1].header.stamp
    pose = transform_of(consumer.robot, 'camera_optical_frame', f'body_{body}', stamp)
    people = people_at(PERSON_MM)
    np.testing.assert_allclose(pose[:3, 3], np.array(PERSON_MM) / 1000, atol=2e-3)
    np.testing.assert_allclose(pose[:3, :3], body_axes(people)[0], atol=0.1)
    assert not consumer.robot.transforms.can_transform(f'body_{body}', f'head_{body}', Time())


def test_link_frames_equal_those_of_the_published_urdf_and_joint_states(shared):
    _, consumer, _ = shared
    set_parameters(consumer.robot, hri_tf=True)
    (body,) = consumer.send()
    consumer.topics = ('urdf', 'joint_states')
    consumer.follow(body)
    own = consumer.messages[body]
    wait_for(lambda: consumer.send() and own['urdf'] and own['joint_states'])
    consumer.send()
    stamp = consumer.tracked[-1].header.stamp
    (state,) = wait_for(lambda: [m for m in own['joint_states'] if m.header.stamp == stamp])
    tree = parse_urdf(own['urdf'][-1].data, f'_{body}')
    assert tuple(name.removesuffix(f'_{body}') for name in state.name) == tree.angle_names
    rotations, positions_mm = tree.forward(np.array([state.position]))
    for i, name in enumerate(tree.link_names[1:], 1):
        pose = transform_of(consumer.robot, f'body_{body}', f'{name}_{body}', stamp)
        np.testing.assert_allclose(pose[:3, :3], rotations[0, i], atol=1e-6)
        np.testing.assert_allclose(pose[:3, 3], positions_mm[0, i] / 1000, atol=1e-5)


def test_the_diagnostics_have_the_distances_of_the_urdf_from_the_joints(shared):
    _, consumer, _ = shared
    (body,) = consumer.send()
    consumer.receive(body)

    def residual():
        consumer.send()
        # None have arrived if this is the first test of the node.
        statuses = [status for m in consumer.robot.diagnostics[-1:] for status in m.status]
        values = [value for status in statuses for value in status.values]
        return [float(v.value) for v in values if v.key == 'body residual p50 mm'][:1]

    (median_mm,) = wait_for(residual)
    assert median_mm < 60


def test_publishers_are_destroyed_with_the_body(shared):
    node, consumer, model = shared
    (body,) = consumer.send()
    assert len(publishers_of(node)) == 1 + len(TYPES)
    parameters = len(node._parameters)
    model.places_mm = ()
    wait_for(lambda: consumer.send() == [])
    wait_for(lambda: consumer.send() == [] and len(publishers_of(node)) == 1)
    wait_for(lambda: not consumer.robot.count_publishers(f'/humans/bodies/{body}/roi'))
    assert len(node._parameters) == parameters
