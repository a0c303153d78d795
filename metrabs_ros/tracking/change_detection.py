"""Detection of changes in the images of a static camera, where new people may appear."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import MIN_TILE_PX, Tile

SMALL_PX = 160
"""Longer side of the image in which changes are detected."""
MIN_DIFFERENCE = 20
"""Minimum difference from the background, in 8-bit levels."""
LEARNING_RATE = 0.05
"""Weight of a frame in the running average that is the background."""
MAX_CHANGED_SHARE = 0.25
"""If a larger share of the image has changed, the camera or the illumination has changed."""
TRACK_MARGIN = 0.15
"""Margin around the boxes of tracks, as a share of their size; changes inside are ignored."""
MIN_AREA_SHARE = 0.001
"""Minimum area of a change, as a share of the image."""
TILE_MARGIN = 1.5
"""Side of a tile as a multiple of the change's, so that it contains the whole person."""


class Changes:
    """Detects changes in successive images outside of the boxes of tracks."""

    def __init__(self) -> None:
        self._background: NDArray[np.float32] | None = None

    def __call__(self, image: ImageArray, boxes_px: FloatArray) -> list[Tile] | None:
        """
        Return tiles around changed areas, the largest first; None if most of the image changed.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes_px
            [N, 4], left, top, width, height of the tracked people.
        """
        step = max(1, round(max(image.shape[:2]) / SMALL_PX))
        small = cv2.blur(image[::step, ::step, 1], (3, 3)).astype(np.float32)
        if self._background is None or self._background.shape != small.shape:
            self._background = small.copy()
        changed = (np.abs(small - self._background) > MIN_DIFFERENCE).astype(np.uint8)
        cv2.accumulateWeighted(small, self._background, LEARNING_RATE)
        for left, top, width, height in boxes_px / step:
            margin_x, margin_y = TRACK_MARGIN * width, TRACK_MARGIN * height
            rows = slice(max(0, int(top - margin_y)), max(0, int(top + height + margin_y) + 1))
            columns = slice(max(0, int(left - margin_x)), max(0, int(left + width + margin_x) + 1))
            changed[rows, columns] = 0
        if changed.mean() > MAX_CHANGED_SHARE:
            return None
        changed = cv2.dilate(changed, np.ones((5, 5), np.uint8))
        _, _, regions, _ = cv2.connectedComponentsWithStats(changed)
        # The first component is the unchanged background.
        regions = regions[1:][regions[1:, cv2.CC_STAT_AREA] > MIN_AREA_SHARE * changed.size]
        order = np.argsort(-regions[:, cv2.CC_STAT_AREA], kind='stable')
        return [_tile_around((step * regions[i, :4]).tolist()) for i in order]


def _tile_around(box_px: list[int]) -> Tile:
    left, top, width, height = box_px
    side = max(round(TILE_MARGIN * max(width, height)), MIN_TILE_PX)
    return Tile(left + (width - side) // 2, top + (height - side) // 2, side)
