"""Only usable transforms are stored, so that buffers and log stay small."""

from __future__ import annotations

import pytest
import tf2_ros
from robots import transform

from metrabs_ros.node import transform_filter
from metrabs_ros.node.transform_filter import MAX_FRAMES, TransformFilter


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
    for name in ('person_7', 'front_person_7', 'person_7_left_knee'):
        assert not chosen.accepts(stamped(5, child=name))
    assert chosen.refused == 0
    assert chosen.accepts_static(stamped(5, child='person_7_helmet'))
    assert chosen.accepts(stamped(5, child='person_detector'))


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
