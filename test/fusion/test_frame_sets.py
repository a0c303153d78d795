from __future__ import annotations

import numpy as np
import simulated_rooms as rooms

from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.skeletons.conventions import COCO_17

CAMERA = rooms.looking_at(np.array([4.0, 0, 2]), np.array([0, 0, 1.0]))


def frame(name: str, stamp_s: float) -> CameraPeople:
    return CameraPeople(name, CAMERA, stamp_s, COCO_17, np.zeros((0, 17, 2)), np.zeros((0, 17)))


def names(complete: list[list[CameraPeople]]) -> list[str]:
    return [''.join(own.camera_name for own in frames) for frames in complete]


def test_a_set_is_complete_when_all_running_cameras_are_in_it():
    sets = FrameSets()
    results = [[names(sets.add(frame(name, i / 10))) for name in 'abc'] for i in range(4)]
    assert results[2:] == [[[], [], ['abc']]] * 2


def test_a_set_does_not_wait_for_a_camera_that_stopped():
    sets = FrameSets()
    for i in range(3):
        for name in 'ab':
            sets.add(frame(name, 1 + i / 30))
    results = [names(sets.add(frame('a', 2 + i / 30))) for i in range(4)]
    assert results[-1] == ['a']


def test_each_frame_is_in_exactly_one_set_at_any_rates():
    stamps = sorted((i / rate, name) for name, rate in zip('abc', (5, 30, 60)) for i in range(20))
    sets, found = FrameSets(), []
    for stamp_s, name in stamps:
        found += sets.add(frame(name, stamp_s))
    found += sets.flush()
    assert sum(map(len, found)) == len(stamps)
    assert all(len({own.camera_name for own in frames}) == len(frames) for frames in found)


def test_a_camera_with_another_time_does_not_tear_sets_apart():
    sets, found = FrameSets(), []
    for i in range(10):
        for name, offset_s in (('a', 0.0), ('late', 5.0), ('b', 0.0)):
            found += names(sets.add(frame(name, 1 + i / 30 + offset_s)))
    assert found.count('ab') >= 8
    assert found.count('late') == 10


def test_stamps_that_are_not_a_number_are_passed_on():
    sets = FrameSets()
    sets.add(frame('a', 1.0))
    assert 'b' in ''.join(names(sets.add(frame('b', np.nan))))
