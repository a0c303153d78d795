"""People are followed from frame to frame on a budget, and keep their ids."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.options import Options
from metrabs_ros.tracking.person_tracker import PeopleStream
from metrabs_ros.tracking.region_following import PeopleFollower
from metrabs_ros.tracking.tracker import Tracker

RATE_HZ = 10.0
CAMERA = Camera.from_fov(55, (576, 600))


def panned(street, shift_px):
    """Return what a camera of 600 x 576 pixels sees of the street, turned by some pixels."""
    return np.ascontiguousarray(street[:, shift_px : shift_px + 600])


class Stream:
    """Images at a steady rate."""

    def __init__(self, model, detect_interval=0, rate_hz=RATE_HZ):
        self.people = PeopleStream(PeopleFollower(model, Options(), detect_interval), Tracker())
        self.frames = 0
        self.rate_hz = rate_hz

    def __call__(self, image, camera=CAMERA):
        self.frames += 1
        return self.people(image, camera, self.frames / self.rate_hz)


def test_ids_stay_with_the_people_while_the_camera_pans(model, street):
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


def test_with_interval_1_everybody_is_looked_for_everywhere_in_each_frame(model, street):
    follow = Stream(model, detect_interval=1)
    for _ in range(3):
        follow(np.full_like(street, 90))
    assert not len(follow(street))
    follow(street)
    assert len(follow(street)) >= 5


def test_newcomers_are_found_by_the_time_all_tiles_had_their_turn(model, street):
    # All has changed at once, so that nothing says where to look first.
    follow = Stream(model, detect_interval=10)
    for _ in range(3):
        follow(np.full_like(street, 90))
    for _ in range(10 + 3):
        people = follow(street)
    assert len(people) >= 5


def test_ids_are_never_used_again(model, street):
    follow = Stream(model)
    first = set(follow(street).ids.tolist())
    follow.people.reset()
    assert len(follow(np.full_like(street, 90))) == 0
    follow.people.reset()
    second = set(follow(street).ids.tolist())
    assert first
    assert second
    assert not first & second


def test_another_image_size_starts_anew(model, street, player):
    follow = Stream(model)
    follow(street)
    follow.people.tracker.reset()
    assert len(follow(player, Camera.from_fov(55, player.shape))) == 1


@pytest.mark.parametrize('rate_hz', [10.0, 30.0])
@pytest.mark.parametrize(
    'box_px', [(331, 218, 38, 87), (623, 125, 21, 68), (41, 177, 20, 70), (536, 251, 46, 96)]
)
def test_who_comes_into_view_is_discovered_within_half_a_second(model, street, box_px, rate_hz):
    left, top, width, height = box_px
    somewhere = (slice(top - 5, top + height + 5), slice(left - 5, left + width + 5))
    empty = street.copy()
    empty[somewhere] = np.median(street[somewhere], axis=(0, 1))
    follow = Stream(model, rate_hz=rate_hz)
    for _ in range(12):
        assert not sees(follow(empty), box_px)
    frame = 1
    while not sees(follow(street), box_px):
        frame += 1
        assert frame / rate_hz <= 0.5


@pytest.fixture
def searched(model, monkeypatch):
    """Give the tiles searched so far."""
    tiles = []
    detect = model.detect

    def note(image, chosen, options):
        tiles.extend(chosen)
        return detect(image, chosen, options)

    monkeypatch.setattr(model, 'detect', note)
    return tiles


@pytest.mark.parametrize('rate_hz', [10.0, 12.5, 30.0])
def test_a_quick_camera_is_not_searched_more_than_one_with_10_frames_a_second(
    model, searched, rate_hz
):
    follow, empty = Stream(model, rate_hz=rate_hz), np.full((480, 640, 3), 90, np.uint8)
    follow(empty)
    searched.clear()
    for _ in range(round(rate_hz)):
        follow(empty)
    assert len(searched) == pytest.approx(20, abs=1)
    assert len(set(searched)) == len(searched)


def test_where_stamps_stand_still_each_frame_is_searched(model, searched):
    follow, empty = Stream(model, rate_hz=np.inf), np.full((480, 640, 3), 90, np.uint8)
    follow(empty)
    searched.clear()
    for _ in range(5):
        follow(empty)
    assert len(searched) == 10


def test_who_is_lost_at_the_edge_or_next_to_the_camera_is_searched_for(model, player):
    follow = Stream(model)
    camera = Camera.from_fov(55, player.shape)
    for _ in range(5):
        people = follow(player, camera)
    assert len(people) == 1
    # Whoever leaves at a run, by any edge, and comes ever nearer.
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


def test_of_two_men_neither_ones_trousers_are_a_third(model, office):
    follow, camera = Stream(model), Camera.from_fov(55, office.shape)
    for _ in range(40):
        assert len(follow(office, camera)) == 2


def sees(people, box_px):
    """Tell whether somebody is in the middle of a box."""
    centres_px = people.boxes_px[:, :2] + people.boxes_px[:, 2:] / 2
    off_px = np.abs(centres_px - (box_px[0] + box_px[2] / 2, box_px[1] + box_px[3] / 2))
    return bool((off_px < np.array(box_px[2:]) / 2).all(axis=1).any())
