"""Where people are, as boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.options import Options

DETECTOR_THRESHOLD = 0.3
LARGEST_CANDIDATE_COUNT = 1000
"""Before duplicates are merged, which takes time and memory by the square of the number."""


@dataclasses.dataclass(frozen=True)
class Boxes:
    """
    N people's boxes.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height.
    scores
        [N], from 0 to 1.
    """

    boxes_px: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.scores)

    def select(self, which: NDArray[Any] | slice) -> Boxes:
        """Return the boxes at an index array, mask or slice."""
        return Boxes(self.boxes_px[which], self.scores[which])

    def joined(self, other: Boxes) -> Boxes:
        """Return these boxes and others."""
        return Boxes(
            np.concatenate([self.boxes_px, other.boxes_px]),
            np.concatenate([self.scores, other.scores]),
        )

    def mirrored(self, image_width_px: int) -> Boxes:
        """Return the boxes of the mirror image."""
        boxes_px = self.boxes_px.copy()
        boxes_px[:, 0] = image_width_px - boxes_px[:, 0] - boxes_px[:, 2]
        return Boxes(boxes_px, self.scores)

    def within(self, image_shape: tuple[int, ...]) -> Boxes:
        """Return the parts inside of an image, of those that reach into it by a pixel or more."""
        limit_px = np.array(image_shape[1::-1], np.float64)
        low = np.clip(self.boxes_px[:, :2], 0, limit_px)
        high = np.clip(self.boxes_px[:, :2] + self.boxes_px[:, 2:], 0, limit_px)
        visible = np.all(high - low >= 1, axis=1)
        return Boxes(np.concatenate([low, high - low], axis=1), self.scores).select(visible)

    def non_maximum_suppression(self, iou_threshold: float) -> Boxes:
        """Return the surest of boxes that overlap by more, the surest first."""
        # OpenCV leaves out scores of 0, whatever they overlap.
        scores = np.maximum(self.scores, np.finfo(np.float32).tiny)
        kept = cv2.dnn.NMSBoxes(self.boxes_px.tolist(), scores.tolist(), 0.0, float(iou_threshold))
        return self.select(np.array(kept, np.intp).reshape(-1))


class BoxDetector(Protocol):
    """Finds people's boxes in an image."""

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """
        Find people.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took it.
        options
            Of these, what is said about detection.

        Returns
        -------
        Boxes inside of the image, the surest first.
        """
        ...


def look(find: Callable[[ImageArray], Boxes], image: ImageArray, options: Options) -> Boxes:
    """
    Return those of a network's boxes that count, of the mirror image, too, if that is asked for.

    Parameters
    ----------
    find
        Gives all boxes that the network finds in an image, in its pixels.
    image
        [H, W, 3], uint8, RGB.
    options
        Of these, what is said about detection.
    """
    found = find(image)
    if options.detector_flip_aug:
        flipped = find(np.ascontiguousarray(image[:, ::-1]))
        found = found.joined(flipped.mirrored(image.shape[1]))
    return chosen(found, image.shape, options)


def chosen(found: Boxes, image_shape: tuple[int, ...], options: Options) -> Boxes:
    """
    Return those of a network's boxes that count.

    Parameters
    ----------
    found
        All that the network gives, in image pixels.
    image_shape
        Height and width, further entries are ignored.
    options
        The threshold, how much boxes may overlap, and how many there may be.
    """
    finite = np.isfinite(found.boxes_px).all(axis=1) & np.isfinite(found.scores)
    sure = found.scores >= options.detector_threshold_or(DETECTOR_THRESHOLD)
    boxes = found.select(finite & sure).within(image_shape)
    boxes = Boxes(boxes.boxes_px, np.clip(boxes.scores, 0, 1))
    boxes = boxes.select(np.argsort(-boxes.scores, kind='stable')[:LARGEST_CANDIDATE_COUNT])
    boxes = boxes.non_maximum_suppression(options.detector_nms_iou_threshold)
    return boxes if options.max_detections < 0 else boxes.select(slice(options.max_detections))
