"""The detector runs in the background; the results do not depend on when it ends."""

from __future__ import annotations

import concurrent.futures
import threading
import time

import numpy as np
import pytest
from test_people import people_at
from test_person_tracker import CAMERA, IMAGE, A, B, Crowd

from metrabs_ros.options import View
from metrabs_ros.tracking.box_following import match_boxes
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

RATE_HZ, INTERVAL = 30, 5
TIMEOUT_S = 10


class BackgroundCrowd(Crowd):
    """
    People that are detected in the background.

    Parameters
    ----------
    delay_s
        Duration of a detection.

    Attributes
    ----------
    may_end
        Detections wait for this event.
    fails
        Whether detections raise an error.
    """

    def __init__(self, *places, delay_s=0.0):
        super().__init__(*places)
        self.detects_in_background = True
        self.delay_s = delay_s
        self.may_end = threading.Event()
        self.may_end.set()
        self.fails = False
        self._background = concurrent.futures.ThreadPoolExecutor(1)

    def start_detection(self, view, options):
        self.log.append('start')
        people, fails = people_at(*self.places), self.fails

        def detect():
            assert self.may_end.wait(TIMEOUT_S)
            time.sleep(self.delay_s)
            if fails:
                raise RuntimeError('the detector fails')
            return people.boxes_px, people.confidence

        return self._background.submit(detect)


def at_frame(i):
    return TimedView(View(IMAGE, CAMERA), 1 + i / RATE_HZ)


def walk(crowd, tracker, frames):
    """Return the people in frames of which A walks, B enters at 7 and leaves at 22."""
    results = []
    for i in frames:
        crowd.places = [(10.0 * i, 0, 4000), *([B] if 7 <= i < 22 else [])]
        (people,) = tracker.process([at_frame(i)])
        results.append(people)
    return results


def test_known_people_are_processed_before_the_detection_ends():
    crowd = BackgroundCrowd(A, B)
    tracker = PersonTracker(crowd)
    for i in range(INTERVAL):
        tracker.process([at_frame(i)])
    crowd.may_end.clear()
    (people,) = tracker.process([at_frame(INTERVAL)])
    assert crowd.log == ['detect', *[2] * 4, 'start', 2]
    assert people.ids.tolist() == [1, 2]
    assert people.seen.all()
    crowd.may_end.set()
    (people,) = tracker.process([at_frame(INTERVAL + 1)])
    assert crowd.log[-1] == 2
    assert people.ids.tolist() == [1, 2]


def test_new_people_are_found_one_frame_after_the_detection_and_missing_ones_lost():
    crowd = BackgroundCrowd(A)
    counts = [len(people) for people in walk(crowd, PersonTracker(crowd, min_hits=1), range(40))]
    # The detector runs in frame 10.
    assert counts[:11] == [1] * 11
    assert set(counts[11:22]) == {2}
    assert counts[-1] == 1


def test_results_do_not_depend_on_the_duration_of_the_detection():
    results = []
    for delay_s in (0.0, 0.02):
        crowd = BackgroundCrowd(A, delay_s=delay_s)
        results.append(walk(crowd, PersonTracker(crowd), range(30)))
    for first, second in zip(*results):
        assert first.ids.tolist() == second.ids.tolist()
        np.testing.assert_array_equal(first.poses3d_mm, second.poses3d_mm)


@pytest.mark.parametrize('interrupted', [9, 10, 11, 12, 16])
def test_a_resumed_run_equals_an_uninterrupted_one(interrupted):
    crowd = BackgroundCrowd(A)
    tracker, entries, expected = PersonTracker(crowd), [], []
    for i in range(25):
        expected += walk(crowd, tracker, [i])
        entries.append(tracker.detections())
    crowd = BackgroundCrowd(A)
    resumed = PersonTracker(crowd)
    for i, entry in enumerate(entries[:interrupted]):
        # The detection of the last image runs again when its result is needed.
        crowd.places = [(10.0 * i, 0, 4000), *([B] if i >= 7 else [])]
        resumed.replay(at_frame(i), entry.people, entry.state)
        assert not crowd.log
    for i in range(interrupted, 25):
        (people,) = walk(crowd, resumed, [i])
        assert people.ids.tolist() == expected[i].ids.tolist()
        np.testing.assert_allclose(people.poses3d_mm, expected[i].poses3d_mm, atol=1e-6)


def test_a_failing_detection_costs_one_frame_and_is_repeated():
    crowd = BackgroundCrowd(A)
    tracker = PersonTracker(crowd)
    crowd.fails = True
    for i in range(INTERVAL + 1):
        tracker.process([at_frame(i)])
    with pytest.raises(RuntimeError, match='the detector fails'):
        tracker.process([at_frame(INTERVAL + 1)])
    crowd.fails = False
    for i in (2, 3):
        (people,) = tracker.process([at_frame(INTERVAL + i)])
        assert people.ids.tolist() == [1]
    assert crowd.log[-3:] == ['start', 1, 1]


def test_a_box_shows_at_most_one_person():
    boxes_px = np.array([[0.0, 0, 10, 20], [2, 0, 10, 20], [100, 0, 10, 20]])
    others_px = np.array([[1.5, 0, 10, 20], [0, 100, 10, 20]])
    assert match_boxes(boxes_px, others_px).tolist() == [-1, 0, -1]
    assert match_boxes(boxes_px, others_px[:0]).tolist() == [-1] * 3
    assert match_boxes(boxes_px[:0], others_px).tolist() == []
