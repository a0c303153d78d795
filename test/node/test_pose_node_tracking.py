"""Tracking in the node: ids, velocities, extrapolation and resets."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rclpy.parameter import Parameter
from robots import BLACK, pose_node, transform, wait_for
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import Marker

PERSON_MM = (500.0, 0.0, 4000.0)
RATE_HZ = 10


def header_at(time_s, frame_id='camera_optical_frame'):
    return Header(stamp=Time(sec=int(time_s), nanosec=round(time_s % 1 * 1e9)), frame_id=frame_id)


def show(robot, model, where_mm, frame, start_s=1000.0):
    """Publish image number `frame` of a stream, with one person at a position [3] or no person."""
    model.places_mm = () if where_mm is None else (where_mm,)
    return robot.receive(robot.send(BLACK, header=header_at(start_s + frame / RATE_HZ)))


def test_velocities_and_ages_are_published():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1) as (_, robot):
        for i in range(15):
            answer = show(robot, model, (-500.0 + 100 * i, 0, 4000.0), i)
        (skeleton,) = answer.skeletons
        assert skeleton.seen
        assert skeleton.age == pytest.approx(1.4, abs=1e-3)
        velocities = np.array([(v.x, v.y, v.z) for v in skeleton.velocities])
        np.testing.assert_allclose(velocities, [(1.0, 0, 0)] * 33, atol=0.1)


def test_occluded_people_are_extrapolated_and_more_transparent():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1, tf='person') as (_, robot):
        for i in range(10):
            show(robot, model, (-500.0 + 50 * i, 0, 4000.0), i)
        for i in range(10, 14):
            answer = show(robot, model, None, i)
            assert [(s.id, s.seen) for s in answer.skeletons] == [(1, False)]
        stamp = answer.header.stamp
        joints = wait_for(
            lambda: [
                m
                for markers in robot.markers
                for m in markers.markers
                if m.ns == 'joints' and m.action == Marker.ADD and m.header.stamp == stamp
            ]
        )
        assert joints[0].color.a < 0.6
        wait_for(lambda: robot.transforms.can_transform('camera_optical_frame', 'person_1', stamp))
        for i in range(14, 25):
            answer = show(robot, model, None, i)
        assert not answer.skeletons


def test_people_have_no_velocity_while_the_robot_turns():
    model = KnownPeople(PERSON_MM)
    with pose_node(
        model, detect_interval=1, world_frame='odom', target_frame='odom', tf_timeout=2.0
    ) as (_, robot):
        broadcaster = TransformBroadcaster(robot)
        for i in range(20):
            # 60 degrees per second about the vertical axis of the camera, the z axis of the world.
            yaw = np.radians(6 * i - 30)
            optical = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
            turn = np.array(
                [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
            )
            rotation = turn @ optical
            stamped = transform('odom', 'camera_optical_frame', quaternion(rotation))
            stamped.header.stamp = header_at(1000.0 + i / RATE_HZ).stamp
            broadcaster.sendTransform(stamped)
            where_m = rotation.T @ (5.0, 0.0, 0.0)
            answer = show(robot, model, tuple(1000 * where_m), i)
            assert answer.header.frame_id == 'odom'
            assert [s.id for s in answer.skeletons] == [1]
        velocities = [abs(v.x) + abs(v.y) for v in answer.skeletons[0].velocities]
        # The pose rotates with the camera, because the model only defines its position.
        assert np.median(velocities) < 0.6
        hips = [answer.skeletons[0].positions[i] for i in (23, 24)]
        middle = np.mean([(p.x, p.y, p.z) for p in hips], axis=0)
        np.testing.assert_allclose(middle, (5, 0, 0), atol=0.05)


def quaternion(rotation):
    """Return the quaternion x, y, z, w of a rotation matrix [3, 3] by less than 180 degrees."""
    w = np.sqrt(max(1 + np.trace(rotation), 1e-12)) / 2
    x, y, z = (
        (rotation[2, 1] - rotation[1, 2]) / (4 * w),
        (rotation[0, 2] - rotation[2, 0]) / (4 * w),
        (rotation[1, 0] - rotation[0, 1]) / (4 * w),
    )
    return (x, y, z, w)


def test_tracking_parameters_can_be_changed():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1) as (node, robot):
        show(robot, model, PERSON_MM, 0)
        changes = {'smoothing': 0.0, 'max_lost': 0.2, 'min_hits': 5}
        node.set_parameters([Parameter(name, value=value) for name, value in changes.items()])
        show(robot, model, PERSON_MM, 1)
        tracker = node._tracker._streams[''].tracker
        assert (tracker.smoothing, tracker.max_lost, tracker.min_hits) == (0.0, 0.2, 5)


def test_people_are_extrapolated_by_the_latency():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1, predict_latency=True, use_sim_time=True) as (
        node,
        robot,
    ):
        clock = robot.create_publisher(Clock, '/clock', 1)
        wait_for(clock.get_subscription_count)
        for i in range(15):
            model.places_mm = ((-700.0 + 100 * i, 0, 4000.0),)
            stamp_s = 1000.0 + i / RATE_HZ
            now = header_at(stamp_s + 0.3).stamp
            clock.publish(Clock(clock=now))
            wait_for(lambda now=now: node.get_clock().now().to_msg() == now)
            robot.send(BLACK, header=header_at(stamp_s))
            answer = robot.receive(now)
        hips = [answer.skeletons[0].positions[i] for i in (23, 24)]
        middle = np.mean([(p.x, p.y, p.z) for p in hips], axis=0)
        assert middle[0] == pytest.approx(0.7 + 0.3, abs=0.02)


def test_a_restarted_recording_resets_the_tracks():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1) as (node, robot):
        for i in range(3):
            assert show(robot, model, PERSON_MM, i).skeletons[0].id == 1
        assert show(robot, model, PERSON_MM, 0, start_s=500.0).skeletons[0].id == 2
        assert node.statistics.fallbacks.counts() == {'jump back in time': 1}


def test_images_with_equal_stamps_are_all_processed():
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1) as (_, robot):
        for i in (0, 1, 2, 2, 2, 3):
            count = len(robot.skeletons)
            show(robot, model, PERSON_MM, i)
            wait_for(lambda count=count: len(robot.skeletons) > count)
        assert {s.id for answer in robot.skeletons for s in answer.skeletons} == {1}
        values = [(v.x, v.y, v.z) for v in robot.skeletons[-1].skeletons[0].velocities]
        assert np.isfinite(values).all()
