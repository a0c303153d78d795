"""Changes in the images of a static camera are detected outside of the boxes of tracks."""

from __future__ import annotations

import numpy as np

from metrabs_ros.tracking.change_detection import Changes

NOBODY = np.zeros((0, 4))


def noisy(image, rng):
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def test_a_tile_surrounds_a_person_entering_the_image(street):
    rng, changes = np.random.default_rng(0), Changes()
    for _ in range(5):
        assert changes(noisy(street, rng), NOBODY) == []
    entered = street.copy()
    entered[200:380, 300:360] = 255 - entered[200:380, 300:360]
    (tile,) = changes(noisy(entered, rng), NOBODY)
    assert tile.left_px <= 300
    assert tile.left_px + tile.side_px >= 360
    assert tile.top_px <= 200
    assert tile.top_px + tile.side_px >= 380
    assert tile.side_px < 400


def test_changes_within_boxes_of_tracks_are_ignored(street):
    changes = Changes()
    changes(street, NOBODY)
    moved = street.copy()
    moved[200:380, 300:360] = 0
    assert changes(moved, np.array([[300, 200, 60, 180.0]])) == []


def test_a_turning_camera_changes_the_whole_image(street):
    changes = Changes()
    changes(street, NOBODY)
    assert changes(np.roll(street, 60, axis=1), NOBODY) is None


def test_static_changes_become_background(street):
    changes = Changes()
    changes(street, NOBODY)
    parked = street.copy()
    parked[200:380, 300:360] = 0
    assert changes(parked, NOBODY)
    for _ in range(100):
        last = changes(parked, NOBODY)
    assert last == []


def test_another_image_size_resets_the_background(street, player):
    changes = Changes()
    changes(street, NOBODY)
    assert changes(player, NOBODY) == []
