"""BlazePose's person detector, applied to overlapping tiles to detect small people."""

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
from metrabs_ros.blazepose.crops import downsample_part
from metrabs_ros.blazepose.network import sigmoid
from metrabs_ros.blazepose.regions import Regions
from metrabs_ros.box_overlap import box_iou
from metrabs_ros.detectors.boxes import MAX_CANDIDATES
from metrabs_ros.image_pyramid import corner_aligned_scaling

INPUT_PX = 224
TILE_DIVISORS = (1, 2, 3)
TILE_STRIDE = 2 / 3
"""Maximum distance between adjacent tiles, as a share of their side."""
MIN_TILE_PX = 96
CENTRE_POINT, TOP_POINT = 0, 1
NEIGHBOUR_OFFSET = 0.6
"""Assumed distance between people walking side by side, in radii of their regions."""
NEIGHBOUR_SCORE = 0.5
"""Score of proposed detections next to other people."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A square part of an image that may extend beyond it: upper left pixel and side length."""

    left_px: int
    top_px: int
    side_px: int


@dataclasses.dataclass(frozen=True)
class RegionDetections:
    """
    N person detections.

    Parameters
    ----------
    regions
        N regions of interest, in image pixels.
    scores
        [N], from 0 to 1.
    """

    regions: Regions
    scores: FloatArray

    def select(self, which: NDArray[Any]) -> RegionDetections:
        """Return the detections selected by an index array or mask."""
        return RegionDetections(self.regions.select(which), self.scores[which])

    @classmethod
    def concatenate(cls, parts: Sequence[RegionDetections]) -> RegionDetections:
        """Concatenate one or more sets of detections."""
        return cls(
            Regions.concatenate(*(detections.regions for detections in parts)),
            np.concatenate([detections.scores for detections in parts]),
        )


class BlazePoseDetector:
    """
    Detector network: from image tiles to person detections.

    Parameters
    ----------
    model_file
        ``pose_detection.tflite``.
    threads
        Number of CPU threads; 0 uses one thread per core.
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
    ) -> RegionDetections:
        """
        Detect people in tiles of an image.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        tiles
            Tiles to search, for example `all_tiles`.
        threshold
            Minimum score, from 0 to 1.
        iou_threshold
            Detections are merged if the IoU of the squares around their regions is higher.
        flip_aug
            Also search the mirror image of each tile.
        """
        if not len(tiles):
            return _NO_DETECTIONS
        batch = np.stack([_network_input(image, tile) for tile in tiles])
        parts = self._decode(batch, tiles, threshold)
        if flip_aug:
            mirrored = np.ascontiguousarray(batch[:, :, ::-1])
            parts += self._decode(mirrored, tiles, threshold, mirrored=True)
        candidates = RegionDetections.concatenate(parts)
        best = np.argsort(-candidates.scores, kind='stable')[:MAX_CANDIDATES]
        return merge_duplicates(candidates.select(best), iou_threshold)

    def _decode(
        self,
        batch: NDArray[np.float32],
        tiles: Sequence[Tile],
        threshold: float,
        mirrored: bool = False,
    ) -> list[RegionDetections]:
        """Run the network on tiles [T, 224, 224, 3]; return detections in image pixels."""
        rows, logits = self._engine(batch)
        scores = sigmoid(logits[..., 0].astype(np.float64))
        parts = []
        for row, score, tile in zip(rows, scores, tiles):
            keep = score > threshold
            points = row[keep, 4:].reshape(-1, 4, 2) / INPUT_PX + self._anchors[keep, None]
            points = points[:, (CENTRE_POINT, TOP_POINT)]
            if mirrored:
                points = points * (-1, 1) + (1, 0)
            # The network's origin is the outer edge of the tile; elsewhere it is a pixel centre.
            points_px = points * tile.side_px + (tile.left_px, tile.top_px) - 0.5
            parts.append(RegionDetections(Regions(points_px[:, 0], points_px[:, 1]), score[keep]))
        return parts


def anchors() -> FloatArray:
    """Return the centres of the detector's 2254 anchors, [2254, 2], from 0 to 1."""
    layers = []
    for cells, anchors_per_cell in ((28, 2), (14, 2), (7, 6)):
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, anchors_per_cell, axis=0))
    return np.concatenate(layers)


def all_tiles(image_shape: tuple[int, ...]) -> list[Tile]:
    """
    Return tiles that cover an image.

    One tile encloses the image.  The others have the length of its shorter side, and 1/2 and 1/3
    of it.  Neighbouring tiles overlap by at least a third.  Tiles below 96 pixels are omitted.

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
        if side_px < MIN_TILE_PX:
            break
        tiles += [
            Tile(left_px, top_px, side_px)
            for top_px in _tile_starts(height, side_px)
            for left_px in _tile_starts(width, side_px)
        ]
    return list(dict.fromkeys(tiles))


def merge_duplicates(detections: RegionDetections, iou_threshold: float) -> RegionDetections:
    """
    Merge duplicate detections into their mean weighted by score, in descending order of score.

    Parameters
    ----------
    detections
        N detections.
    iou_threshold
        Detections are merged if the IoU of their squares is higher and their tilt is similar.
    """
    order = np.argsort(-detections.scores, kind='stable')
    regions, scores = detections.regions.select(order), detections.scores[order]
    alike = (square_iou(regions, regions) > iou_threshold) & _has_similar_tilt(regions)
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
    return RegionDetections(
        Regions(
            np.array([centre for centre, _, _ in merged]).reshape(-1, 2),
            np.array([top for _, top, _ in merged]).reshape(-1, 2),
        ),
        np.array([score for _, _, score in merged]),
    )


def guess_neighbours(regions: Regions, side: int) -> RegionDetections:
    """
    Propose a detection next to each person.

    The detector often merges people that walk side by side; the landmark network separates them.

    Parameters
    ----------
    regions
        Regions of N people.
    side
        1 for the right side in an upright image, -1 for the left side.
    """
    upright = regions.top_px - regions.centre_px
    shift_px = side * NEIGHBOUR_OFFSET * upright[:, ::-1] * (-1, 1)
    neighbours = Regions(regions.centre_px + shift_px, regions.top_px + shift_px)
    return RegionDetections(neighbours, np.full(len(regions), NEIGHBOUR_SCORE))


def square_iou(a: Regions, b: Regions) -> FloatArray:
    """Return the intersection over union [A, B] of the squares around regions."""
    return box_iou(a.squares_px()[:, None], b.squares_px()[None])


def _has_similar_tilt(regions: Regions) -> NDArray[np.bool_]:
    """Return which upright directions differ by less than 60 degrees, [N, N]."""
    upright = regions.top_px - regions.centre_px
    upright = upright / np.maximum(regions.radius_px, 1e-9)[:, None]
    return upright @ upright.T > 0.5


def _tile_starts(length_px: int, side_px: int) -> list[int]:
    """Return start positions of tiles that cover a length and overlap by at least a third."""
    count = int(np.ceil((length_px - side_px) / max(side_px * TILE_STRIDE, 1))) + 1
    return np.linspace(0, length_px - side_px, count).round().astype(int).tolist()


def _network_input(image: ImageArray, tile: Tile) -> NDArray[np.float32]:
    """Resize a tile to the network input [224, 224, 3], from -1 to 1, black outside the image."""
    factor = tile.side_px / INPUT_PX
    level = max(0, int(np.log2(factor)))
    ends_px = np.array([[tile.left_px, tile.top_px]]) + np.array([[0], [tile.side_px - 1]])
    low_px, part = downsample_part(image, ends_px, level)
    to_image = corner_aligned_scaling(factor)
    to_image[:2, 2] += tile.left_px, tile.top_px
    to_part = corner_aligned_scaling(0.5**level) @ to_image
    to_part[:2, 2] -= low_px
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized = cv2.warpAffine(part, to_part[:2], (INPUT_PX, INPUT_PX), flags=flags)
    return np.asarray(resized, np.float32) / 127.5 - 1


_NO_DETECTIONS = RegionDetections(Regions.none(), np.zeros(0))
