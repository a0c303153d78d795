"""Cameras with another clock are found by the ages of their messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.fusion.camera_clocks import MAX_OFFSET_S
from metrabs_ros.node.message_ages import MIN_AGES, MessageAges


def ages_with(*ages_s):
    """Return the ages of messages of cameras a, b, ...."""
    names = 'abcdefgh'[: len(ages_s)]
    ages = MessageAges(names)
    for name, age_s in zip(names, ages_s):
        for _ in range(MIN_AGES):
            ages.add(name, age_s, 0.0)
    return ages


def test_the_camera_that_differs_from_most_others_is_found():
    ages = ages_with(0.1, 0.12, 5.1, 0.05)
    assert ages.offset_s('c', 0.0) == pytest.approx(5.0, abs=0.1)
    assert [ages.offset_s(name, 0.0) for name in 'abd'] == [0, 0, 0]


def test_of_two_cameras_the_one_near_the_present_time_is_right():
    ages = ages_with(-4.9, 0.1)
    assert ages.offset_s('a', 0.0) == pytest.approx(-5.0)
    assert ages.offset_s('b', 0.0) == 0


def test_the_stamps_of_a_recording_agree_with_each_other():
    ages = ages_with(1e8, 1e8 + 0.1, 1e8 - 0.2)
    assert [ages.offset_s(name, 0.0) for name in 'abc'] == [0, 0, 0]


def test_a_camera_without_enough_messages_is_not_judged():
    ages = MessageAges('ab')
    ages.add('a', 100.0, 0.0)
    assert ages.offset_s('a', 0.0) == ages.offset_s('b', 0.0) == 0


@pytest.mark.parametrize('pause_s', [0.6, 1.0, 1.9, 10.0])
@pytest.mark.parametrize('rates_hz', [(30, 10), (60, 5, 15), (10, 10), (100, 1)])
def test_a_pause_of_a_recording_is_no_error_of_a_clock(rates_hz, pause_s):
    names = 'abcdefgh'[: len(rates_hz)]
    ages = MessageAges(names)
    stamps_s = sorted(
        (k / rate_hz, name)
        for name, rate_hz in zip(names, rates_hz)
        for k in range(round(6 * rate_hz))
    )
    for stamp_s, name in stamps_s:
        age_s = 0.1 + pause_s * (stamp_s >= 3)
        ages.add(name, age_s, stamp_s + age_s)
        assert ages.offset_s(name, stamp_s + age_s) == 0


def test_a_clock_that_jumps_is_found():
    ages = MessageAges('abc')
    for k in range(60):
        for name in 'abc':
            ages.add(name, 1.0 * (name == 'b' and k >= 20), k / 20)
    assert [ages.offset_s(name, 3.0) for name in 'abc'] == [0, 1, 0]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8))
def test_at_least_one_camera_is_right(ages_s):
    ages = ages_with(*ages_s)
    offsets_s = [ages.offset_s(name, 0.0) for name in 'abcdefgh'[: len(ages_s)]]
    assert 0 in offsets_s
    assert all(offset == 0 or abs(offset) > MAX_OFFSET_S for offset in offsets_s)
