"""BlazePose's person detector, on overlapping tiles so that it finds small people, too."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.openvino import OpenVinoEngine
from metrabs_ros.blazepose.crops import halved_part
from metrabs_ros.blazepose.network import sigmoid
from metrabs_ros.blazepose.regions import Regions
from metrabs_ros.detectors.boxes import LARGEST_CANDIDATE_COUNT
from metrabs_ros.image_pyramid import corner_aligned_scaling

INPUT_PX = 224
TILE_DIVISORS = (1, 2, 3)
TILE_STRIDE = 2 / 3
SMALLEST_TILE_PX = 96
CENTRE_POINT, TOP_POINT = 0, 1
SIDE_BY_SIDE = 0.6
"""How far from each other people walk who walk together, in radii of their circles."""
GUESS_SCORE = 0.5


@dataclasses.dataclass(frozen=True)
class Tile:
    """A square part of an image, which may reach beyond it: upper left pixel and side."""

    left_px: int
    top_px: int
    side_px: int


@dataclasses.dataclass(frozen=True)
class Detections:
    """
    People found.

    Parameters
    ----------
    circles
        N circles around the bodies, in image pixels.
    scores
        [N], from 0 to 1.
    """

    regions: Regions
    scores: FloatArray

    def select(self, which: NDArray[Any]) -> Detections:
        """Return the detections at an index array or mask."""
        return Detections(self.regions.select(which), self.scores[which])

    @classmethod
    def concatenate(cls, several: Sequence[Detections]) -> Detections:
        """Join several sets of detections, of which there is at least one."""
        return cls(
            Regions.concatenate(*(detections.regions for detections in several)),
            np.concatenate([detections.scores for detections in several]),
        )


class BlazePoseDetector:
    """
    The network, from an image's tiles to circles around people.

    Parameters
    ----------
    model_file
        ``pose_detection.tflite``.
    threads
        How many to use; 0 takes one for each core.
    precision
        ``fp32`` or ``bf16``.
    """

    def __init__(
        self, model_file: pathlib.Path, threads: int = 0, precision: str = 'fp32'
    ) -> None:
        self._engine = OpenVinoEngine(model_file, ('Identity', 'Identity_1'), threads, precision)
        self._anchors = anchors()

    def __call__(
        self,
        image: ImageArray,
        tiles: Sequence[Tile],
        threshold: float,
        iou_threshold: float,
        flip_aug: bool = False,
    ) -> Detections:
        """
        Look for people in some tiles of an image.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        tiles
            Where to look, for example `all_tiles`.
        threshold
            The lowest score that counts, from 0 to 1.
        iou_threshold
            Detections whose circles' squares overlap by more are merged.
        flip_aug
            Look at each tile's mirror image, too.
        """
        if not len(tiles):
            return _NOTHING
        batch = np.stack([_network_input(image, tile) for tile in tiles])
        found = self._decode(batch, tiles, threshold)
        if flip_aug:
            mirrored = np.ascontiguousarray(batch[:, :, ::-1])
            found += self._decode(mirrored, tiles, threshold, mirrored=True)
        candidates = Detections.concatenate(found)
        surest = np.argsort(-candidates.scores, kind='stable')[:LARGEST_CANDIDATE_COUNT]
        return merge_duplicates(candidates.select(surest), iou_threshold)

    def _decode(
        self,
        batch: NDArray[np.float32],
        tiles: Sequence[Tile],
        threshold: float,
        mirrored: bool = False,
    ) -> list[Detections]:
        """Run the network on tiles [T, 224, 224, 3] and bring what it finds to image pixels."""
        rows, logits = self._engine(batch)
        scores = sigmoid(logits[..., 0].astype(np.float64))
        found = []
        for row, score, tile in zip(rows, scores, tiles):
            keep = score > threshold
            points = row[keep, 4:].reshape(-1, 4, 2) / INPUT_PX + self._anchors[keep, None]
            points = points[:, (CENTRE_POINT, TOP_POINT)]
            if mirrored:
                points = points * (-1, 1) + (1, 0)
            # The network counts from the tile's outer edge, all else from a pixel's centre.
            points_px = points * tile.side_px + (tile.left_px, tile.top_px) - 0.5
            found.append(Detections(Regions(points_px[:, 0], points_px[:, 1]), score[keep]))
        return found


def anchors() -> FloatArray:
    """Return the centres of the detector's 2254 cells, [2254, 2], from 0 to 1."""
    layers = []
    for cells, anchors_per_cell in ((28, 2), (14, 2), (7, 6)):
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, anchors_per_cell, axis=0))
    return np.concatenate(layers)


def all_tiles(image_shape: tuple[int, ...]) -> list[Tile]:
    """
    Cover an image by square tiles: one around it, and those of its short side, 1/2 and 1/3 of it.

    Neighbours overlap by a third or more.  Tiles of less than 96 pixels are left out.

    Parameters
    ----------
    image_shape
        Height and width in pixels, further entries are ignored.
    """
    height, width = image_shape[:2]
    longer_px = max(height, width)
    tiles = [Tile((width - longer_px) // 2, (height - longer_px) // 2, longer_px)]
    for divisor in TILE_DIVISORS:
        side_px = min(height, width) // divisor
        if side_px < SMALLEST_TILE_PX:
            break
        tiles += [
            Tile(left_px, top_px, side_px)
            for top_px in _starts(height, side_px)
            for left_px in _starts(width, side_px)
        ]
    return list(dict.fromkeys(tiles))


def merge_duplicates(detections: Detections, iou_threshold: float) -> Detections:
    """
    Merge detections of the same person, the surest first, into their mean weighted by score.

    Parameters
    ----------
    detections
        N of them.
    iou_threshold
        Those whose circles' squares overlap by more are one, if they lean the same way.
    """
    order = np.argsort(-detections.scores, kind='stable')
    regions, scores = detections.regions.select(order), detections.scores[order]
    alike = (square_iou(regions, regions) > iou_threshold) & _leaning_alike(regions)
    left = np.ones(len(scores), bool)
    merged: list[tuple[FloatArray, FloatArray, float]] = []
    for i in range(len(scores)):
        if not left[i]:
            continue
        same = left & alike[i]
        same[i] = True
        left &= ~same
        weights = scores[same] / scores[same].sum()
        merged.append(
            (weights @ regions.centre_px[same], weights @ regions.top_px[same], scores[i])
        )
    return Detections(
        Regions(
            np.array([centre for centre, _, _ in merged]).reshape(-1, 2),
            np.array([rim for _, rim, _ in merged]).reshape(-1, 2),
        ),
        np.array([score for _, _, score in merged]),
    )


def guess_neighbours(regions: Regions, side: int) -> Detections:
    """
    Guess that there is somebody beside each of those who were found.

    The detector takes people who walk together for one; the landmark network tells them apart.

    Parameters
    ----------
    circles
        N people.
    side
        1 for the right in an upright image, -1 for the left.
    """
    upright = regions.top_px - regions.centre_px
    shift_px = side * SIDE_BY_SIDE * upright[:, ::-1] * (-1, 1)
    beside = Regions(regions.centre_px + shift_px, regions.top_px + shift_px)
    return Detections(beside, np.full(len(regions), GUESS_SCORE))


def square_iou(a: Regions, b: Regions) -> FloatArray:
    """Return the intersection over union [A, B] of the squares around circles."""
    a_radius, b_radius = a.radius_px[:, None], b.radius_px[None]
    apart = np.abs(a.centre_px[:, None] - b.centre_px[None])
    reach = (a_radius + b_radius)[..., None] - apart
    sides = np.clip(reach, 0, 2 * np.minimum(a_radius, b_radius)[..., None])
    intersection = sides.prod(axis=-1)
    union = 4 * a_radius**2 + 4 * b_radius**2 - intersection
    return intersection / np.maximum(union, 1e-9)


def _leaning_alike(regions: Regions) -> NDArray[np.bool_]:
    """Tell which circles' upright directions differ by less than 60 degrees, [N, N]."""
    upright = regions.top_px - regions.centre_px
    upright = upright / np.maximum(regions.radius_px, 1e-9)[:, None]
    return upright @ upright.T > 0.5


def _starts(length_px: int, side_px: int) -> list[int]:
    """Return where tiles start so that they cover a length and overlap by a third or more."""
    count = int(np.ceil((length_px - side_px) / max(side_px * TILE_STRIDE, 1))) + 1
    return np.linspace(0, length_px - side_px, count).round().astype(int).tolist()


def _network_input(image: ImageArray, tile: Tile) -> NDArray[np.float32]:
    """Scale a tile to the network's input [224, 224, 3], from -1 to 1, black beyond the image."""
    factor = tile.side_px / INPUT_PX
    level = max(0, int(np.log2(factor)))
    ends_px = np.array([[tile.left_px, tile.top_px]]) + np.array([[0], [tile.side_px - 1]])
    low_px, part = halved_part(image, ends_px, level)
    to_image = corner_aligned_scaling(factor)
    to_image[:2, 2] += tile.left_px, tile.top_px
    to_part = corner_aligned_scaling(0.5**level) @ to_image
    to_part[:2, 2] -= low_px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized = cv2.warpAffine(part, to_part[:2], (INPUT_PX, INPUT_PX), flags=flags)
    return np.asarray(resized, np.float32) / 127.5 - 1


_NOTHING = Detections(Regions.none(), np.zeros(0))
