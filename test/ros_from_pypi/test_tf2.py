"""The replacement for tf2 behaves like tf2."""

from __future__ import annotations

import math
import threading
import time

import pytest
import rclpy
import tf2_ros
from geometry_msgs.msg import TransformStamped
from hypothesis import given
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.time import Time


def transform(parent, child, stamp_s, x=0.0, yaw=0.0):
    message = TransformStamped()
    message.header.frame_id = parent
    message.child_frame_id = child
    message.header.stamp = Time(nanoseconds=round(stamp_s * 1e9)).to_msg()
    # Converted to float: rclpy does not check types and would serialise an int incorrectly.
    message.transform.translation.x = float(x)
    message.transform.rotation.z = math.sin(yaw / 2)
    message.transform.rotation.w = math.cos(yaw / 2)
    return message


def at(seconds):
    return Time(nanoseconds=round(seconds * 1e9))


@pytest.fixture
def buffer():
    return tf2_ros.Buffer()


def test_transforms_are_interpolated_between_two_times(buffer):
    buffer.set_transform(transform('map', 'robot', 1, x=0, yaw=0), 'test')
    buffer.set_transform(transform('map', 'robot', 2, x=4, yaw=math.pi / 2), 'test')
    result = buffer.lookup_transform('map', 'robot', at(1.25)).transform
    assert result.translation.x == pytest.approx(1)
    assert 2 * math.atan2(result.rotation.z, result.rotation.w) == pytest.approx(math.pi / 8)


def test_lookups_follow_the_tree_in_both_directions(buffer):
    buffer.set_transform_static(transform('map', 'odom', 0, x=1), 'test')
    buffer.set_transform(transform('odom', 'base', 1, x=2, yaw=math.pi), 'test')
    buffer.set_transform_static(transform('base', 'camera', 0, x=3), 'test')
    buffer.set_transform_static(transform('odom', 'other', 0, x=10), 'test')

    def x(target, source):
        return buffer.lookup_transform(target, source, at(1)).transform.translation.x

    assert x('map', 'camera') == pytest.approx(0)
    assert x('camera', 'map') == pytest.approx(0)
    assert x('other', 'camera') == pytest.approx(-11)
    assert x('map', 'map') == 0


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(-4, 4))
def test_a_transform_and_its_inverse_give_the_identity(move, yaw):
    buffer = tf2_ros.Buffer()
    forward = transform('a', 'b', 1, x=move[0], yaw=yaw)
    forward.transform.translation.y, forward.transform.translation.z = move[1:]
    buffer.set_transform(forward, 'test')
    buffer.set_transform(transform('b', 'c', 1, x=1.5, yaw=-2 * yaw), 'test')
    inverse = buffer.lookup_transform('c', 'a', at(1))
    buffer.set_transform(transform('c', 'd', 1), 'test')
    outward = buffer.lookup_transform('a', 'c', at(1))
    both = tf2_ros.Buffer()
    inverse.header.frame_id, inverse.child_frame_id = 'a', 'x'
    outward.header.frame_id, outward.child_frame_id = 'x', 'y'
    both.set_transform(inverse, 'test')
    both.set_transform(outward, 'test')
    identity = both.lookup_transform('a', 'y', at(1)).transform
    for value in (identity.translation.x, identity.translation.y, identity.translation.z):
        assert value == pytest.approx(0, abs=1e-9)
    assert abs(identity.rotation.w) == pytest.approx(1)


def test_each_lookup_error_has_its_exception(buffer):
    buffer.set_transform(transform('map', 'robot', 1), 'test')
    buffer.set_transform(transform('map', 'robot', 2), 'test')
    buffer.set_transform(transform('moon', 'rover', 1), 'test')
    with pytest.raises(tf2_ros.LookupException, match='"nowhere" passed to lookupTransform'):
        buffer.lookup_transform('nowhere', 'robot', at(1))
    with pytest.raises(tf2_ros.ConnectivityException, match='not part of the same tree'):
        buffer.lookup_transform('map', 'rover', at(1))
    with pytest.raises(tf2_ros.ExtrapolationException, match='into the future'):
        buffer.lookup_transform('map', 'robot', at(3))
    with pytest.raises(tf2_ros.ExtrapolationException, match='into the past'):
        buffer.lookup_transform('map', 'robot', at(0.5))
    with pytest.raises(tf2_ros.InvalidArgumentException, match="start with a '/'"):
        buffer.lookup_transform('/map', 'robot', at(1))
    assert issubclass(tf2_ros.LookupException, tf2_ros.TransformException)


@pytest.mark.parametrize(
    'change',
    [
        lambda t: setattr(t, 'child_frame_id', ''),
        lambda t: setattr(t.header, 'frame_id', ''),
        lambda t: setattr(t, 'child_frame_id', 'map'),
        lambda t: setattr(t.transform.rotation, 'w', 2.0),
        lambda t: setattr(t.transform.translation, 'x', math.nan),
    ],
)
def test_invalid_transforms_are_ignored(buffer, change):
    broken = transform('map', 'robot', 1)
    change(broken)
    buffer.set_transform(broken, 'test')
    assert not buffer.can_transform('map', 'robot', at(1))


def test_time_0_gives_the_latest_common_time(buffer):
    buffer.set_transform(transform('map', 'odom', 5, x=1), 'test')
    buffer.set_transform(transform('odom', 'base', 3, x=2), 'test')
    buffer.set_transform(transform('map', 'odom', 3, x=7), 'test')
    latest = buffer.lookup_transform('map', 'base', Time())
    assert latest.header.stamp.sec == 3
    assert latest.transform.translation.x == pytest.approx(9)


def test_old_transforms_are_removed_from_the_cache(buffer):
    buffer = tf2_ros.Buffer(cache_time=Duration(seconds=2))
    for second in (1, 2, 3, 10, 11):
        buffer.set_transform(transform('map', 'robot', second), 'test')
    assert not buffer.can_transform('map', 'robot', at(2.5))
    buffer.set_transform(transform('map', 'robot', 1), 'test')
    assert not buffer.can_transform('map', 'robot', at(1))


def test_a_loop_is_detected(buffer):
    buffer.set_transform(transform('a', 'b', 1), 'test')
    buffer.set_transform(transform('b', 'a', 1), 'test')
    buffer.set_transform(transform('c', 'd', 1), 'test')
    with pytest.raises(tf2_ros.LookupException, match='loop'):
        buffer.lookup_transform('d', 'a', at(1))


def test_lookup_at_two_times_via_a_fixed_frame(buffer):
    for second in (1, 2):
        buffer.set_transform(transform('map', 'robot', second, x=3 * second), 'test')
    moved = buffer.lookup_transform_full('robot', at(2), 'robot', at(1), 'map')
    assert moved.transform.translation.x == pytest.approx(-3)


def test_waiting_ends_when_the_transform_arrives(buffer):
    late = transform('map', 'robot', 1, x=5)
    threading.Timer(0.1, buffer.set_transform, [late, 'test']).start()
    result = buffer.lookup_transform('map', 'robot', at(1), timeout=Duration(seconds=120))
    assert result.transform.translation.x == 5


def test_waiting_ends_after_the_timeout(buffer):
    start_s = time.monotonic()
    assert not buffer.can_transform('map', 'robot', at(1), timeout=Duration(seconds=0.2))
    assert 0.15 < time.monotonic() - start_s < 60


def test_broadcasts_are_received_over_dds():
    rclpy.init()
    sender, receiver = rclpy.create_node('sender'), rclpy.create_node('receiver')
    try:
        tf2_ros.StaticTransformBroadcaster(sender).sendTransform(transform('map', 'odom', 0, x=1))
        moving = tf2_ros.TransformBroadcaster(sender)
        buffer = tf2_ros.Buffer(node=receiver)
        listener = tf2_ros.TransformListener(buffer, receiver)
        deadline_s = time.monotonic() + 120
        while not buffer.can_transform('map', 'base', at(7)):
            assert time.monotonic() < deadline_s
            moving.sendTransform([transform('odom', 'base', 7, x=2)])
            rclpy.spin_once(receiver, timeout_sec=0.05)
        assert buffer.lookup_transform('map', 'base', at(7)).transform.translation.x == 3
        listener.unregister()
    finally:
        sender.destroy_node()
        receiver.destroy_node()
        rclpy.shutdown()
