"""People are scaled by the floor, by depth images and by their stature; no frame is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from depth_messages import compressed, message_of
from known_people import KnownPeople
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from robots import pose_node, set_parameters, transform, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from test_fuzz import is_finite
from test_pose_node_known import status
from test_value_ranges import BAD_TRANSFORMS
from tf2_msgs.msg import TFMessage
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from metrabs_ros.msg import Skeleton

SHAPE = (480, 640)
GRAY = np.full((*SHAPE, 3), 128, np.uint8)
FOCAL_PX = 500.0
K = [FOCAL_PX, 0.0, 320.0, 0.0, FOCAL_PX, 240.0, 0.0, 0.0, 1.0]
DISTANCE_M = 3.0
ANKLE_DROP_MM = 900.0
"""Height difference of hips and sole of the person in the poses of the network."""
FACTOR = 0.8
"""Ratio of the size of the person and that in the poses of the network."""
TOLERANCE_M = 0.05 * DISTANCE_M
SKIN_M = 0.1
PERIOD_S = 0.1
CAMERA_FRAME = 'camera_optical_frame'
LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Rotation from a level camera to a frame with z up: its columns are right, down and forward."""


class Person(KnownPeople):
    """The person of a camera at a height above the floor that may change."""

    def __init__(self):
        super().__init__((0.0, 0.0, 1000 * DISTANCE_M))

    def see_from(self, height_m):
        hips_mm = 1000 * height_m / FACTOR - ANKLE_DROP_MM
        self.places_mm = ((0.0, hips_mm, 1000 * DISTANCE_M),)


def quaternion(rotation):
    """Return the quaternion (x, y, z, w) of a rotation by less than 180 degrees."""
    w = math.sqrt(max(1 + np.trace(rotation), 1e-12)) / 2
    cross = rotation - rotation.T
    return (cross[2, 1] / (4 * w), cross[0, 2] / (4 * w), cross[1, 0] / (4 * w), w)


def camera_pose(height_m, yaw=0.0, place_m=(0.0, 0.0)):
    """Return the transform from the frame map, with z up, to the camera."""
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0]])
    rotation = np.vstack([turn, [0, 0, 1]]) @ LEVEL
    return transform('map', CAMERA_FRAME, quaternion(rotation), (*place_m, height_m))


def stamp_at(time_s):
    return Time(sec=int(time_s), nanosec=round(time_s % 1 * 1e9) % 1_000_000_000)


def send(robot, time_s, **changes):
    """Publish an image; return its skeletons."""
    header = Header(stamp=stamp_at(time_s), frame_id=CAMERA_FRAME)
    robot.send(GRAY, header=header, k=K, **changes)
    answer = robot.receive(header.stamp)
    assert is_finite(answer)
    return answer


def wait_for_transform(node, time_s=0.0):
    """Wait until the node can transform at a time; 0: at any time."""
    stamp = stamp_at(time_s)
    wait_for(lambda: node._transforms.can_transform('map', CAMERA_FRAME, stamp))


def send_several(robot, start_s, count=12):
    """Publish images; return the person in the last one, and the time after it."""
    for i in range(count):
        answer = send(robot, start_s + i * PERIOD_S)
    (skeleton,) = answer.skeletons
    return skeleton, start_s + count * PERIOD_S


def distance_m(skeleton):
    return np.mean([skeleton.positions[i].z for i in (23, 24)])


def counts_of(node):
    return node.statistics.fallbacks.counts()


def assert_no_image_was_dropped(node):
    assert node.statistics.drops.counts() == {}


def test_the_floor_determines_the_distance_and_the_stature():
    with pose_node(Person(), ground_frame='map', ground_height=0.5) as (node, robot):
        node._model.see_from(1.0)
        StaticTransformBroadcaster(robot).sendTransform(camera_pose(1.5))
        wait_for_transform(node)
        before, time_s = send_several(robot, 1000.0, 1)
        skeleton, _ = send_several(robot, time_s)
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        assert skeleton.scale_source == Skeleton.SCALE_GROUND_PLANE
        assert skeleton.stature == pytest.approx(1.72 * FACTOR, abs=0.1)
        deviations = np.array([(v.x, v.y, v.z) for v in skeleton.axis_standard_deviations])
        assert deviations.shape == (33, 3)
        assert (deviations[:, 2] > deviations[:, 0]).all()
        assert deviations[0, 2] < before.axis_standard_deviations[0].z
        assert counts_of(node) == {}
        _, values = status(robot)
        assert int(values['scaled by ground_plane']) == 13
        assert values['scaled by depth_image'] == values['not scaled'] == '0'
        assert_no_image_was_dropped(node)


def test_the_floor_is_used_on_a_robot_that_moves():
    with pose_node(Person(), ground_frame='map', world_frame='map', tf_timeout=5.0) as (
        node,
        robot,
    ):
        broadcaster = TransformBroadcaster(robot)
        # The robot turns and drives, and raises its camera.
        for i in range(25):
            time_s = 1000 + i * PERIOD_S
            height_m = 0.8 + 0.03 * i
            node._model.see_from(height_m)
            pose = camera_pose(height_m, 0.02 * i, (0.05 * i, 0.0))
            pose.header.stamp = stamp_at(time_s)
            broadcaster.sendTransform(pose)
            (skeleton,) = send(robot, time_s).skeletons
            if i > 10:
                expected = pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
                assert distance_m(skeleton) == expected
        assert skeleton.scale_source == Skeleton.SCALE_GROUND_PLANE
        assert_no_image_was_dropped(node)


def test_a_missing_ground_frame_is_a_fallback_without_a_delay_or_a_drop():
    with pose_node(Person(), ground_frame='map') as (node, robot):
        skeleton, _ = send_several(robot, 1000.0)
        assert distance_m(skeleton) == pytest.approx(DISTANCE_M, abs=1e-3)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        assert 0 <= skeleton.stature < 3
        assert counts_of(node) == {'no ground plane': 12}
        _, values = status(robot)
        assert "ground_frame 'map' is not in TF" in values['explanation: no ground plane']
        assert values['not scaled'] == '12'
        send(robot, 1002.0)
        assert status(robot)[0].message == 'processed with a fallback: no ground plane'
        assert_no_image_was_dropped(node)


def test_a_late_floor_is_a_fallback_and_the_person_keeps_the_scale():
    with pose_node(Person(), ground_frame='map') as (node, robot):
        node._model.see_from(0.9)
        broadcaster = TransformBroadcaster(robot)

        def move(time_s, height_m):
            pose = camera_pose(height_m)
            pose.header.stamp = stamp_at(time_s)
            broadcaster.sendTransform(pose)

        for i in range(12):
            # The camera moves, so that older transforms are not valid for later images.
            time_s = 1000 + i * PERIOD_S
            node._model.see_from(0.9 + 0.02 * i)
            move(time_s, 0.9 + 0.02 * i)
            wait_for_transform(node, time_s)
            send(robot, time_s)
        assert counts_of(node) == {}
        for i in range(1, 6):
            (skeleton,) = send(robot, time_s + i * PERIOD_S).skeletons
            assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        assert counts_of(node) == {'no ground plane': 5}
        assert 'at the time of the image' in status(robot)[1]['explanation: no ground plane']
        assert_no_image_was_dropped(node)


def test_a_late_floor_is_extrapolated_if_the_camera_does_not_move_relative_to_it():
    with pose_node(Person(), ground_frame='map') as (node, robot):
        node._model.see_from(0.9)
        broadcaster = TransformBroadcaster(robot)
        for i in range(10):
            # The robot drives on level floor.
            pose = camera_pose(0.9, 0.1 * i, (0.1 * i, 0.0))
            pose.header.stamp = stamp_at(1000 + i * PERIOD_S)
            broadcaster.sendTransform(pose)
        wait_for_transform(node, 1000.9)
        send_several(robot, 1000.0, 10)
        skeleton, time_s = send_several(robot, 1001.0, 4)
        assert counts_of(node) == {}
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        send_several(robot, time_s, 4)
        assert counts_of(node)['no ground plane'] > 0
        assert_no_image_was_dropped(node)


def test_invalid_transforms_to_the_ground_frame_are_fallbacks_even_if_others_drop_images():
    parameters = {'ground_frame': 'map', 'tf_fallback': 'drop'}
    with pose_node(Person(), **parameters) as (node, robot):
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        static = robot.create_publisher(TFMessage, '/tf_static', latched)
        wait_for(lambda: node.count_publishers('/tf_static'))
        for i, (translation, rotation) in enumerate(BAD_TRANSFORMS):
            message = transform('map', CAMERA_FRAME, rotation, translation)
            static.publish(TFMessage(transforms=[message]))
            (skeleton,) = send(robot, 1000 + i * PERIOD_S).skeletons
            assert distance_m(skeleton) == pytest.approx(DISTANCE_M, abs=1e-3)
            assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        assert counts_of(node) == {'no ground plane': len(BAD_TRANSFORMS)}
        assert_no_image_was_dropped(node)


def test_a_camera_below_the_floor_is_a_fallback():
    with pose_node(Person(), ground_frame='map', ground_height=2.0) as (node, robot):
        StaticTransformBroadcaster(robot).sendTransform(camera_pose(1.5))
        wait_for_transform(node)
        skeleton, _ = send_several(robot, 1000.0, 3)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        assert '-0.50 m above the floor' in status(robot)[1]['explanation: no ground plane']


def test_ground_frame_and_stature_can_be_changed_and_invalid_values_are_rejected():
    with pose_node(Person()) as (node, robot):
        node._model.see_from(1.0)
        StaticTransformBroadcaster(robot).sendTransform(camera_pose(1.0))
        skeleton, time_s = send_several(robot, 1000.0, 3)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        (result,) = set_parameters(robot, ground_frame='map')
        assert result.successful
        wait_for_transform(node)
        skeleton, time_s = send_several(robot, time_s)
        assert skeleton.scale_source == Skeleton.SCALE_GROUND_PLANE
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        for name, value in (
            *(('stature', 0.2), ('stature', 3.0), ('stature', math.nan), ('stature', -1.0)),
            *(('ground_height', math.inf), ('ground_height', 1e6), ('depth_transport', 'raw')),
        ):
            (result,) = set_parameters(robot, **{name: value})
            assert not result.successful, name
            assert name in result.reason or 'read-only' in result.reason
        assert set_parameters(robot, ground_frame='', stature=1.4)[0].successful
        skeleton, time_s = send_several(robot, time_s)
        assert skeleton.scale_source & Skeleton.SCALE_STATURE
        assert set_parameters(robot, stature=0)[0].successful
        send_several(robot, time_s, 2)
        assert counts_of(node) == {}


def test_a_known_stature_determines_the_distance():
    with pose_node(Person(), stature=1.4) as (_, robot):
        skeleton, _ = send_several(robot, 1000.0)
        assert skeleton.scale_source == Skeleton.SCALE_STATURE
        assert skeleton.stature == pytest.approx(1.4, abs=0.1)
        assert distance_m(skeleton) < 0.9 * DISTANCE_M


class DepthCamera:
    """Publishes depth images of a wall at the depth of the person's skin."""

    def __init__(self, node, robot, camera=''):
        self.input = node._streams[camera]._depth
        kind, topic = Image, 'depth'
        if node.settings.depth_transport == 'compressedDepth':
            kind, topic = CompressedImage, 'depth/compressedDepth'
        self.images = robot.create_publisher(kind, topic, qos_profile_sensor_data)
        self.infos = robot.create_publisher(
            CameraInfo,
            'depth/camera_info',
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        wait_for(self.images.get_subscription_count)

    def depth_m(self, shape=SHAPE, factor=FACTOR):
        return np.full(shape, factor * (DISTANCE_M - SKIN_M), np.float32)

    def send(self, time_s, message=None, frame_id=CAMERA_FRAME):
        if message is None:
            message = message_of(np.rint(1000 * self.depth_m()), '16UC1')
        message.header = Header(stamp=stamp_at(time_s), frame_id=frame_id)
        self.images.publish(message)
        wait_for(lambda: self.is_received(time_s))

    def is_received(self, time_s):
        nearest = self.input.buffer.nearest(round(time_s * 1e9))
        return nearest is not None and abs(nearest.stamp_ns - time_s * 1e9) < 1e6

    def send_info(self, shape, **fields):
        scale = shape[1] / SHAPE[1]
        info = CameraInfo(height=shape[0], width=shape[1], **fields)
        info.k = [scale * K[0], 0.0, scale * K[2], 0.0, scale * K[4], scale * K[5], 0.0, 0.0, 1.0]
        self.infos.publish(info)


def send_with_depth(robot, depth, start_s, count=12, **options):
    """Publish a depth image before each image; return the last person and the next time."""
    for i in range(count):
        time_s = start_s + i * PERIOD_S
        depth.send(time_s, **options)
        answer = send(robot, time_s)
    (skeleton,) = answer.skeletons
    return skeleton, start_s + count * PERIOD_S


def test_compressed_depth_images_are_used():
    with pose_node(Person(), depth_transport='compressedDepth') as (node, robot):
        depth = DepthCamera(node, robot)
        values = np.rint(1000 * depth.depth_m()).astype(np.uint16)
        skeleton, time_s = send_with_depth(robot, depth, 1000.0, message=compressed(values))
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        assert counts_of(node) == {}
        message = compressed(values, '16UC1; compressedDepth rvl')
        send_with_depth(robot, depth, time_s, 2, message=message)
        assert counts_of(node) == {'depth encoding': 2}
        assert 'RVL is not supported' in status(robot)[1]['explanation: depth encoding']
        assert_no_image_was_dropped(node)


def test_depth_images_of_another_size_need_their_own_camera_info():
    with pose_node(Person(), depth_transport='raw') as (node, robot):
        depth = DepthCamera(node, robot)
        shape = (240, 320)
        message = message_of(1000 * depth.depth_m(shape), '16UC1')
        skeleton, time_s = send_with_depth(robot, depth, 1000.0, 3, message=message)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        assert counts_of(node) == {'depth size': 3}
        assert (
            'depth is 320 x 240, image is 640 x 480, no CameraInfo for depth'
            in status(robot)[1]['explanation: depth size']
        )
        # Latched and published once.
        depth.send_info(shape)
        wait_for(lambda: depth.input.has_info)
        skeleton, _ = send_with_depth(robot, depth, time_s, message=message)
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
        assert counts_of(node) == {'depth size': 3}
        assert_no_image_was_dropped(node)


def test_an_invalid_camera_info_of_depth_images_is_a_fallback():
    with pose_node(Person(), depth_transport='raw') as (node, robot):
        depth = DepthCamera(node, robot)
        depth.send_info((123, 456))
        wait_for(lambda: depth.input.has_info)
        send_with_depth(robot, depth, 1000.0, 2)
        assert counts_of(node) == {'depth camera_info': 2}
        depth.send_info(SHAPE, header=Header(frame_id='depth_optical_frame'))
        wait_for(lambda: depth.input._info.header.frame_id)
        send_with_depth(robot, depth, 1001.0, 2)
        assert counts_of(node) == {'depth camera_info': 2, 'depth not registered': 2}


def test_depth_images_that_were_never_received_are_a_fallback():
    with pose_node(Person(), depth_transport='raw') as (node, robot):
        send_several(robot, 1000.0, 3)
        assert counts_of(node) == {'no depth image': 3}
        explanation = status(robot)[1]['explanation: no depth image']
        assert 'no depth image was received on /depth' in explanation
        assert_no_image_was_dropped(node)


def test_the_floor_and_depth_images_are_combined_for_each_camera():
    parameters = {'cameras': ['front', 'rear'], 'ground_frame': 'map', 'depth_transport': 'raw'}
    with pose_node(Person(), robots=['front', 'rear'], **parameters) as (node, front, rear):
        node._model.see_from(1.0)
        StaticTransformBroadcaster(front).sendTransform(camera_pose(1.0))
        wait_for_transform(node)
        depth = DepthCamera(node, front, 'front')
        for i in range(5):
            time_s = 1000 + i * PERIOD_S
            depth.send(time_s)
            sources = [send(robot, time_s).skeletons[0].scale_source for robot in (front, rear)]
        assert sources == [
            Skeleton.SCALE_GROUND_PLANE | Skeleton.SCALE_DEPTH_IMAGE,
            Skeleton.SCALE_GROUND_PLANE,
        ]
        assert node.statistics.fallbacks.counts_by_camera() == {('no depth image', 'rear'): 5}
        values = status(front)[1]
        assert values['scaled by ground_plane of rear'] == '5'
        assert values['scaled by depth_image of rear'] == '0'


def test_a_stature_that_cannot_be_used_is_explained():
    # The feet are below the image.
    person = KnownPeople((0.0, 1200.0, 1000 * DISTANCE_M))
    with pose_node(person, stature=1.5) as (node, robot):
        skeleton, _ = send_several(robot, 1000.0)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
        assert counts_of(node) == {'stature not used': 12}
        _, values = status(robot)
        assert 'from nose to ankles' in values['explanation: stature not used']
        assert_no_image_was_dropped(node)
