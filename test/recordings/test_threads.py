"""Reading ahead and writing behind keep the order and propagate exceptions."""

from __future__ import annotations

import threading

import pytest

from metrabs_ros.recordings.threads import ReadAhead, WriteBehind


def test_read_ahead_keeps_the_order():
    assert list(ReadAhead(range(100), 3)) == list(range(100))


def test_an_exception_of_reading_is_raised_after_the_items_before_it():
    def items():
        yield from (1, 2)
        raise OSError('the disk is gone')

    ahead = iter(ReadAhead(items(), 1))
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match='the disk is gone'):
        next(ahead)


def test_the_reading_thread_ends_when_the_iteration_is_stopped():
    threads = threading.active_count()
    for item in ReadAhead(range(1000), 2):
        if item == 3:
            break
    assert threading.active_count() == threads


def test_write_behind_keeps_the_order():
    done = []
    behind = WriteBehind(2)
    for i in range(50):
        behind.put(lambda i=i: done.append(i))
    behind.finish()
    assert done == list(range(50))


def test_an_exception_of_writing_is_raised_and_later_functions_are_not_called():
    done = []
    behind = WriteBehind(1)

    def fail():
        raise OSError('the disk is full')

    def put_all():
        for i in range(10):
            behind.put(fail if i == 1 else lambda i=i: done.append(i))
        behind.finish()

    with pytest.raises(OSError, match='the disk is full'):
        put_all()
    behind.finish()
    assert done == [0]
