"""The worker processes the newest frame of each camera, holds pending frames, and stops."""

from __future__ import annotations

import gc
import threading
import weakref

from metrabs_ros.node.worker import FrameBuffer, Worker

TIMEOUT_S = 120.0


def test_pending_frames_are_replaced_by_newer_ones_unless_they_are_held():
    started, go_on, done = threading.Semaphore(0), threading.Semaphore(0), []

    def work(frames, worker):
        (frame,) = frames
        started.release()
        assert go_on.acquire(timeout=TIMEOUT_S)
        if frame == 1:
            worker.hold_pending()
            started.release()
            assert go_on.acquire(timeout=TIMEOUT_S)
        done.append(frame)

    worker = Worker(work, done.extend)
    assert worker.put('camera', 1) is None
    assert started.acquire(timeout=TIMEOUT_S)
    assert worker.put('camera', 2) is None
    assert worker.put('camera', 3) == 2
    go_on.release()
    assert started.acquire(timeout=TIMEOUT_S)
    # Frame 3 is held, so that frame 4 replaces no frame, and frame 5 replaces frame 4.
    assert worker.put('camera', 4) is None
    assert worker.put('camera', 5) == 4
    for _ in range(3):
        go_on.release()
    assert started.acquire(timeout=TIMEOUT_S)
    assert started.acquire(timeout=TIMEOUT_S)
    worker.stop()
    assert worker.join(TIMEOUT_S)
    assert done == [1, 3, 5]


def test_frames_are_returned_or_discarded_after_the_stop():
    started, go_on, discarded = threading.Event(), threading.Event(), []

    def work(frames, worker):
        started.set()
        assert go_on.wait(TIMEOUT_S)

    worker = Worker(work, discarded.extend)
    worker.put('left', 1)
    assert started.wait(TIMEOUT_S)
    worker.put('left', 2)
    worker.hold_pending()
    worker.put('left', 3)
    worker.put('right', 4)
    worker.stop()
    assert worker.put('left', 5) == 5
    go_on.set()
    assert worker.join(TIMEOUT_S)
    assert sorted(discarded) == [2, 3, 4]
    assert not worker.is_running


def test_a_newer_frame_replaces_an_older_one():
    buffer = FrameBuffer()
    assert buffer.put('left', 1) is None
    assert buffer.put('left', 2) == 1
    assert buffer.take() == [2]


def test_frames_of_different_cameras_are_buffered_separately():
    buffer = FrameBuffer()
    assert buffer.put('left', 1) is None
    assert buffer.put('right', 2) is None
    assert buffer.put('left', 3) == 1
    assert buffer.take() == [3, 2]
    assert buffer.take_pending() == []


def test_take_waits_for_a_frame():
    buffer = FrameBuffer()
    threading.Timer(0.05, buffer.put, ['left', 7]).start()
    assert buffer.take() == [7]


def test_close_wakes_up_take():
    buffer = FrameBuffer()
    threading.Timer(0.05, buffer.close).start()
    assert buffer.take() is None
    assert buffer.put('left', 1) == 1
    assert buffer.take() is None


def test_garbage_of_a_call_that_outlasts_the_stop_is_collected():
    started, go_on = threading.Event(), threading.Event()
    model = Model()
    released = weakref.ref(model)
    models = [model]
    del model

    def work(frames, worker):
        in_use = models[0]
        started.set()
        assert go_on.wait(TIMEOUT_S)
        assert in_use is released()

    gc.disable()
    try:
        worker = Worker(work, list)
        worker.put('camera', 1)
        assert started.wait(TIMEOUT_S)
        worker.stop()
        models.clear()
        gc.collect()
        assert released() is not None
        go_on.set()
        assert worker.join(TIMEOUT_S)
        assert released() is None
    finally:
        gc.enable()


class Model:
    """A model with a reference cycle, which only the garbage collector releases."""

    def __init__(self) -> None:
        self.itself = self
