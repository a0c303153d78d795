"""BlazePose in image streams: tracks are followed, new people are found within a budget."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.options import View
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

RATE_HZ = 10.0
CAMERA = Camera.from_fov(55, (576, 600))


def panned(street, shift_px):
    """Return the part of the street that a panned camera of 600 x 576 pixels sees."""
    return np.ascontiguousarray(street[:, shift_px : shift_px + 600])


class Stream:
    """Images at a constant rate."""

    def __init__(self, model, detect_interval=0, rate_hz=RATE_HZ):
        self.tracker = PersonTracker(model, detect_interval=detect_interval)
        self.frames = 0
        self.rate_hz = rate_hz

    def __call__(self, image, camera=CAMERA):
        self.frames += 1
        timed_view = TimedView(View(image, camera), self.frames / self.rate_hz)
        return self.tracker.process([timed_view])[0]


def test_people_keep_their_ids_while_the_camera_pans(model, street):
    follow = Stream(model)
    before = follow(panned(street, 0))
    for shift_px in range(4, 60, 4):
        after = follow(panned(street, shift_px))
    both = set(before.ids.tolist()) & set(after.ids.tolist())
    assert len(both) >= 3
    for person in both:
        x_before = before.poses2d_px[before.ids == person][0, 23:25, 0].mean()
        x_after = after.poses2d_px[after.ids == person][0, 23:25, 0].mean()
        assert x_after - x_before == pytest.approx(-shift_px, abs=8)


def test_interval_1_searches_all_tiles_in_each_frame(model, street):
    follow = Stream(model, detect_interval=1)
    for _ in range(3):
        follow(np.full_like(street, 90))
    assert not len(follow(street))
    follow(street)
    assert len(follow(street)) >= 5


def test_new_people_are_found_after_one_search_of_all_tiles(model, street):
    # The whole image changes at once, so that changes do not give the position.
    follow = Stream(model, detect_interval=10)
    for _ in range(3):
        follow(np.full_like(street, 90))
    for _ in range(10 + 3):
        people = follow(street)
    assert len(people) >= 5


def test_ids_are_not_reused(model, street):
    follow = Stream(model)
    first = set(follow(street).ids.tolist())
    follow.tracker.reset()
    assert len(follow(np.full_like(street, 90))) == 0
    follow.tracker.reset()
    second = set(follow(street).ids.tolist())
    assert first
    assert second
    assert not first & second


def test_another_image_size_resets_the_search(model, street, player):
    follow = Stream(model)
    follow(street)
    for _ in range(3):
        people = follow(player, Camera.from_fov(55, player.shape))
    assert len(people) == 1


@pytest.mark.slow
@pytest.mark.parametrize('rate_hz', [10.0, 30.0])
@pytest.mark.parametrize(
    'box_px', [(331, 218, 38, 87), (623, 125, 21, 68), (41, 177, 20, 70), (536, 251, 46, 96)]
)
def test_people_entering_the_image_are_found_within_half_a_second(model, street, box_px, rate_hz):
    left, top, width, height = box_px
    place = (slice(top - 5, top + height + 5), slice(left - 5, left + width + 5))
    empty = street.copy()
    empty[place] = np.median(street[place], axis=(0, 1))
    follow = Stream(model, rate_hz=rate_hz)
    for _ in range(12):
        assert not sees(follow(empty), box_px)
    frame = 1
    while not sees(follow(street), box_px):
        frame += 1
        assert frame / rate_hz <= 0.5


@pytest.fixture
def searched(model, monkeypatch):
    """Return the list of tiles that are searched."""
    tiles = []
    detect = model.detect

    def record(image, chosen, options):
        tiles.extend(chosen)
        return detect(image, chosen, options)

    monkeypatch.setattr(model, 'detect', record)
    return tiles


@pytest.mark.parametrize('rate_hz', [10.0, 12.5, 30.0])
def test_the_search_budget_does_not_depend_on_the_frame_rate(model, searched, rate_hz):
    follow, empty = Stream(model, rate_hz=rate_hz), np.full((480, 640, 3), 90, np.uint8)
    follow(empty)
    searched.clear()
    for _ in range(round(rate_hz)):
        follow(empty)
    assert len(searched) == pytest.approx(20, abs=1)
    assert len(set(searched)) == len(searched)


def test_each_frame_is_searched_if_stamps_do_not_advance(model, searched):
    follow, empty = Stream(model, rate_hz=np.inf), np.full((480, 640, 3), 90, np.uint8)
    follow(empty)
    searched.clear()
    for _ in range(5):
        follow(empty)
    assert len(searched) == 10


@pytest.mark.slow
def test_people_leaving_over_an_edge_or_near_the_camera_are_processed(model, player):
    follow = Stream(model)
    camera = Camera.from_fov(55, player.shape)
    for _ in range(5):
        people = follow(player, camera)
    assert len(people) == 1
    # A person leaves quickly over each edge, while coming nearer.
    for shift in ((60, 0), (-60, 0), (0, 60), (0, -60)):
        moving = Stream(model)
        for i in range(8):
            size = 1 + 0.2 * i
            large = cv2.resize(player, None, fx=size, fy=size)
            large = np.roll(large, (shift[1] * i, shift[0] * i), axis=(0, 1))
            height, width = player.shape[:2]
            moving(np.ascontiguousarray(large[:height, :width]), camera)
        moving(np.full_like(player, 90), camera)
        moving(np.full_like(player, 90), camera)


def test_body_parts_of_two_people_are_not_a_third_person(model, office):
    follow, camera = Stream(model), Camera.from_fov(55, office.shape)
    for _ in range(40):
        assert len(follow(office, camera)) == 2


def sees(people, box_px):
    """Tell whether the centre of a person's box is in the middle of a box."""
    centres_px = people.boxes_px[:, :2] + people.boxes_px[:, 2:] / 2
    off_px = np.abs(centres_px - (box_px[0] + box_px[2] / 2, box_px[1] + box_px[3] / 2))
    return bool((off_px < np.array(box_px[2:]) / 2).all(axis=1).any())
