"""Only valid and required transforms are stored, so that buffers and the log remain small."""

from __future__ import annotations

import pytest
import tf2_ros
from robots import transform

from metrabs_ros.node import transform_filter
from metrabs_ros.node.transform_filter import (
    ACTIVE_TIMEOUT_S,
    MAX_FRAMES,
    MAX_LOOKUPS,
    MIN_REBUILD_PERIOD_S,
    RESERVED_FRAMES,
    TransformFilter,
)


class Clock:
    now_s = 0.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(transform_filter, 'time', clock)
    return clock


@pytest.fixture
def tf_filter():
    return TransformFilter(tf2_ros.Buffer())


def stamped(sec, parent='map', child='camera', **fields):
    message = transform(parent, child, **fields)
    message.header.stamp.sec = sec
    return message


NAN, INFINITE = float('nan'), float('inf')


@pytest.mark.parametrize(
    'message',
    [
        transform('', 'camera'),
        transform('map', ''),
        transform('map', 'map'),
        transform('map', 'x' * 5000),
        transform('x' * 5000, 'camera'),
        transform('map', 'camera', rotation=(0.0, 0.0, 0.0, 0.0)),
        transform('map', 'camera', rotation=(1e200, 0.0, 0.0, 1.0)),
        transform('map', 'camera', rotation=(0.0, 0.0, 0.0, NAN)),
        transform('map', 'camera', place=(INFINITE, 0.0, 0.0)),
    ],
)
def test_malformed_transforms_are_rejected_and_counted(tf_filter, message):
    assert not tf_filter.accepts(message)
    assert not tf_filter.accepts_static(message)
    assert tf_filter.rejected == 2


def test_valid_transforms_are_stored(tf_filter):
    assert tf_filter.accepts(stamped(5))
    assert tf_filter.accepts_static(stamped(0, 'base', 'arm'))
    assert tf_filter.rejected == 0


def test_frames_of_people_are_not_stored_unless_static(tf_filter):
    for name in ('person_7', 'front_person_7', 'robot1/person_7', 'a/b-1.person_7', 'xperson_7'):
        assert not tf_filter.accepts(stamped(5, child=name))
        assert not tf_filter.accepts(stamped(5, name, f'{name}_left_knee'))
    assert tf_filter.rejected == 0
    assert not tf_filter._frames
    assert tf_filter.accepts_static(stamped(5, child='person_7_helmet'))
    assert tf_filter.accepts(stamped(5, child='person_detector'))


def test_frames_of_ros4hri_bodies_are_not_stored_unless_static(tf_filter):
    for name in ('body_p7', 'body_front_p7', 'l_y_shoulder_p12', 'head_p3', 'r_hip_rear_left_p1'):
        assert not tf_filter.accepts(stamped(5, child=name))
    assert not tf_filter._frames
    for name in ('body_front', 'head_camera', 'l_elbow', 'body_p', 'torso_p1_helmet'):
        assert tf_filter.accepts(stamped(5, child=name))


def test_frames_of_people_with_a_prefix_do_not_fill_the_buffer(tf_filter):
    for number in range(MAX_FRAMES + 10):
        assert not tf_filter.accepts(stamped(5, child=f'robot1/person_{number}'))
    assert tf_filter.accepts(stamped(5, 'map', 'camera'))
    assert not tf_filter.is_full


def test_frames_with_names_similar_to_people_are_stored(tf_filter):
    for name in ('front_person_2_lidar', 'person_2_camera', 'person_', 'person_x'):
        assert tf_filter.accepts(stamped(5, 'base_link', name))


@pytest.mark.parametrize('is_configured', [True, False])
def test_looked_up_frames_and_their_ancestors_are_stored(tf_filter, is_configured):
    if is_configured:
        tf_filter.configure(('', 'person_3'))
    else:
        tf_filter.register_lookup('person_3', 'map')
    # The complete chain from the looked-up frame to the root.
    assert tf_filter.accepts_static(stamped(0, 'arm', 'person_3'))
    assert tf_filter.accepts(stamped(5, 'robot1/person_1', 'arm'))
    assert tf_filter.accepts(stamped(5, 'map', 'robot1/person_1'))
    assert tf_filter.accepts(stamped(5, 'arm', 'person_3'))
    assert not tf_filter.accepts(stamped(5, 'map', 'person_2'))


def test_cyclic_parents_are_handled(tf_filter):
    tf_filter.configure(('a',))
    assert tf_filter.accepts(stamped(5, 'a', 'b'))
    assert tf_filter.accepts(stamped(5, 'b', 'a'))
    assert not tf_filter.accepts(stamped(5, 'b', 'person_1'))


def test_the_number_of_looked_up_frames_is_limited(tf_filter):
    for number in range(1000):
        tf_filter.register_lookup(f'person_{number}', 'x' * 10_000)
    assert len(tf_filter._looked_up) == MAX_LOOKUPS
    assert tf_filter.accepts(stamped(5, child='person_999'))
    assert not tf_filter.accepts(stamped(5, child='person_1'))


def test_a_full_buffer_accepts_looked_up_frames(tf_filter):
    for number in range(MAX_FRAMES):
        tf_filter.accepts(stamped(5, child=f'frame{number}'))
    assert tf_filter.is_full
    tf_filter.register_lookup('camera')
    assert tf_filter.accepts(stamped(5, 'base', 'camera'))
    assert tf_filter.accepts(stamped(5, 'map', 'base'))
    assert not tf_filter.accepts(stamped(5, 'map', 'arm'))
    for number in range(1000):
        tf_filter.register_lookup(f'wanted{number}')
        tf_filter.accepts(stamped(5, child=f'wanted{number}'))
    assert len(tf_filter._frames) <= MAX_FRAMES + RESERVED_FRAMES


def test_the_number_of_frames_is_limited(tf_filter):
    accepted = sum(
        tf_filter.accepts(stamped(5, child=f'frame{i}')) for i in range(MAX_FRAMES + 500)
    )
    assert accepted == MAX_FRAMES - 1
    assert tf_filter.accepts(stamped(6, child='frame0'))


def test_transforms_older_than_the_buffer_are_rejected(tf_filter, clock):
    assert tf_filter.accepts(stamped(100))
    assert tf_filter.accepts(stamped(95))
    assert not tf_filter.accepts(stamped(85))
    assert tf_filter.rejected == 1


def test_the_buffer_is_cleared_after_a_jump_back_in_time(tf_filter, clock):
    buffer = tf_filter._buffer
    for sec in (100, 5):
        message = stamped(sec)
        if tf_filter.accepts(message):
            buffer.set_transform(message, 'test')
    assert buffer.can_transform('map', 'camera', stamped(100).header.stamp)
    clock.now_s += 1.5
    message = stamped(6)
    assert tf_filter.accepts(message)
    buffer.set_transform(message, 'test')
    assert buffer.can_transform('map', 'camera', message.header.stamp)
    assert not buffer.can_transform('map', 'camera', stamped(100).header.stamp)


def put(tf_filter, sec, child):
    """Pass a transform through the filter; return whether it was stored."""
    message = stamped(sec, child=child)
    is_stored = tf_filter.accepts(message)
    if is_stored:
        tf_filter._buffer.set_transform(message, 'test')
    return is_stored


def is_available(tf_filter, sec, child):
    return tf_filter._buffer.can_transform('map', child, stamped(sec).header.stamp)


def test_a_stamp_far_in_the_future_does_not_affect_other_frames(tf_filter, clock):
    put(tf_filter, 1_000_000, 'odd')
    for sec in range(100, 105):
        assert put(tf_filter, sec, 'left')
        assert put(tf_filter, sec, 'right')
        clock.now_s += 0.5
    assert put(tf_filter, 105, 'odd')
    assert is_available(tf_filter, 105, 'odd')
    assert not is_available(tf_filter, 1_000_000, 'odd')
    for child in ('left', 'right'):
        assert is_available(tf_filter, 101, child)
        assert is_available(tf_filter, 104, child)


def test_the_buffer_is_rarely_rebuilt_for_a_frame_with_jumping_stamps(tf_filter, clock):
    cleared, clear = [], tf_filter._buffer.clear
    tf_filter._buffer.clear = lambda: (cleared.append(1), clear())
    for number in range(20):
        for child in ('left', 'right'):
            assert put(tf_filter, 100 + number, child)
            assert is_available(tf_filter, 100 + number, child)
        put(tf_filter, 100 if number % 2 else 1_000_000, 'odd')
        clock.now_s += 1.5
    assert len(cleared) <= 20 * 1.5 / MIN_REBUILD_PERIOD_S


def test_all_frames_are_cleared_if_most_jump_back(tf_filter, clock):
    children = [f'frame{number}' for number in range(5)]
    for child in (*children, 'quiet'):
        put(tf_filter, 100, child)
    clock.now_s += ACTIVE_TIMEOUT_S + 0.1
    for child in children:
        put(tf_filter, 106, child)
    clock.now_s += 1.5
    stored = [child for child in children if put(tf_filter, 5, child)]
    # The first frame is rebuilt alone; all are cleared when most have jumped back.
    assert stored == ['frame0', 'frame2', 'frame3', 'frame4']
    assert put(tf_filter, 6, 'frame1')
    assert put(tf_filter, 6, 'quiet')
    assert not is_available(tf_filter, 106, 'frame4')
    assert all(is_available(tf_filter, 6, child) for child in ('frame1', 'quiet'))


def test_the_second_of_two_frames_that_jump_back_is_stored(tf_filter, clock):
    for child in ('left', 'right'):
        put(tf_filter, 100, child)
    clock.now_s += 1.5
    assert put(tf_filter, 5, 'left')
    assert put(tf_filter, 5, 'right')
