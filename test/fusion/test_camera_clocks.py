from __future__ import annotations

import pytest

from metrabs_ros.fusion.camera_clocks import CameraClocks


def run(offsets_s: dict[str, float], frames: int = 30, clocks: CameraClocks | None = None):
    clocks = clocks or CameraClocks()
    for i in range(frames):
        for name, offset_s in offsets_s.items():
            clocks.add(name, 10 + i / 10 + offset_s)
    return clocks


@pytest.mark.parametrize('wrong', ['a', 'b', 'c'])
def test_the_camera_that_contradicts_the_majority_is_off(wrong):
    clocks = run({name: 5.0 * (name == wrong) + 0.02 * i for i, name in enumerate('abc')})
    assert clocks.offset_s(wrong) == pytest.approx(5, abs=0.2)
    assert all(clocks.offset_s(name) == 0 for name in 'abc' if name != wrong)


def test_of_two_cameras_the_first_one_is_taken_as_right():
    clocks = run({'a': 0.0, 'b': -5.0})
    assert clocks.offset_s('a') == 0
    assert clocks.offset_s('b') == pytest.approx(-5, abs=0.2)


def test_the_last_running_camera_is_not_compared_with_those_that_stopped():
    clocks = run({'a': 0.0, 'b': 0.0, 'c': 0.0})
    for i in range(100):
        clocks.add('c', 13 + i / 10)
    assert clocks.offset_s('c') == 0


def test_a_stopped_camera_still_tells_which_of_the_others_is_right():
    clocks = run({'a': 0.0, 'b': 5.0, 'c': 0.0})
    for i in range(60):
        clocks.add('b', 18 + i / 10)
        clocks.add('c', 13 + i / 10)
    assert clocks.offset_s('c') == 0
    assert clocks.offset_s('b') == pytest.approx(5, abs=0.2)


def test_a_camera_is_used_if_the_one_that_contradicts_it_has_stopped():
    clocks = run({'a': 5.0, 'b': 0.0})
    assert clocks.offset_s('b')
    for i in range(21):
        clocks.add('b', 13 + i / 10)
    assert clocks.offset_s('b') == 0
    clocks.add('a', 20.1)
    clocks.add('b', 15.2)
    assert clocks.offset_s('b') == pytest.approx(-5, abs=0.2)


@pytest.mark.parametrize('jump_s', [5.0, -5.0])
def test_a_jump_of_one_camera_is_recognised_at_its_first_frame(jump_s):
    clocks = run({'a': 0.0, 'b': 0.0, 'c': 0.0})
    clocks.add('c', 13.0 + jump_s)
    assert clocks.offset_s('c') == pytest.approx(jump_s, abs=0.2)
    for name in 'ab':
        clocks.add(name, 13.0)
        assert clocks.offset_s(name) == 0
    assert clocks.offset_s('c') == pytest.approx(jump_s, abs=0.2)


@pytest.mark.parametrize('jump_s', [5.0, -5.0])
def test_a_jump_of_all_cameras_is_accepted_when_the_second_one_confirms_it(jump_s):
    clocks = run({'a': 0.0, 'b': 0.0, 'c': 0.0})
    clocks.add('a', 13.0 + jump_s)
    assert clocks.offset_s('a')
    clocks.add('b', 13.0 + jump_s)
    assert clocks.offset_s('a') == clocks.offset_s('b') == 0
    clocks.add('c', 13.0 + jump_s)
    assert clocks.offset_s('c') == 0


def test_a_jump_of_the_only_camera_that_still_runs_is_accepted_soon():
    clocks = run({'a': 0.0, 'b': 0.0})
    for i in range(4):
        clocks.add('b', 18 + i / 10)
    assert clocks.offset_s('b') == 0


def test_a_corrected_clock_is_accepted_again():
    clocks = run({'a': 0.0, 'b': 0.0, 'c': 5.0})
    run({'a': 3.0, 'b': 3.0, 'c': 3.0}, 2, clocks)
    assert clocks.offset_s('c') == 0
