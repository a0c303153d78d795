"""Depth images are matched by stamp; their number, size and the waiting time are limited."""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from metrabs_ros.node import depth_buffer
from metrabs_ros.node.depth_buffer import MAX_BYTES, MAX_MESSAGES, DepthBuffer

MS = 1_000_000


def serialised(milliseconds):
    stamp = Time(sec=milliseconds // 1000, nanosec=milliseconds % 1000 * MS)
    return serialize_message(Image(header=Header(stamp=stamp)))


class Clock:
    """Clock that is advanced by the test."""

    now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(depth_buffer, 'time', clock)
    return clock


def buffer_of(*milliseconds):
    buffer = DepthBuffer()
    for own_ms in milliseconds:
        buffer.add(serialised(own_ms))
    return buffer


def nearest_ms(buffer, milliseconds):
    return buffer.nearest(milliseconds * MS).stamp_ns // MS


def test_the_nearest_depth_image_is_chosen():
    buffer = buffer_of(1000, 1033, 1066)
    assert [nearest_ms(buffer, ms) for ms in (900, 1015, 1017, 1050, 2000)] == [
        *(1000, 1000, 1033, 1066, 1066)
    ]
    assert DepthBuffer().nearest(0) is None


def test_images_wait_for_a_depth_image_that_is_expected_to_be_nearer():
    buffer = buffer_of(900, 933, 966)
    assert buffer.is_worth_waiting(1000 * MS)
    buffer.add(serialised(1000))
    assert not buffer.is_worth_waiting(1000 * MS)


def test_images_do_not_wait_at_a_lower_rate_if_the_last_depth_image_is_nearer():
    buffer = buffer_of(800, 900, 1000)
    assert not buffer.is_worth_waiting(1033 * MS)
    assert buffer.is_worth_waiting(1066 * MS)
    # Nor if the next one is not near enough to be used.
    buffer = buffer_of(0, 500, 1000)
    assert not buffer.is_worth_waiting(1300 * MS)


def test_images_do_not_wait_without_depth_images_or_after_they_stop(clock):
    assert not DepthBuffer().is_worth_waiting(1000 * MS)
    assert not buffer_of(1000).is_worth_waiting(1033 * MS)
    buffer = buffer_of(900, 933, 966)
    clock.now_s += 0.6
    assert not buffer.is_worth_waiting(1000 * MS)


def test_images_do_not_wait_for_depth_images_that_arrive_too_late():
    buffer = buffer_of(900, 933)
    waited = []
    # Each depth image arrives after the next image.
    for image_ms in range(966, 1966, 33):
        waited.append(buffer.is_worth_waiting(image_ms * MS))
        buffer.take_for(image_ms * MS)
        buffer.add(serialised(image_ms - 33))
    assert waited[0]
    assert not any(waited[3:])
    # They arrive in time again.
    buffer.add(serialised(image_ms))
    assert buffer.is_worth_waiting((image_ms + 33) * MS)


def test_stamps_that_jump_back_clear_the_buffer():
    buffer = buffer_of(10_000, 10_033, 500)
    assert nearest_ms(buffer, 10_000) == 500
    buffer.add(serialised(533))
    assert nearest_ms(buffer, 540) == 533


def test_number_and_size_of_messages_are_limited(monkeypatch):
    buffer = buffer_of(*range(0, 33 * 3 * MAX_MESSAGES, 33))
    assert len(buffer._messages) == MAX_MESSAGES
    big = serialised(5000) + bytes(MAX_BYTES // 3)
    for _ in range(5):
        buffer.add(big)
    assert buffer._total_bytes() <= MAX_BYTES
    monkeypatch.setattr(depth_buffer, 'MAX_MESSAGE_BYTES', 100)
    buffer.add(serialised(6000) + bytes(200))
    nearest = buffer.nearest(6000 * MS)
    assert nearest.serialised == b''
    assert nearest.size_bytes > 200


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just('depth'), st.binary(max_size=20)),
            st.tuples(st.just('depth'), st.integers(0, 10_000).map(serialised)),
            st.tuples(st.just('image'), st.integers(0, 10_000)),
        ),
        max_size=40,
    )
)
def test_any_messages_and_stamps_are_accepted(events):
    buffer = DepthBuffer()
    for kind, value in events:
        if kind == 'depth':
            buffer.add(value)
        else:
            buffer.is_worth_waiting(value * MS)
            buffer.take_for(value * MS)
