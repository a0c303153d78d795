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
            ages.add(name, age_s)
    return ages


def test_the_camera_that_differs_from_most_others_is_found():
    ages = ages_with(0.1, 0.12, 5.1, 0.05)
    assert ages.offset_s('c') == pytest.approx(5.0, abs=0.1)
    assert [ages.offset_s(name) for name in 'abd'] == [0, 0, 0]


def test_of_two_cameras_the_one_near_the_present_time_is_right():
    ages = ages_with(-4.9, 0.1)
    assert ages.offset_s('a') == pytest.approx(-5.0)
    assert ages.offset_s('b') == 0


def test_the_stamps_of_a_recording_agree_with_each_other():
    ages = ages_with(1e8, 1e8 + 0.1, 1e8 - 0.2)
    assert [ages.offset_s(name) for name in 'abc'] == [0, 0, 0]


def test_a_camera_without_enough_messages_is_not_judged():
    ages = MessageAges('ab')
    ages.add('a', 100.0)
    assert ages.offset_s('a') == ages.offset_s('b') == 0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8))
def test_at_least_one_camera_is_right(ages_s):
    ages = ages_with(*ages_s)
    offsets_s = [ages.offset_s(name) for name in 'abcdefgh'[: len(ages_s)]]
    assert 0 in offsets_s
    assert all(offset == 0 or abs(offset) > MAX_OFFSET_S for offset in offsets_s)
