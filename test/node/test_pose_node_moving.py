"""Tracking in the node on a moving robot, and extrapolation to the current time."""

from __future__ import annotations

import numpy as np
import pytest
from known_people import KnownPeople
from robots import BLACK, pose_node, transform, wait_for
from rosgraph_msgs.msg import Clock
from test_pose_node_tracking import PERSON_MM, RATE_HZ, header_at, show
from tf2_ros import TransformBroadcaster


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
