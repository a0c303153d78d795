"""
With a model that returns known people, all published values are correct.

The tests share one node, and change parameters while it runs.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from robots import BLACK, call, pose_node, set_parameters, transform, wait_for
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from test_pose_node_known import PERSON_MM, hips, status
from tf2_ros import StaticTransformBroadcaster

from metrabs_ros.conversions.people import to_people
from metrabs_ros.node.pose_node import _load_model as load_configured_model
from metrabs_ros.node.settings import Settings
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.definition_file import write_definitions


@pytest.fixture(scope='module')
def shared_node():
    """Yield a node, a robot and the model."""
    model = KnownPeople(PERSON_MM)
    with pose_node(model) as (node, robot):
        yield node, robot, model


@pytest.fixture
def shared(shared_node):
    """Yield the node without tracks, the robot and the model; restore the parameters."""
    node, robot, model = shared_node
    assert call(robot, Trigger, 'pose/reset')[0].success
    robot.skeletons.clear()
    robot.markers.clear()
    model.seen.clear()
    before = node.settings
    yield node, robot, model
    changed = {
        name: getattr(before, name)
        for name, value in vars(node.settings).items()
        if value != getattr(before, name)
    }
    node.set_parameters([Parameter(name, value=value) for name, value in changed.items()])


def increases(counter, before):
    """Return the increases of the counts of drops or fallbacks, by cause."""
    return dict(collections.Counter(counter.counts()) - collections.Counter(before))


def test_positions_frames_and_standard_deviations_match_the_person(shared):
    _, robot, _ = shared
    set_parameters(robot, num_aug=3, tf='joints', tf_prefix='cam1_')
    answer = robot.receive(robot.send(BLACK))
    (skeleton,) = answer.skeletons
    np.testing.assert_allclose(hips(skeleton), np.array(PERSON_MM) / 1000 * 1.01, atol=1e-5)
    lengths = {
        len(getattr(skeleton, name))
        for name in (
            *('positions', 'velocities', 'standard_deviations', 'confidences'),
            *('image_points', 'in_view'),
        )
    }
    assert lengths == {33}
    # The distances of the augmented poses differ by 1 %.
    nose = skeleton.positions[0]
    expected = np.linalg.norm((nose.x, nose.y, nose.z)) / 1.01 * 0.01 * np.sqrt(2 / 3)
    np.testing.assert_allclose(skeleton.standard_deviations[0], expected, rtol=1e-4)
    frame = f'cam1_person_{skeleton.id}_nose'
    wait_for(
        lambda: robot.transforms.can_transform('camera_optical_frame', frame, answer.header.stamp)
    )
    translation = robot.transforms.lookup_transform(
        'camera_optical_frame', frame, answer.header.stamp
    ).transform.translation
    np.testing.assert_allclose(
        (translation.x, translation.y, translation.z), (nose.x, nose.y, nose.z), atol=1e-5
    )


def test_the_skeleton_can_be_changed_and_invalid_values_are_rejected(shared):
    node, robot, _ = shared
    assert set_parameters(robot, skeleton='coco_17')[0].successful
    assert len(robot.receive(robot.send(BLACK)).joint_names) == 17
    for name, value, expected in (
        ('skeleton', 'octopus_8', "'octopus_8'; it must be one of"),
        ('num_aug', 6, 'at most 5'),
        ('num_aug', 0, 'num_aug'),
        ('tf', 'all', "tf is 'all'; it must be one of"),
        ('tf_timeout', float('nan'), 'tf_timeout'),
        ('model', 'metrabs_l', 'read-only'),
    ):
        before = node.settings
        (result,) = set_parameters(robot, **{name: value})
        assert not result.successful
        assert expected in result.reason
        assert node.settings == before
    answer, _ = call(robot, GetParameters, 'pose/get_parameters', names=['skeleton', 'tf'])
    assert [value.string_value for value in answer.values] == ['coco_17', 'person']


def test_combined_joints_are_published_in_the_frame_of_the_camera_and_in_another_one(shared):
    _, robot, model = shared
    everything = to_people(robot.receive(robot.send(BLACK)))
    set_parameters(robot, skeleton='smpl_24', tf='joints')
    rotation = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    broadcaster = StaticTransformBroadcaster(robot)
    quaternion = (-0.5, 0.5, -0.5, 0.5)
    broadcaster.sendTransform(
        transform('hall', 'camera_optical_frame', quaternion, (1.0, 2.0, 3.0))
    )
    expected = everything.in_convention(model.convention('smpl_24'))
    positions_m = expected.poses3d_mm[0] / 1000
    for frame, wanted_m in (('', positions_m), ('hall', positions_m @ rotation.T + (1, 2, 3))):
        set_parameters(robot, target_frame=frame, tf_timeout=5.0)
        answer = robot.receive(robot.send(BLACK))
        assert answer.skeleton_name == 'smpl_24'
        (skeleton,) = answer.skeletons
        np.testing.assert_allclose(
            [(p.x, p.y, p.z) for p in skeleton.positions], wanted_m, atol=1e-4
        )
        np.testing.assert_allclose(
            [(p.x, p.y) for p in skeleton.image_points], expected.poses2d_px[0], atol=0.5
        )
        assert len(skeleton.standard_deviations) == len(skeleton.in_view) == 24


def test_a_file_of_skeletons_is_loaded_with_the_model(tmp_path):
    write_definitions(
        tmp_path / 'own.json',
        [
            dataclasses.replace(
                own, skeleton=dataclasses.replace(own.skeleton, name=f'own_{own.skeleton.name}')
            )
            for own in (DEFINITIONS['h36m_17'],)
        ],
    )
    model = load_configured_model(Settings(skeleton_file=str(tmp_path / 'own.json')))
    assert len(model.convention('own_h36m_17').skeleton) == 17


def test_a_missing_transform_causes_a_fallback_or_a_drop(shared):
    node, robot, _ = shared
    fallbacks, drops = node.statistics.fallbacks, node.statistics.drops
    before = fallbacks.counts(), drops.counts()
    set_parameters(robot, target_frame='map', tf_timeout=0.05)
    answer = robot.receive(robot.send(BLACK))
    assert answer.header.frame_id == 'camera_optical_frame'
    assert increases(fallbacks, before[0]) == {'no transform': 1}
    set_parameters(robot, tf_fallback='drop')
    robot.send(BLACK)
    wait_for(lambda: increases(drops, before[1]) == {'no transform': 1})


def test_a_leading_slash_of_a_frame_is_ignored(shared):
    node, robot, _ = shared
    broadcaster = StaticTransformBroadcaster(robot)
    broadcaster.sendTransform(transform('room', '/slashed_optical_frame', place=(0.0, 0.0, 9.0)))
    before = node.statistics.fallbacks.counts()
    set_parameters(robot, target_frame='room', tf_timeout=10.0)
    header = Header(stamp=Time(sec=robot.sent + 1), frame_id='/slashed_optical_frame')
    answer = robot.receive(robot.send(BLACK, header=header))
    assert answer.header.frame_id == 'room'
    assert hips(answer.skeletons[0])[2] == pytest.approx(13.0, abs=0.01)
    assert not increases(node.statistics.fallbacks, before)


def test_uncalibrated_images_are_dropped_or_use_the_default_fov(shared):
    node, robot, _ = shared
    fallbacks, drops = node.statistics.fallbacks, node.statistics.drops
    before = fallbacks.counts(), drops.counts()
    robot.send(BLACK, k=[0.0] * 9)
    wait_for(lambda: increases(drops, before[1]) == {'camera not calibrated': 1})
    assert 'set default_fov_degrees' in drops.explanations()['camera not calibrated']
    assert status(robot)[0].level == b'\x01'
    set_parameters(robot, default_fov_degrees=60.0)
    assert robot.receive(robot.send(BLACK, k=[0.0] * 9)).skeletons
    assert increases(fallbacks, before[0]) == {'camera not calibrated': 1}


def test_every_number_in_the_diagnostics_has_a_separate_key(shared):
    _, robot, _ = shared
    robot.receive(robot.send(BLACK))
    robot.send(BLACK, encoding='nonsense')
    _, values = status(robot)
    texts = {'model', 'engine', 'precision', 'device', 'reason'}
    numbers = {
        key: float(value)
        for key, value in values.items()
        if key not in texts and not key.startswith('explanation: ')
    }
    assert {'decode p50 ms', 'decode p95 ms', 'images', 'in_flight'} <= set(numbers)
    assert np.isfinite(list(numbers.values())).all()


def test_rectified_images_use_p(shared):
    _, robot, model = shared
    p = [77.0, 0, 80, 0, 0, 77, 60, 0, 0, 0, 1, 0]
    set_parameters(robot, rectified='true')
    robot.receive(robot.send(BLACK, p=p, d=[0.1] * 5))
    assert model.seen[-1][1].intrinsic_matrix[0, 0] == 77
    assert not len(model.seen[-1][1].distortion_coeffs)
    set_parameters(robot, rectified='auto')
    robot.receive(robot.send(BLACK, p=p, d=[0.1] * 5))
    assert model.seen[-1][1].intrinsic_matrix[0, 0] == 900


def test_the_annotated_image_is_published_if_subscribed(shared):
    _, robot, _ = shared
    robot.receive(robot.send(BLACK))
    pictures = []
    robot.create_subscription(Image, 'pose/image_annotated', pictures.append, 5)
    wait_for(lambda: robot.count_subscribers('/pose/image_annotated'))
    wait_for(lambda: (robot.send(BLACK), pictures)[1])
    picture = np.frombuffer(pictures[0].data, np.uint8)
    assert picture.size == BLACK.size
    assert picture.any()
    assert not BLACK.any()


def test_the_node_can_be_disabled_and_reset(shared):
    node, robot, _ = shared
    before = node.statistics.drops.counts()
    person_id = robot.receive(robot.send(BLACK)).skeletons[0].id
    assert call(robot, SetBool, 'pose/enable', data=False)[0].success
    robot.send(BLACK)
    wait_for(lambda: increases(node.statistics.drops, before) == {'disabled': 1})
    assert call(robot, SetBool, 'pose/enable', data=True)[0].success
    assert robot.receive(robot.send(BLACK)).skeletons[0].id == person_id
    assert call(robot, Trigger, 'pose/reset')[0].success
    assert robot.receive(robot.send(BLACK)).skeletons[0].id == person_id + 1


def test_markers_and_tracks_are_reset_after_a_jump_back_in_time(shared):
    _, robot, _ = shared
    sent = robot.sent
    robot.sent += 1000
    person_id = robot.receive(robot.send(BLACK)).skeletons[0].id
    robot.sent = sent
    assert robot.receive(robot.send(BLACK)).skeletons[0].id == person_id + 1
    actions = [m.action for markers in robot.markers for m in markers.markers]
    assert 3 in actions
