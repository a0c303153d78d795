"""The worker works on the newest frame, keeps the next one when told to, and ends."""

from __future__ import annotations

import threading

from metrabs_ros.node.worker import Worker

PATIENCE_S = 120.0


def test_frames_that_wait_give_way_to_newer_ones_unless_they_are_kept():
    started, go_on, done = threading.Semaphore(0), threading.Semaphore(0), []

    def work(frames, worker):
        (frame,) = frames
        started.release()
        assert go_on.acquire(timeout=PATIENCE_S)
        if frame == 1:
            worker.keep_next()
            started.release()
            assert go_on.acquire(timeout=PATIENCE_S)
        done.append(frame)

    worker = Worker(work)
    assert not worker.put('camera', 1)
    assert started.acquire(timeout=PATIENCE_S)
    assert not worker.put('camera', 2)
    assert worker.put('camera', 3)
    go_on.release()
    assert started.acquire(timeout=PATIENCE_S)
    # 3 is kept, so that 4 takes nobody's place, and 5 takes that of 4.
    assert not worker.put('camera', 4)
    assert worker.put('camera', 5)
    for _ in range(3):
        go_on.release()
    assert started.acquire(timeout=PATIENCE_S)
    assert started.acquire(timeout=PATIENCE_S)
    worker.stop()
    assert worker.join(PATIENCE_S)
    assert done == [1, 3, 5]


def test_after_the_stop_nothing_more_is_worked_on():
    done = []
    worker = Worker(lambda frames, worker: done.append(frames))
    worker.stop()
    worker.put('camera', 1)
    assert worker.join(PATIENCE_S)
    assert done == []
    assert not worker.is_wanted
