"""The checks of the endurance test detect leaks, long logs, missing frames, NaN and infinity."""

from __future__ import annotations

import math

import checks
import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped

TIMES_S = np.arange(0.0, 3600.0, 5.0)
RSS_BYTES = 400e6 + 2e6 * np.sin(TIMES_S)


def test_constant_memory_passes():
    assert checks.memory_failures(TIMES_S, RSS_BYTES) == []


def test_a_leak_of_four_percent_is_detected():
    leak = 0.045 * 400e6 * TIMES_S / TIMES_S[-1]

    assert 'grows by 4' in checks.memory_failures(TIMES_S, RSS_BYTES + leak)[0]


def test_too_few_samples_raise_an_error():
    with pytest.raises(ValueError, match='3 samples'):
        checks.memory_failures(TIMES_S[:3], RSS_BYTES[:3])


def test_growing_counts_are_detected():
    steady = [20] * len(TIMES_S)
    growing = np.linspace(20, 30, len(TIMES_S))

    assert checks.count_failures(TIMES_S, steady, steady) == []
    assert 'threads' in checks.count_failures(TIMES_S, growing, steady)[0]
    assert 'descriptors' in checks.count_failures(TIMES_S, steady, growing)[0]


@pytest.mark.parametrize(
    ('log', 'expected'),
    [
        (b'a line\n' * 100_000, 'kB per minute'),
        (b'x' * 3000, '3000 characters'),
        (b'Traceback (most recent call last):\n', 'traceback'),
    ],
)
def test_excessive_logs_are_detected(log, expected):
    assert expected in checks.log_failures(log, 60.0)[0]


def test_a_normal_log_passes():
    assert checks.log_failures(b'[INFO] [pose]: ready\n' * 100, 60.0) == []


def test_unaccounted_frames_are_detected():
    values = {'images': '10', 'processed': '4', 'dropped: newer frame': '5', 'people': '2'}

    assert checks.unaccounted_frames(values) == 1


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_non_finite_values_in_messages_are_detected(value):
    message = TransformStamped()

    assert checks.is_finite([message])
    message.transform.rotation.x = value
    assert not checks.is_finite([message])
