"""Cameras with another clock are found by the ages of their messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.node.camera_clocks import MAX_DIFFERENCE_S, MIN_AGES, CameraClocks


def clocks_with(*ages_s):
    """Return clocks of cameras a, b, ... that have sent messages of these ages."""
    names = 'abcdefgh'[: len(ages_s)]
    clocks = CameraClocks(names)
    for name, age_s in zip(names, ages_s):
        for _ in range(MIN_AGES):
            clocks.add(name, age_s)
    return clocks


def test_the_camera_that_differs_from_most_others_is_found():
    clocks = clocks_with(0.1, 0.12, 5.1, 0.05)
    assert clocks.offset_s('c') == pytest.approx(5.0, abs=0.1)
    assert [clocks.offset_s(name) for name in 'abd'] == [0, 0, 0]


def test_of_two_cameras_the_one_near_the_present_time_is_right():
    clocks = clocks_with(-4.9, 0.1)
    assert clocks.offset_s('a') == pytest.approx(-5.0)
    assert clocks.offset_s('b') == 0


def test_the_stamps_of_a_recording_agree_with_each_other():
    clocks = clocks_with(1e8, 1e8 + 0.1, 1e8 - 0.2)
    assert [clocks.offset_s(name) for name in 'abc'] == [0, 0, 0]


def test_a_camera_without_enough_messages_is_not_judged():
    clocks = CameraClocks('ab')
    clocks.add('a', 100.0)
    assert clocks.offset_s('a') == clocks.offset_s('b') == 0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8))
def test_at_least_one_camera_is_right(ages_s):
    clocks = clocks_with(*ages_s)
    offsets_s = [clocks.offset_s(name) for name in 'abcdefgh'[: len(ages_s)]]
    assert 0 in offsets_s
    assert all(offset == 0 or abs(offset) > MAX_DIFFERENCE_S for offset in offsets_s)
