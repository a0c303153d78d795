"""Only usable transforms are stored, so that buffers and log stay small."""

from __future__ import annotations

import pytest
import tf2_ros
from robots import transform

from metrabs_ros.node import transform_filter
from metrabs_ros.node.transform_filter import (
    ACTIVE_S,
    FORGET_PERIOD_S,
    MAX_FRAMES,
    MAX_LOOKED_UP,
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
def chosen():
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
def test_malformed_transforms_are_refused_and_counted(chosen, message):
    assert not chosen.accepts(message)
    assert not chosen.accepts_static(message)
    assert chosen.refused == 2


def test_usable_transforms_are_stored(chosen):
    assert chosen.accepts(stamped(5))
    assert chosen.accepts_static(stamped(0, 'base', 'arm'))
    assert chosen.refused == 0


def test_people_are_not_stored_unless_they_are_fixed(chosen):
    for name in ('person_7', 'front_person_7', 'robot1/person_7', 'a/b-1.person_7', 'xperson_7'):
        assert not chosen.accepts(stamped(5, child=name))
        assert not chosen.accepts(stamped(5, name, f'{name}_left_knee'))
    assert chosen.refused == 0
    assert not chosen._frames
    assert chosen.accepts_static(stamped(5, child='person_7_helmet'))
    assert chosen.accepts(stamped(5, child='person_detector'))


def test_people_with_a_prefix_do_not_fill_the_store(chosen):
    for number in range(MAX_FRAMES + 10):
        assert not chosen.accepts(stamped(5, child=f'robot1/person_{number}'))
    assert chosen.accepts(stamped(5, 'map', 'camera'))
    assert not chosen.is_full


def test_frames_whose_names_only_resemble_those_of_people_are_stored(chosen):
    for name in ('front_person_2_lidar', 'person_2_camera', 'person_', 'person_x'):
        assert chosen.accepts(stamped(5, 'base_link', name))


@pytest.mark.parametrize('is_configured', [True, False])
def test_frames_that_are_looked_up_and_their_ancestors_are_stored(chosen, is_configured):
    if is_configured:
        chosen.configure(('', 'person_3'))
    else:
        chosen.note_lookup('person_3', 'map')
    # The whole chain, from the looked up frame to the root.
    assert chosen.accepts_static(stamped(0, 'arm', 'person_3'))
    assert chosen.accepts(stamped(5, 'robot1/person_1', 'arm'))
    assert chosen.accepts(stamped(5, 'map', 'robot1/person_1'))
    assert chosen.accepts(stamped(5, 'arm', 'person_3'))
    assert not chosen.accepts(stamped(5, 'map', 'person_2'))


def test_parents_in_a_circle_end(chosen):
    chosen.configure(('a',))
    assert chosen.accepts(stamped(5, 'a', 'b'))
    assert chosen.accepts(stamped(5, 'b', 'a'))
    assert not chosen.accepts(stamped(5, 'b', 'person_1'))


def test_few_of_the_frames_that_are_looked_up_are_kept(chosen):
    for number in range(1000):
        chosen.note_lookup(f'person_{number}', 'x' * 10_000)
    assert len(chosen._looked_up) == MAX_LOOKED_UP
    assert chosen.accepts(stamped(5, child='person_999'))
    assert not chosen.accepts(stamped(5, child='person_1'))


def test_a_full_store_has_room_for_frames_that_are_looked_up(chosen):
    for number in range(MAX_FRAMES):
        chosen.accepts(stamped(5, child=f'frame{number}'))
    assert chosen.is_full
    chosen.note_lookup('camera')
    assert chosen.accepts(stamped(5, 'base', 'camera'))
    assert chosen.accepts(stamped(5, 'map', 'base'))
    assert not chosen.accepts(stamped(5, 'map', 'arm'))
    for number in range(1000):
        chosen.note_lookup(f'wanted{number}')
        chosen.accepts(stamped(5, child=f'wanted{number}'))
    assert len(chosen._frames) <= MAX_FRAMES + RESERVED_FRAMES


def test_the_number_of_frames_is_bounded(chosen):
    accepted = sum(chosen.accepts(stamped(5, child=f'frame{i}')) for i in range(MAX_FRAMES + 500))
    assert accepted == MAX_FRAMES - 1
    assert chosen.accepts(stamped(6, child='frame0'))


def test_what_is_older_than_a_buffer_reaches_is_refused(chosen, clock):
    assert chosen.accepts(stamped(100))
    assert chosen.accepts(stamped(95))
    assert not chosen.accepts(stamped(85))
    assert chosen.refused == 1


def test_when_time_goes_back_the_buffer_begins_anew(chosen, clock):
    buffer = chosen._buffer
    for sec in (100, 5):
        message = stamped(sec)
        if chosen.accepts(message):
            buffer.set_transform(message, 'test')
    assert buffer.can_transform('map', 'camera', stamped(100).header.stamp)
    clock.now_s += 1.5
    message = stamped(6)
    assert chosen.accepts(message)
    buffer.set_transform(message, 'test')
    assert buffer.can_transform('map', 'camera', message.header.stamp)
    assert not buffer.can_transform('map', 'camera', stamped(100).header.stamp)


def put(chosen, sec, child):
    """Pass a transform through the filter; return whether it was stored."""
    message = stamped(sec, child=child)
    is_stored = chosen.accepts(message)
    if is_stored:
        chosen._buffer.set_transform(message, 'test')
    return is_stored


def has(chosen, sec, child):
    return chosen._buffer.can_transform('map', child, stamped(sec).header.stamp)


def test_a_single_frame_with_a_stamp_far_in_the_future_affects_no_other(chosen, clock):
    put(chosen, 1_000_000, 'odd')
    for sec in range(100, 105):
        assert put(chosen, sec, 'left')
        assert put(chosen, sec, 'right')
        clock.now_s += 0.5
    assert put(chosen, 105, 'odd')
    assert has(chosen, 105, 'odd')
    assert not has(chosen, 1_000_000, 'odd')
    for child in ('left', 'right'):
        assert has(chosen, 101, child)
        assert has(chosen, 104, child)


def test_a_frame_whose_stamps_jump_again_and_again_is_forgotten_rarely(chosen, clock):
    cleared, clear = [], chosen._buffer.clear
    chosen._buffer.clear = lambda: (cleared.append(1), clear())
    for number in range(20):
        for child in ('left', 'right'):
            assert put(chosen, 100 + number, child)
            assert has(chosen, 100 + number, child)
        put(chosen, 100 if number % 2 else 1_000_000, 'odd')
        clock.now_s += 1.5
    assert len(cleared) <= 20 * 1.5 / FORGET_PERIOD_S


def test_when_time_goes_back_for_most_frames_all_are_forgotten(chosen, clock):
    children = [f'frame{number}' for number in range(5)]
    for child in (*children, 'quiet'):
        put(chosen, 100, child)
    clock.now_s += ACTIVE_S + 0.1
    for child in children:
        put(chosen, 106, child)
    clock.now_s += 1.5
    stored = [child for child in children if put(chosen, 5, child)]
    # The first before the others agree, and all once most do.
    assert stored == ['frame0', 'frame2', 'frame3', 'frame4']
    assert put(chosen, 6, 'frame1')
    assert put(chosen, 6, 'quiet')
    assert not has(chosen, 106, 'frame4')
    assert all(has(chosen, 6, child) for child in ('frame1', 'quiet'))


def test_of_two_frames_that_go_back_the_second_does_not_wait(chosen, clock):
    for child in ('left', 'right'):
        put(chosen, 100, child)
    clock.now_s += 1.5
    assert put(chosen, 5, 'left')
    assert put(chosen, 5, 'right')
