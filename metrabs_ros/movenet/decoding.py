"""Decoding of MoveNet MultiPose: from the maps of its heads to people."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays, sigmoid
from metrabs_ros.detectors.boxes import MAX_CANDIDATES, clip_to_image
from metrabs_ros.movenet.network import STRIDE_PX, Heads
from metrabs_ros.skeletons.conventions import COCO_17

KEYPOINTS = 17
LOCAL_MAXIMUM_CELLS = 5
"""Side of the neighbourhood in which the centre of a person has the highest score."""
RELATIVE_VARIANCE = 0.3
"""Variance of the weight of keypoints around their approximate position, as a share of the
shorter side of the maps."""
MIN_POINT_SCORE = 0.15
"""Minimum score of a visible keypoint."""
PIXEL_CENTRE_PX = 0.5
"""The network counts pixels from their upper left corner, this package from their centre."""


@dataclasses.dataclass(frozen=True)
class Keypoints(StructOfArrays):
    """
    N people in the pixels of an image.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height.
    scores
        [N], score of the person's centre, from 0 to 1.
    points_px
        [N, 17, 2], keypoints of COCO, x and y.
    point_scores
        [N, 17], from 0 to 1.
    """

    boxes_px: FloatArray
    scores: FloatArray
    points_px: FloatArray
    point_scores: FloatArray

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.scores)

    @property
    def visible(self) -> BoolArray:
        """Whether the keypoints are visible, [N, 17]."""
        return np.asarray(self.point_scores > MIN_POINT_SCORE)

    def mirrored(self, image_width_px: int) -> Keypoints:
        """Return the people mirrored about the vertical centre line of an image."""
        boxes_px, points_px = self.boxes_px.copy(), self.points_px[:, COCO_17.mirror]
        boxes_px[:, 0] = image_width_px - boxes_px[:, 0] - boxes_px[:, 2]
        points_px[..., 0] = image_width_px - 1 - points_px[..., 0]
        return Keypoints(boxes_px, self.scores, points_px, self.point_scores[:, COCO_17.mirror])

    def turned_clockwise(self, image_width_px: int) -> Keypoints:
        """Return the people in an image turned by 90 degrees, and of a width after that."""
        left, top, width, height = self.boxes_px.T
        x, y = self.points_px[..., 0], self.points_px[..., 1]
        return Keypoints(
            np.stack([image_width_px - top - height, left, height, width], axis=1),
            self.scores,
            np.stack([image_width_px - 1 - y, x], axis=-1),
            self.point_scores,
        )

    def scaled(self, factors: ArrayLike) -> Keypoints:
        """
        Return the people in a resized image.

        Parameters
        ----------
        factors
            Ratio of the sizes of the images; [2], in x and y, or one number for both.
        """
        factors = np.broadcast_to(np.asarray(factors, np.float64), 2)
        points_px = (self.points_px + PIXEL_CENTRE_PX) * factors - PIXEL_CENTRE_PX
        return Keypoints(
            self.boxes_px * np.tile(factors, 2), self.scores, points_px, self.point_scores
        )

    def clipped_to(self, image_shape: tuple[int, ...]) -> Keypoints:
        """Clip the boxes to an image, and drop people with less than a pixel inside it."""
        boxes_px, is_visible = clip_to_image(self.boxes_px, image_shape)
        return dataclasses.replace(self, boxes_px=boxes_px).select(is_visible)


def decode(heads: Heads, threshold: float) -> Keypoints:
    """
    Return the people in the output of the network, in its input pixels.

    Boxes and keypoints are those of the published graph, with a limit of `MAX_CANDIDATES` people
    instead of six.  The scores are not: the graph multiplies the score of a person's centre by
    those of its keypoints, and scores a keypoint by the maximum over all keypoints at its cell.

    Parameters
    ----------
    heads
        Output of the network.
    threshold
        Minimum score of a person's centre.
    """
    centre_scores = sigmoid(heads.centre_logits)
    neighbourhood = np.ones((LOCAL_MAXIMUM_CELLS, LOCAL_MAXIMUM_CELLS), np.uint8)
    is_centre = centre_scores >= np.maximum(cv2.dilate(centre_scores, neighbourhood), threshold)
    cells = np.argwhere(is_centre)
    cells = cells[np.argsort(-centre_scores[is_centre], kind='stable')[:MAX_CANDIDATES]]
    at_centre = tuple(cells.T)
    low, high = _boxes(heads, cells)
    approximate = cells[:, None] + heads.keypoint_offsets[at_centre]
    point_probabilities = sigmoid(heads.keypoint_logits)
    points = np.zeros((len(cells), KEYPOINTS, 2))
    point_scores = np.zeros((len(cells), KEYPOINTS))
    for i in range(len(cells)):
        points[i], point_scores[i] = _keypoints(
            heads, point_probabilities, low[i], high[i], approximate[i]
        )
    boxes_px = STRIDE_PX * np.concatenate([low[:, ::-1], (high - low)[:, ::-1]], axis=1)
    return Keypoints(
        boxes_px,
        centre_scores[at_centre].astype(np.float64),
        STRIDE_PX * points[..., ::-1] - PIXEL_CENTRE_PX,
        point_scores,
    )


def _boxes(heads: Heads, cells: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the upper left and lower right corners of boxes, [N, 2] each, in cells."""
    at_centre = tuple(cells.T)
    centre = cells + heads.box_offsets[at_centre].astype(np.float64)
    half = np.maximum(heads.box_sizes[at_centre], 0) / 2
    limit = np.array(heads.centre_logits.shape)
    return np.clip(centre - half, 0, limit), np.clip(centre + half, 0, limit)


def _keypoints(
    heads: Heads,
    probabilities: FloatArray,
    low: FloatArray,
    high: FloatArray,
    approximate: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """
    Return the keypoints of a person, [17, 2], in cells, and their scores [17].

    A keypoint is the maximum of its probability, weighted by a Gaussian function of the distance
    to its approximate position, in the box.
    """
    (top, left), (bottom, right) = np.ceil(low).astype(int), np.ceil(high).astype(int)
    part = probabilities[top:bottom, left:right]
    if not part.size:
        return approximate, np.zeros(KEYPOINTS)
    variance = RELATIVE_VARIANCE * min(probabilities.shape[:2])
    y, x = np.arange(top, bottom), np.arange(left, right)
    # The Gaussian function of a distance is the product of those of its components.
    weight_y = np.exp(-((y[:, None] - approximate[:, 0]) ** 2) / variance)
    weight_x = np.exp(-((x[:, None] - approximate[:, 1]) ** 2) / variance)
    weighted = (part * weight_y[:, None] * weight_x).reshape(-1, KEYPOINTS)
    best = weighted.argmax(axis=0)
    rows, columns = top + best // part.shape[1], left + best % part.shape[1]
    each = np.arange(KEYPOINTS)
    cell = np.stack([rows, columns], axis=1)
    return cell + heads.keypoint_cell_offsets[rows, columns, each], weighted[best, each]
