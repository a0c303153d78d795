"""False detections are not multiplied; hidden people are extrapolated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import (
    IMAGE_SHAPE,
    INTRINSICS,
    PATTERNS,
    SCENES,
    add_noise,
    count_false_people,
    frames,
    people_from,
    standing_body,
)

from metrabs_ros.camera import Camera
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.detection_history import Attempts, DetectionHistory
from metrabs_ros.tracking.tracker import Tracker

CAMERA = Camera(INTRINSICS)
NO_PEOPLE = People.empty(COCO_17)
FRAMES = 160
POSITION_MM = np.array([300.0, 100.0, 5000.0])


def one_person(rng):
    return people_from(add_noise(POSITION_MM + standing_body()[None], rng), CAMERA)


@pytest.mark.slow
@pytest.mark.parametrize('rate_hz', [5, 10, 15, 30, 60])
@pytest.mark.parametrize('pattern', PATTERNS)
def test_false_people_are_not_published_more_often_than_detected(pattern, rate_hz):
    counts = count_false_people(pattern, rate_hz, FRAMES)
    assert (counts.detected > 0).all()
    assert (counts.published <= counts.detected).all()
    assert counts.real == FRAMES
    if pattern in ('random 1/3', 'random 1/5', 'every 3rd', 'every 5th'):
        assert counts.published.sum() <= 0.7 * counts.detected.sum()


def test_a_long_max_lost_does_not_multiply_false_people():
    tracker, rng = Tracker(max_lost=10.0), np.random.default_rng(0)
    present = rng.random(600) < 1 / 3
    published = sum(
        len(
            tracker.update(
                one_person(rng) if is_present else NO_PEOPLE, i / 15, CAMERA, IMAGE_SHAPE
            )
        )
        for i, is_present in enumerate(present)
    )
    assert published <= 0.7 * present.sum()


@pytest.mark.slow
@pytest.mark.parametrize('misses', [0.0, 0.05])
@pytest.mark.parametrize('max_lost', [0.5, 1.0, 3.0])
@pytest.mark.parametrize('rate_hz', [5, 10, 15, 30, 60])
def test_steadily_detected_people_are_extrapolated_for_max_lost(rate_hz, max_lost, misses):
    tracker, rng = Tracker(max_lost=max_lost), np.random.default_rng(1)
    shown = round(4 * rate_hz)
    for i in range(shown):
        seen = i == shown - 1 or rng.random() >= misses
        tracker.update(one_person(rng) if seen else NO_PEOPLE, i / rate_hz, CAMERA, IMAGE_SHAPE)
    last = shown + int(max_lost * rate_hz + 1e-6) - 2
    for i in range(shown, last):
        people = tracker.update(NO_PEOPLE, i / rate_hz, CAMERA, IMAGE_SHAPE)
        assert people.ids.tolist() == [1]
        assert people.seen.tolist() == [False]
    back = tracker.update(one_person(rng), last / rate_hz, CAMERA, IMAGE_SHAPE)
    assert back.ids.tolist() == [1]
    assert back.seen.tolist() == [True]


@pytest.mark.parametrize('rate_hz', [10, 15, pytest.param(30, marks=pytest.mark.slow)])
def test_people_behind_a_pillar_are_published(rate_hz):
    scene, tracker = SCENES['behind a pillar'](), Tracker()
    hidden, published = 0, 0
    for time_s, camera, detections in frames(scene, rate_hz, 20.0, seed=0):
        people = tracker.update(detections, time_s, camera, IMAGE_SHAPE)
        if time_s < 3:
            continue
        hidden_mm = scene.positions_mm(time_s)[~scene.is_visible(time_s)]
        apart_mm = np.linalg.norm(hidden_mm[:, None] - people.positions_mm, axis=-1)
        hidden += len(hidden_mm)
        published += int((apart_mm.min(axis=1, initial=np.inf) < 500).sum())
    assert hidden > rate_hz
    assert published >= 0.9 * hidden


def test_tracks_that_are_not_published_keep_their_ids():
    tracker, rng = Tracker(), np.random.default_rng(0)
    for i in range(5):
        people = tracker.update(one_person(rng), i / 30, CAMERA, IMAGE_SHAPE)
    assert people.ids.tolist() == [1]
    for i in range(5, 25):
        assert not len(tracker.update(NO_PEOPLE, i / 30, CAMERA, IMAGE_SHAPE))
    for i in range(25, 28):
        people = tracker.update(one_person(rng), i / 30, CAMERA, IMAGE_SHAPE)
    assert people.ids.tolist() == tracker.detection_ids.tolist() == [1]


def test_frames_without_an_attempt_are_no_misses():
    none_attempted = Attempts(np.zeros(0, np.int64))
    tracker, rng = Tracker(), np.random.default_rng(0)
    for i in range(120):
        attempted = i % 4 == 0
        people = tracker.update(
            one_person(rng) if attempted else NO_PEOPLE,
            i / 30,
            CAMERA,
            IMAGE_SHAPE,
            Attempts() if attempted else none_attempted,
        )
    assert people.ids.tolist() == [1]
    for i in range(120, 145):
        assert len(tracker.update(NO_PEOPLE, i / 30, CAMERA, IMAGE_SHAPE)) == 1


def test_poses_without_a_detector_do_not_confirm_tracks():
    tracker, rng = Tracker(), np.random.default_rng(0)
    followed = Attempts(np.array([1]), np.array([1]))
    published = 0
    for i in range(300):
        turn = i % 6
        detections = NO_PEOPLE if turn == 5 else one_person(rng)
        attempts = Attempts() if turn in (0, 5) else followed
        people = tracker.update(detections, i / 30, CAMERA, IMAGE_SHAPE, attempts)
        assert len(people) == people.seen.sum()
        published += len(people)
    assert published <= 300 / 2


masks = st.lists(st.sampled_from(['hit', 'missed', 'followed', '']), min_size=3, max_size=3)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1e-4, 1 / 60, 0.2, 3.0, 1e4]), masks), max_size=40),
    st.integers(1, 5),
)
def test_hit_ratios_stay_between_0_and_1(steps, min_hits):
    history, now_s = DetectionHistory.initial(3, 0.0), 0.0
    for step_s, outcomes in steps:
        now_s += step_s
        hit, missed, followed = (
            np.array([outcome == name for outcome in outcomes])
            for name in ('hit', 'missed', 'followed')
        )
        history.update(hit, missed, followed, now_s, min_hits)
        assert (history.hit_ratio >= 0).all()
        assert (history.hit_ratio <= 1).all()
        assert (history.confirming_hits >= 0).all()
        assert not (history.steady & (history.hit_ratio == 0)).any()
