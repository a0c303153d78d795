"""Where a still camera's image has changed: who comes into view changes it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import MIN_TILE_PX, Tile

SMALL_PX = 160
CHANGED_LEVELS = 20
FORGETTING = 0.05
"""How much a frame counts in what is taken for the background."""
ALL_CHANGED = 0.25
"""Where more of the image has changed, it is the camera that moves, or the light."""
KNOWN_MARGIN = 0.15
SMALLEST_CHANGE = 0.001
TILE_MARGIN = 1.5
"""How much larger than what has changed a tile is to be, for its person to be found whole."""


class Changes:
    """Finds what changes in a stream of images outside of the people known."""

    def __init__(self) -> None:
        self._background: NDArray[np.float32] | None = None

    def __call__(self, image: ImageArray, boxes_px: FloatArray) -> list[Tile] | None:
        """
        Return tiles around what has changed, the largest first; None if everything has.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes_px
            [N, 4], left, top, width, height of people who are known.
        """
        step = max(1, round(max(image.shape[:2]) / SMALL_PX))
        small = cv2.blur(image[::step, ::step, 1], (3, 3)).astype(np.float32)
        if self._background is None or self._background.shape != small.shape:
            self._background = small.copy()
        changed = (np.abs(small - self._background) > CHANGED_LEVELS).astype(np.uint8)
        cv2.accumulateWeighted(small, self._background, FORGETTING)
        for left, top, width, height in boxes_px / step:
            margin_x, margin_y = KNOWN_MARGIN * width, KNOWN_MARGIN * height
            rows = slice(max(0, int(top - margin_y)), max(0, int(top + height + margin_y) + 1))
            columns = slice(max(0, int(left - margin_x)), max(0, int(left + width + margin_x) + 1))
            changed[rows, columns] = 0
        if changed.mean() > ALL_CHANGED:
            return None
        changed = cv2.dilate(changed, np.ones((5, 5), np.uint8))
        _, _, regions, _ = cv2.connectedComponentsWithStats(changed)
        # The first region is all that has not changed.
        regions = regions[1:][regions[1:, cv2.CC_STAT_AREA] > SMALLEST_CHANGE * changed.size]
        order = np.argsort(-regions[:, cv2.CC_STAT_AREA], kind='stable')
        return [_tile_around((step * regions[i, :4]).tolist()) for i in order]


def _tile_around(box_px: list[int]) -> Tile:
    left, top, width, height = box_px
    side = max(round(TILE_MARGIN * max(width, height)), MIN_TILE_PX)
    return Tile(left + (width - side) // 2, top + (height - side) // 2, side)
