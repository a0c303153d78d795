"""New people are searched for everywhere in turn, and first where they may be."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.blazepose.detector import Tile, all_tiles
from metrabs_ros.tracking.tile_search import RateBudget, TileSearch, spread_out

IMAGE = np.full((480, 640, 3), 90, np.uint8)
NOBODY = np.zeros((0, 4))


def test_successive_tiles_are_far_apart():
    tiles = all_tiles((576, 768))
    order = spread_out(tiles)
    assert sorted(order, key=tiles.index) == tiles
    sizes = [tile.side_px for tile in order[:12]]
    assert len(set(sizes)) >= 2
    places = np.array([(tile.left_px, tile.top_px) for tile in order])
    assert np.linalg.norm(np.diff(places, axis=0), axis=-1).mean() > 150


def test_fractional_budgets_add_up():
    allowance = RateBudget()
    taken = [allowance.take(0.8) for _ in range(10)]
    assert sum(taken) == 8
    assert set(taken) == {0, 1}


def test_the_shares_of_an_interval_cover_all_tiles():
    search = TileSearch(IMAGE.shape)
    everywhere = search.everywhere(IMAGE)
    assert {tile for _ in range(7) for tile in search.share(IMAGE, 7)} == set(everywhere)


@pytest.mark.parametrize('periods', [1.0, 0.5, 1 / 3])
def test_changes_and_other_tiles_alternate_at_any_frame_rate(periods):
    search = TileSearch(IMAGE.shape)
    everywhere = set(search.everywhere(IMAGE))
    image, chosen = IMAGE.copy(), []
    for frame in range(round(10 / periods)):
        # Two alternately blinking lamps.
        image[100:160, 100:160] = 250 * (frame % 2)
        image[300:360, 400:460] = 250 * (1 - frame % 2)
        chosen += search.promising(image, NOBODY, [], periods)
    centres = {(t.left_px + t.side_px // 2, t.top_px + t.side_px // 2) for t in chosen}
    for lamp in ((130, 130), (430, 330)):
        assert any(np.hypot(x - lamp[0], y - lamp[1]) < 8 for x, y in centres)
    assert len(everywhere & set(chosen)) >= 8
    assert len(chosen) == pytest.approx(20, abs=1)


@pytest.mark.parametrize('periods', [1.0, 0.4])
def test_tiles_of_all_lost_people_are_searched(periods):
    search = TileSearch(IMAGE.shape)
    search.everywhere(IMAGE)
    lost = [Tile(10 * i, 7 * i, 111) for i in range(4)]
    chosen = []
    for _ in range(round(5 / periods)):
        chosen += search.promising(IMAGE, NOBODY, lost, periods)
    assert set(lost) <= set(chosen)


def test_the_budget_doubles_if_the_whole_image_changes():
    search = TileSearch(IMAGE.shape)
    search.everywhere(IMAGE)
    rng = np.random.default_rng(0)
    chosen = []
    for _ in range(5):
        noise = rng.integers(0, 255, IMAGE.shape, np.uint8)
        chosen += search.promising(noise, NOBODY, [], 1.0)
    assert len(chosen) == 20
    assert set(chosen) <= set(all_tiles(IMAGE.shape))
