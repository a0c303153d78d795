"""With a model that returns known people, all published values are correct."""

from __future__ import annotations

import array
import time

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from robots import BLACK, call, pose_node, set_parameters, transform, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

PERSON_MM = (500.0, 0.0, 4000.0)
MAX_RESPONSE_S = 0.3
"""Much less than the time of the network, and much more than a response on a busy machine."""
QUARTER_TURN = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))
"""Rotation about z by 90 degrees."""


def hips(skeleton):
    left, right = skeleton.positions[23], skeleton.positions[24]
    return np.mean([(p.x, p.y, p.z) for p in (left, right)], axis=0)


def status(robot):
    """Wait for the next diagnostics."""
    robot.diagnostics.clear()
    (diagnostics,) = wait_for(lambda: robot.diagnostics)[0].status
    return diagnostics, {value.key: value.value for value in diagnostics.values}


def test_topics_and_frames_are_in_the_namespace():
    with pose_node(KnownPeople(PERSON_MM), namespace='front') as (_, robot):
        answer = robot.receive(robot.send(BLACK))
        wait_for(
            lambda: robot.transforms.can_transform(
                'camera_optical_frame', 'front_person_1', answer.header.stamp
            )
        )
        assert robot.count_publishers('/front/pose/skeletons') == 1


def test_standard_deviations_come_from_confidences_without_augmentation():
    with pose_node(KnownPeople(PERSON_MM), tf='none') as (_, robot):
        (skeleton,) = robot.receive(robot.send(BLACK)).skeletons
        assert 0.02 < skeleton.standard_deviations[0] < 0.3
        assert not robot.transforms.all_frames_as_yaml().strip('[] {}\n')


def test_the_up_direction_of_the_world_frame_is_used():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, world_frame='map') as (_, robot):
        # The camera points along the x axis of the map and is rolled by 90 degrees.
        broadcaster = StaticTransformBroadcaster(robot)
        broadcaster.sendTransform(
            transform(
                'map', 'camera_optical_frame', rotation=(0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5))
            )
        )
        robot.receive(robot.send(BLACK))
        np.testing.assert_allclose(model.seen[-1][1].up, (-1, 0, 0), atol=1e-6)


def test_people_are_published_in_the_target_frame():
    with pose_node(KnownPeople(PERSON_MM), target_frame='map') as (_, robot):
        broadcaster = StaticTransformBroadcaster(robot)
        broadcaster.sendTransform(
            transform('map', 'camera_optical_frame', QUARTER_TURN, (10.0, 20.0, 30.0))
        )
        answer = robot.receive(robot.send(BLACK))
        assert answer.header.frame_id == 'map'
        np.testing.assert_allclose(hips(answer.skeletons[0]), (10, 20.5, 34), atol=1e-5)
        markers = wait_for(lambda: [m for m in robot.markers if m.markers])[-1].markers
        assert {marker.header.frame_id for marker in markers} == {'map'}
        assert markers[2].text.endswith(': 4.0 m')
        stamp = answer.header.stamp
        wait_for(lambda: robot.transforms.can_transform('map', 'person_1', stamp))
        place = robot.transforms.lookup_transform('map', 'person_1', stamp).transform.translation
        np.testing.assert_allclose((place.x, place.y, place.z), (10, 20.5, 34), atol=1e-5)


def test_tf_is_subscribed_only_when_a_frame_is_configured():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        # The subscription of the robot.
        wait_for(lambda: node.count_subscribers('/tf') == 1)
        set_parameters(robot, target_frame='map', tf_timeout=5.0)
        wait_for(lambda: node.count_subscribers('/tf') == 2)
        StaticTransformBroadcaster(robot).sendTransform(transform('map', 'camera_optical_frame'))
        assert robot.receive(robot.send(BLACK)).header.frame_id == 'map'


def test_images_without_frame_id_are_processed_without_transforms():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        header = Header(stamp=Time(sec=5))
        assert len(robot.receive(robot.send(BLACK, header=header)).skeletons) == 1
        assert node.statistics.fallbacks.counts() == {'image without frame_id': 1}
        assert not robot.transforms.all_frames_as_string()


def image_message(stamp):
    message = Image(height=120, width=160, step=480, encoding='rgb8')
    message.header.stamp = stamp
    message.data = array.array('B', bytes(120 * 480))
    return message


def test_a_latched_camera_info_applies_to_all_images():
    model = KnownPeople(PERSON_MM)
    # There is no /clock, as with a recording that is played without it.
    with pose_node(model, use_sim_time=True) as (_, robot):
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        infos = robot.create_publisher(CameraInfo, 'camera_info', kept)
        infos.publish(CameraInfo(k=[123.0, 0, 80, 0, 123, 60, 0, 0, 1]))
        for _ in range(50):
            robot.images.publish(image_message(robot.get_clock().now().to_msg()))
            time.sleep(0.1)
            if robot.skeletons:
                break
        assert robot.skeletons
        assert model.seen[-1][1].intrinsic_matrix[0, 0] == 123
        wait_for(lambda: robot.diagnostics)


def test_images_without_any_camera_info_are_counted_as_dropped():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        robot.images.publish(image_message(robot.get_clock().now().to_msg()))
        wait_for(lambda: node.statistics.drops.counts().get('no camera_info'))


@pytest.mark.slow
def test_the_default_fov_is_used_at_the_full_rate():
    with pose_node(KnownPeople(PERSON_MM), default_fov_degrees=60.0) as (node, robot):
        start_s = time.monotonic()
        for number in range(60):
            robot.images.publish(image_message(Time(sec=10 + number)))
            time.sleep(1 / 30)
        # The images of the first half second wait for a camera_info.
        wait_for(lambda: len(robot.skeletons) > 30)
        assert time.monotonic() - start_s < 5
        assert robot.skeletons[-1].header.frame_id == ''
        assert node.statistics.fallbacks.counts()['camera not calibrated'] > 30


def test_a_late_camera_info_replaces_the_default_fov():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, default_fov_degrees=60.0) as (_, robot):
        robot.images.publish(image_message(Time(sec=5)))
        robot.receive(Time(sec=5))
        robot.receive(robot.send(BLACK))
        robot.receive(robot.send(BLACK))
        assert model.seen[-1][1].intrinsic_matrix[0, 0] == 900


def test_fallbacks_are_not_logged_as_drops(capfd):
    with pose_node(KnownPeople(PERSON_MM), target_frame='map', tf_timeout=0.01) as (node, robot):
        robot.receive(robot.send(BLACK))
        assert node.statistics.drops.counts() == {}
    log = capfd.readouterr().err
    assert 'a frame was processed with a fallback: there is no transform' in log
    assert 'dropped' not in log


def test_all_subscriptions_have_separate_qos_overrides():
    overrides = {
        'qos_overrides./image.subscription.depth': 7,
        'qos_overrides./detections.subscription.reliability': 'reliable',
    }
    with pose_node(KnownPeople(PERSON_MM), detector='topic', **overrides) as (node, robot):
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        robot.create_publisher(CameraInfo, 'camera_info', kept)
        name = 'qos_overrides./camera_info.subscription_latched.depth'
        wait_for(lambda: node.has_parameter(name))

        def value(topic, policy):
            return node.get_parameter(f'qos_overrides.{topic}.subscription.{policy}').value

        assert [value('/image', policy) for policy in ('depth', 'reliability')] == [
            *(7, 'best_effort')
        ]
        assert [value('/camera_info', policy) for policy in ('depth', 'reliability')] == [
            *(5, 'best_effort')
        ]
        assert [value('/detections', policy) for policy in ('depth', 'reliability')] == [
            *(5, 'reliable')
        ]
        assert node.get_parameter(name).value == 1
        profiles = [
            endpoint.qos_profile.reliability
            for endpoint in robot.get_subscriptions_info_by_topic('/detections')
        ]
        assert profiles == [ReliabilityPolicy.RELIABLE]
        # The overrides do not change the shared profile of rclpy.
        assert qos_profile_sensor_data.depth == 5
        assert qos_profile_sensor_data.reliability == ReliabilityPolicy.BEST_EFFORT
        node.trigger_deactivate()
        node.trigger_activate()
        wait_for(robot.images.get_subscription_count)


def test_compressed_images_are_processed():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, image_transport='compressed') as (_, robot):
        images = robot.create_publisher(
            CompressedImage, 'image/compressed', qos_profile_sensor_data
        )
        wait_for(images.get_subscription_count)
        message, info = CompressedImage(format='jpeg'), CameraInfo()
        message.data = array.array('B', cv2.imencode('.jpg', BLACK)[1].tobytes())
        message.header.stamp.sec = info.header.stamp.sec = 7
        info.k = [100.0, 0, 80, 0, 100, 60, 0, 0, 1]
        robot.infos.publish(info)
        images.publish(message)
        assert robot.receive(message.header.stamp).skeletons
        assert model.seen[-1][0] == (120, 160, 3)


def test_boxes_are_received_from_a_topic():
    model = KnownPeople((0.0, 0.0, 2000.0), PERSON_MM, (900.0, 0.0, 5000.0))
    with pose_node(model, detector='topic', detection_class='person') as (node, robot):
        detections = robot.create_publisher(Detection2DArray, 'detections', 5)
        wait_for(detections.get_subscription_count)
        message = Detection2DArray()
        for class_id, left in (
            ('person', 10.0),
            ('dog', 50.0),
            ('person', 90.0),
            ('person', 900.0),
        ):
            detection, result = Detection2D(), ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = class_id, 0.75
            detection.results = [result]
            detection.bbox.center.position.x = left + 20
            detection.bbox.center.position.y = 60.0
            detection.bbox.size_x, detection.bbox.size_y = 40.0, 80.0
            message.detections.append(detection)
        stamp = robot.send(BLACK)
        message.header.stamp = stamp
        detections.publish(message)
        skeletons = robot.receive(stamp).skeletons
        assert [s.box_left for s in skeletons] == [10, 90]
        assert [s.confidence for s in skeletons] == [0.75, 0.75]
        robot.send(BLACK)
        wait_for(lambda: node.statistics.drops.counts().get('no detections'))


@pytest.mark.slow
def test_services_respond_quickly_while_the_network_is_running():
    with pose_node(KnownPeople(PERSON_MM, delay_s=2.0)) as (_, robot):
        robot.send(BLACK)
        time.sleep(0.2)
        for kind, service in (
            (GetParameters, 'pose/get_parameters'),
            (GetState, 'pose/get_state'),
            (Trigger, 'pose/reset'),
        ):
            assert call(robot, kind, service)[1] < MAX_RESPONSE_S
        transition = Transition(id=Transition.TRANSITION_DEACTIVATE)
        answer, passed_s = call(robot, ChangeState, 'pose/change_state', transition=transition)
        assert answer.success
        assert passed_s < MAX_RESPONSE_S
        # The result of the running frame is discarded.
        time.sleep(2.2)
        assert not robot.skeletons


def test_lifecycle_transitions_can_be_repeated():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, active=False) as (_, robot):

        def change(transition_id):
            transition = Transition(id=transition_id)
            answer, _ = call(robot, ChangeState, 'pose/change_state', transition=transition)
            state, _ = call(robot, GetState, 'pose/get_state')
            return answer.success, state.current_state.label

        for _ in range(2):
            assert change(Transition.TRANSITION_CONFIGURE) == (True, 'inactive')
            assert change(Transition.TRANSITION_ACTIVATE) == (True, 'active')
            wait_for(robot.images.get_subscription_count)
            wait_for(robot.infos.get_subscription_count)
            wait_for(lambda: robot.count_publishers('/pose/skeletons'))
            assert robot.receive(robot.send(BLACK)).skeletons
            assert change(Transition.TRANSITION_DEACTIVATE) == (True, 'inactive')
            wait_for(lambda: not robot.images.get_subscription_count())
            assert change(Transition.TRANSITION_CLEANUP) == (True, 'unconfigured')


def test_the_node_stays_unconfigured_after_a_failure():
    def fail(settings):
        raise ValueError('there is no model')

    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        node._load_model = fail
        transition = Transition(id=Transition.TRANSITION_CONFIGURE)
        answer, _ = call(robot, ChangeState, 'pose/change_state', transition=transition)
        assert not answer.success
        state, _ = call(robot, GetState, 'pose/get_state')
        assert state.current_state.label == 'unconfigured'


@pytest.mark.slow
def test_diagnostics_contain_rates_latencies_and_failures():
    model = KnownPeople(PERSON_MM)
    with pose_node(model) as (_, robot):
        robot.receive(robot.send(BLACK))
        diagnostics, values = status(robot)
        assert values['processed'] == '1'
        assert (values['engine'], values['device']) == ('none', 'nowhere')
        rates = {'images per second', 'frames per second'}
        assert {'model', 'engine', 'device', *rates} <= set(values)
        assert 0 < float(values['process p50 ms']) <= float(values['process p95 ms'])
        diagnostics, _ = status(robot)
        assert (diagnostics.level, diagnostics.message) == (b'\x01', 'no images received')
        model.places_mm = None
        robot.send(BLACK)
        diagnostics = wait_for(
            lambda: [d.status[0] for d in robot.diagnostics if d.status[0].level == b'\x02']
        )
        assert 'frames fail: TypeError' in diagnostics[0].message


@pytest.mark.slow
def test_the_latency_under_overload_is_at_most_twice_the_model_time():
    with pose_node(KnownPeople(PERSON_MM, delay_s=0.3)) as (node, robot):
        ages_s = []
        sent_s = {}
        robot.create_subscription(
            type(robot.receive(robot.send(BLACK))),
            'pose/skeletons',
            lambda m: ages_s.append(time.monotonic() - sent_s[m.header.stamp.sec]),
            5,
        )
        time.sleep(0.5)
        for _ in range(60):
            sent_s[robot.sent + 1] = time.monotonic()
            robot.send(BLACK)
            time.sleep(1 / 30)
        wait_for(lambda: len(ages_s) > 5)
        # With a margin for the transport on a busy machine.
        assert max(ages_s) < 2 * 0.3 + 0.1
        assert node.statistics.drops.counts()['newer frame'] > 20
