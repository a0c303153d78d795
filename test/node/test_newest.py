"""Only the newest frame waits, and drops are counted and said once."""

from __future__ import annotations

import threading

from metrabs_ros.node.drops import Drops
from metrabs_ros.node.newest import NewestFrames


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, line):
        self.lines.append(line)


def test_a_newer_frame_takes_the_place_of_an_older_one():
    newest = NewestFrames()
    assert newest.put('left', 1) is False
    assert newest.put('left', 2) is True
    assert newest.take() == [2]


def test_frames_of_different_cameras_wait_side_by_side():
    newest = NewestFrames()
    assert not newest.put('left', 1)
    assert not newest.put('right', 2)
    assert newest.put('left', 3)
    assert newest.take() == [3, 2]
    assert newest.take_waiting() == []


def test_take_waits_for_a_frame():
    newest = NewestFrames()
    threading.Timer(0.05, newest.put, ['left', 7]).start()
    assert newest.take() == [7]


def test_closing_ends_the_wait():
    newest = NewestFrames()
    threading.Timer(0.05, newest.close).start()
    assert newest.take() is None
    newest.put('left', 1)
    assert newest.take() is None


def test_each_cause_is_said_once_in_a_while_and_always_counted():
    log = Log()
    drops = Drops(log)
    for _ in range(5):
        drops.explain('image data', 'too short')
        drops.explain('lens model', 'unknown')
    drops.count('newer frame')
    assert log.lines == ['a frame was dropped: too short', 'a frame was dropped: unknown']
    assert drops.counts() == {'image data': 5, 'lens model': 5, 'newer frame': 1}


def test_after_a_while_it_is_said_again_with_the_count(monkeypatch):
    log = Log()
    drops = Drops(log)
    now_s = 100.0
    monkeypatch.setattr('metrabs_ros.node.drops.time.monotonic', lambda: now_s)
    for _ in range(3):
        drops.explain('image data', 'too short')
    now_s = 200.0
    drops.explain('image data', 'too short')
    assert log.lines[1] == '3 frames were dropped: too short'
