"""Choice of the image tiles in which new people are searched for, within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import Tile, all_tiles
from metrabs_ros.tracking.change_detection import Changes

TILES_PER_PERIOD, TILES_IF_ALL_CHANGES = 2, 4
"""Number of tiles in a budget period: usually, and if the whole image has changed."""
MAX_CHANGES = 3
"""Maximum number of changed areas that are searched, largest first."""


class RateBudget:
    """Converts fractional amounts to whole numbers; remainders are carried over."""

    def __init__(self) -> None:
        self._left = 0.0

    def take(self, amount: float) -> int:
        """Add an amount; return and remove the whole part of the sum."""
        self._left += amount
        # Differences of stamps are often slightly smaller than the frame period.
        whole = int(self._left + 1e-3)
        self._left -= whole
        return whole


class TileSearch:
    """
    Chooses tiles of each image: around lost people, around changes, and all others in turn.

    Parameters
    ----------
    image_shape
        Height and width of the images; further entries are ignored.
    """

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._everywhere = spread_out(all_tiles(image_shape))
        self._next = 0
        self._changes = Changes()
        self._due = RateBudget()
        self._count = 0

    def everywhere(self, image: ImageArray) -> list[Tile]:
        """Return all tiles, for the first image of a stream."""
        self._changes(image, np.zeros((0, 4)))
        return self._everywhere

    def share(self, image: ImageArray, interval: int) -> list[Tile]:
        """Return the next tiles of an image, such that `interval` images cover all tiles."""
        self._changes(image, np.zeros((0, 4)))
        return self._in_turn(-(-len(self._everywhere) // interval))

    def promising(
        self, image: ImageArray, boxes_px: FloatArray, lost: Sequence[Tile], periods: float
    ) -> list[Tile]:
        """
        Return the tiles of an image in which new people are most likely.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes_px
            [N, 4], left, top, width, height of the tracked people.
        lost
            Tiles around lost people.
        periods
            Number of budget periods since the last image, at most 1.
        """
        changed = self._changes(image, boxes_px)
        if changed is None:
            return self._in_turn(self._due.take(TILES_IF_ALL_CHANGES * periods))
        # Alternate between the kinds: the largest change may be a tree in the wind.
        kinds = [tiles for tiles in (lost, changed[:MAX_CHANGES]) if tiles]
        chosen = []
        for _ in range(self._due.take(max(TILES_PER_PERIOD, len(kinds) + 1) * periods)):
            cycle, kind = divmod(self._count, len(kinds) + 1)
            self._count += 1
            if kind < len(kinds):
                chosen.append(kinds[kind][cycle % len(kinds[kind])])
            else:
                chosen += self._in_turn(1)
        return chosen

    def _in_turn(self, count: int) -> list[Tile]:
        tiles = self._everywhere
        chosen = [tiles[(self._next + i) % len(tiles)] for i in range(min(count, len(tiles)))]
        self._next = (self._next + len(chosen)) % len(tiles)
        return chosen


def spread_out(tiles: list[Tile]) -> list[Tile]:
    """Order tiles so that successive ones are far apart and all sizes occur early."""
    # Multiples of the golden ratio modulo 1 are evenly distributed for every count.
    order = np.argsort((np.arange(len(tiles)) * 0.6180339887498949) % 1, kind='stable')
    return [tiles[i] for i in order]
