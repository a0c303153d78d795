"""The replacement for message_filters synchronises messages."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_filters import ApproximateTimeSynchronizer, Cache, SimpleFilter, TimeSynchronizer
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo


def stamped(nanoseconds):
    message = CameraInfo()
    message.header.stamp = Time(nanoseconds=nanoseconds).to_msg()
    return message


def collected(synchronizer):
    sets = []
    synchronizer.registerCallback(lambda *messages: sets.append(messages))
    return sets


@given(st.permutations(list(itertools.product(range(3), range(5)))))
def test_messages_with_equal_stamps_are_synchronised_in_any_order(order):
    filters = [SimpleFilter() for _ in range(3)]
    sets = collected(TimeSynchronizer(filters, 10))
    for which, stamp in order:
        filters[which].signalMessage(stamped(stamp))
    stamps = [[m.header.stamp.nanosec for m in messages] for messages in sets]
    assert sorted(stamps) == [[stamp] * 3 for stamp in range(5)]


def test_the_queue_drops_the_oldest_message():
    a, b = SimpleFilter(), SimpleFilter()
    sets = collected(TimeSynchronizer([a, b], 2))
    for stamp in (1, 2, 3):
        a.signalMessage(stamped(stamp))
    for stamp in (1, 2, 3):
        b.signalMessage(stamped(stamp))
    assert [s[0].header.stamp.nanosec for s in sets] == [2, 3]


def test_messages_within_the_slop_are_synchronised():
    a, b = SimpleFilter(), SimpleFilter()
    sets = collected(ApproximateTimeSynchronizer([a, b], 10, slop=0.01))
    random.seed(0)
    for i in range(20):
        a.signalMessage(stamped(i * 100_000_000))
        b.signalMessage(stamped(i * 100_000_000 + random.randint(0, 9_000_000)))
        b.signalMessage(stamped(i * 100_000_000 + 50_000_000))
    assert len(sets) == 20


def test_messages_without_stamp_are_ignored_or_use_their_time_of_reception():
    for allowed, expected in ((False, 0), (True, 1)):
        a, b = SimpleFilter(), SimpleFilter()
        synchronizer = ApproximateTimeSynchronizer([a, b], 10, 5.0, allow_headerless=allowed)
        sets = collected(synchronizer)
        a.signalMessage('no header')
        b.signalMessage('none either')
        assert len(sets) == expected


def test_a_callback_can_add_messages_to_the_synchronizer():
    a, b = SimpleFilter(), SimpleFilter()
    synchronizer = TimeSynchronizer([a, b], 5)
    seen = []

    def feed_back(one, other):
        seen.append(one.header.stamp.nanosec)
        if len(seen) < 3:
            a.signalMessage(stamped(len(seen)))
            b.signalMessage(stamped(len(seen)))

    synchronizer.registerCallback(feed_back)
    a.signalMessage(stamped(0))
    b.signalMessage(stamped(0))
    assert seen == [0, 1, 2]


def test_cache_returns_messages_by_time():
    source = SimpleFilter()
    cache = Cache(source, 3)
    for stamp in (1, 2, 3, 4):
        source.signalMessage(stamped(stamp))

    def time(nanoseconds):
        return Time.from_msg(Time(nanoseconds=nanoseconds).to_msg())

    assert [m.header.stamp.nanosec for m in cache.getInterval(time(2), time(3))] == [2, 3]
    assert cache.getElemAfterTime(time(1)).header.stamp.nanosec == 2
    assert cache.getElemBeforeTime(time(9)).header.stamp.nanosec == 4
    assert cache.getElemBeforeTime(time(1)) is None
    with pytest.raises(AssertionError):
        cache.getInterval(time(3), time(2))
