"""Dropped frames are counted by cause and logged at a limited rate."""

from __future__ import annotations

import time

from metrabs_ros.node.drops import LOG_PERIOD_S, MAX_CAUSES, Drops, Fallbacks


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, line):
        self.lines.append(line)


def test_causes_are_logged_at_a_limited_rate_and_always_counted():
    log = Log()
    drops = Drops(log)
    for _ in range(5):
        drops.report('image data', 'too short')
        drops.report('lens model', 'unknown')
    drops.count('newer frame')
    assert log.lines == ['a frame was dropped: too short', 'a frame was dropped: unknown']
    assert drops.counts() == {'image data': 5, 'lens model': 5, 'newer frame': 1}


def test_a_cause_is_logged_again_with_the_count_after_the_period(monkeypatch):
    log = Log()
    drops = Drops(log)
    now_s = 100.0
    monkeypatch.setattr('metrabs_ros.node.drops.time.monotonic', lambda: now_s)
    for _ in range(3):
        drops.report('image data', 'too short')
    now_s = 200.0
    drops.report('image data', 'too short')
    assert log.lines[1] == '3 frames were dropped: too short'


def test_the_number_of_causes_and_the_length_of_the_log_are_limited():
    log = Log()
    drops = Drops(log)
    for number in range(600):
        drops.report(f'cause {number}\x1b[2J' + 5000 * 'x', '\n'.join(5000 * ['why']))
        drops.count(f'{number}', camera='left')
    counts = drops.counts()
    assert len(counts) == MAX_CAUSES == len(log.lines) + len([c for c in counts if c.isdigit()])
    assert sum(counts.values()) == 1200
    assert counts['other'] > 1000
    assert all(len(cause) <= 60 and cause.isprintable() for cause in counts)
    assert all(len(line) < 700 and line.isprintable() for line in log.lines)


def test_drops_and_fallbacks_have_different_log_messages(monkeypatch):
    log = Log()
    drops, fallbacks = Drops(log), Fallbacks(log)
    drops.report('no transform', 'no map', camera='left')
    fallbacks.report('no transform', 'no map')
    later_s = time.monotonic() + LOG_PERIOD_S
    fallbacks.report('no transform', 'no map')
    monkeypatch.setattr('metrabs_ros.node.drops.time.monotonic', lambda: later_s)
    fallbacks.report('no transform', 'no map')
    assert log.lines == [
        'a frame was dropped (camera left): no map',
        'a frame was processed with a fallback: no map',
        '2 frames were processed with a fallback: no map',
    ]
