"""Where in a stream's images to search for new people, on a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import Tile, all_tiles
from metrabs_ros.tracking.change_detection import Changes

TILES_PER_TURN, TILES_WHEN_ALL_CHANGES = 2, 4
LARGEST_CHANGES = 3


class RateBudget:
    """Makes whole numbers of fractions: what is left over counts the next time."""

    def __init__(self) -> None:
        self._left = 0.0

    def take(self, amount: float) -> int:
        """Return how many whole ones there are with this amount more."""
        self._left += amount
        # A tenth of a second often is a little less.
        whole = int(self._left + 1e-3)
        self._left -= whole
        return whole


class TileSearch:
    """
    Chooses tiles of each image: where somebody was lost, what has changed, and in turn everywhere.

    Parameters
    ----------
    image_shape
        Of the stream's images: height and width, further entries are ignored.
    """

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._everywhere = spread_out(all_tiles(image_shape))
        self._next = 0
        self._changes = Changes()
        self._due = RateBudget()
        self._given = 0

    def everywhere(self, image: ImageArray) -> list[Tile]:
        """Return all tiles, for the first image."""
        self._changes(image, np.zeros((0, 4)))
        return self._everywhere

    def share(self, image: ImageArray, interval: int) -> list[Tile]:
        """Return the tiles of an image of which so many make up everywhere."""
        self._changes(image, np.zeros((0, 4)))
        return self._in_turn(-(-len(self._everywhere) // interval))

    def promising(
        self, image: ImageArray, boxes_px: FloatArray, lost: Sequence[Tile], turns: float
    ) -> list[Tile]:
        """
        Return few tiles, first those where somebody new may be.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes_px
            [N, 4], left, top, width, height of those known.
        lost
            Where somebody may be found again.
        turns
            How much of a turn this image has.
        """
        changed = self._changes(image, boxes_px)
        if changed is None:
            return self._in_turn(self._due.take(TILES_WHEN_ALL_CHANGES * turns))
        # One after the other: the largest change may be a tree in the wind.
        kinds = [tiles for tiles in (lost, changed[:LARGEST_CHANGES]) if tiles]
        chosen = []
        for _ in range(self._due.take(max(TILES_PER_TURN, len(kinds) + 1) * turns)):
            time, kind = divmod(self._given, len(kinds) + 1)
            self._given += 1
            if kind < len(kinds):
                chosen.append(kinds[kind][time % len(kinds[kind])])
            else:
                chosen += self._in_turn(1)
        return chosen

    def _in_turn(self, count: int) -> list[Tile]:
        tiles = self._everywhere
        chosen = [tiles[(self._next + i) % len(tiles)] for i in range(min(count, len(tiles)))]
        self._next = (self._next + len(chosen)) % len(tiles)
        return chosen


def spread_out(tiles: list[Tile]) -> list[Tile]:
    """Order tiles so that those in a row lie far apart and each size has its turn early."""
    # The golden ratio's multiples, modulo 1, fill an interval evenly at every length.
    turns = np.argsort((np.arange(len(tiles)) * 0.6180339887498949) % 1, kind='stable')
    return [tiles[i] for i in turns]
