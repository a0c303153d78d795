"""People are followed from frame to frame on a budget, and keep their ids."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.detectors.blazepose import all_tiles
from metrabs_ros.tracking.follow import PeopleFollower, spread_out


def panned(street, shift_px):
    """Return what a camera of 600 x 576 pixels sees of the street, turned by some pixels."""
    return np.ascontiguousarray(street[:, shift_px : shift_px + 600])


CAMERA = Camera.from_fov(55, (576, 600))


def test_ids_stay_with_the_people_while_the_camera_pans(model, street):
    follow = PeopleFollower(model)
    before = follow(panned(street, 0), CAMERA)
    for shift_px in range(4, 60, 4):
        after = follow(panned(street, shift_px), CAMERA)
    both = set(before.ids.tolist()) & set(after.ids.tolist())
    assert len(both) >= 3
    for person in both:
        x_before = before.poses2d_px[before.ids == person][0, 23:25, 0].mean()
        x_after = after.poses2d_px[after.ids == person][0, 23:25, 0].mean()
        assert x_after - x_before == pytest.approx(-shift_px, abs=6)


def test_newcomers_are_found_by_the_time_all_tiles_had_their_turn(model, street):
    follow = PeopleFollower(model, tiles_per_frame=4)
    empty = np.full_like(street, 90)
    assert len(follow(empty, CAMERA)) == 0
    for _ in range(len(all_tiles(street.shape)) // 4 + 1):
        people = follow(street, CAMERA)
    assert len(people) >= 5


def test_ids_are_never_used_again(model, street):
    follow = PeopleFollower(model)
    first = set(follow(street, CAMERA).ids.tolist())
    assert len(follow(np.full_like(street, 90), CAMERA)) == 0
    follow.forget()
    second = set(follow(street, CAMERA).ids.tolist())
    assert first
    assert second
    assert not first & second


def test_another_image_size_starts_anew(model, street, player):
    follow = PeopleFollower(model)
    follow(street, CAMERA)
    assert len(follow(player, Camera.from_fov(55, player.shape))) == 1


def test_tiles_in_a_row_lie_far_apart():
    tiles = all_tiles((576, 768))
    order = spread_out(tiles)
    assert sorted(order, key=tiles.index) == tiles
    sizes = [tile.side_px for tile in order[:12]]
    assert len(set(sizes)) >= 2
    places = np.array([(tile.left_px, tile.top_px) for tile in order])
    assert np.linalg.norm(np.diff(places, axis=0), axis=-1).mean() > 150
