"""Person boxes, and the interface of box detectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray, StructOfArrays
from metrabs_ros.camera import Camera
from metrabs_ros.options import Options

DETECTOR_THRESHOLD = 0.3
MAX_CANDIDATES = 1000
"""Maximum number of boxes before NMS; its time and memory are quadratic in this number."""


@dataclasses.dataclass(frozen=True)
class Boxes(StructOfArrays):
    """
    N boxes of people.

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

    def highest_scores(self, max_count: int) -> Boxes:
        """Return the `max_count` boxes with the highest scores; all if it is negative."""
        if not 0 <= max_count < len(self):
            return self
        return self.select(np.argsort(-self.scores, kind='stable')[:max_count])

    def mirrored(self, image_width_px: int) -> Boxes:
        """Return the boxes mirrored about the vertical centre line of an image."""
        boxes_px = self.boxes_px.copy()
        boxes_px[:, 0] = image_width_px - boxes_px[:, 0] - boxes_px[:, 2]
        return Boxes(boxes_px, self.scores)

    def clipped_to(self, image_shape: tuple[int, ...]) -> Boxes:
        """Clip the boxes to an image, and drop those with less than a pixel inside it."""
        boxes_px, is_visible = clip_to_image(self.boxes_px, image_shape)
        return Boxes(boxes_px, self.scores).select(is_visible)

    def non_maximum_suppression(self, iou_threshold: float) -> Boxes:
        """Return the boxes that remain after NMS, in descending order of score."""
        # OpenCV drops boxes with a score of 0.
        scores = np.maximum(self.scores, np.finfo(np.float32).tiny)
        kept = cv2.dnn.NMSBoxes(self.boxes_px.tolist(), scores.tolist(), 0.0, float(iou_threshold))
        return self.select(np.array(kept, np.intp).reshape(-1))


def clip_to_image(
    boxes_px: FloatArray, image_shape: tuple[int, ...]
) -> tuple[FloatArray, BoolArray]:
    """
    Clip boxes to an image.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height.
    image_shape
        Height and width, further entries are ignored.

    Returns
    -------
    The clipped boxes [N, 4], and which of them have at least a pixel inside the image, [N].
    """
    limit_px = np.array(image_shape[1::-1], np.float64)
    low_px = np.clip(boxes_px[:, :2], 0, limit_px)
    high_px = np.clip(boxes_px[:, :2] + boxes_px[:, 2:], 0, limit_px)
    size_px = high_px - low_px
    return np.concatenate([low_px, size_px], axis=1), np.all(size_px >= 1, axis=1)


class BoxDetector(Protocol):
    """Interface of detectors of person boxes in an image."""

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """
        Detect people.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took the image.
        options
            Only the options for detection are used.

        Returns
        -------
        Boxes inside the image, in descending order of score.
        """
        ...


def detect_boxes(
    run_network: Callable[[ImageArray], Boxes], image: ImageArray, options: Options
) -> Boxes:
    """
    Run a detection network on an image and, if requested, its mirror image; filter the boxes.

    Parameters
    ----------
    run_network
        Returns all boxes that the network finds in an image, in image pixels.
    image
        [H, W, 3], uint8, RGB.
    options
        Only the options for detection are used.
    """
    boxes = run_network(image)
    if options.detector_flip_aug:
        flipped = run_network(np.ascontiguousarray(image[:, ::-1]))
        boxes = Boxes.concatenate([boxes, flipped.mirrored(image.shape[1])])
    return filter_boxes(boxes, image.shape, options)


def filter_boxes(boxes: Boxes, image_shape: tuple[int, ...], options: Options) -> Boxes:
    """
    Apply score threshold, NMS and maximum number of detections to a network's boxes.

    Parameters
    ----------
    boxes
        All boxes of the network, in image pixels.
    image_shape
        Height and width, further entries are ignored.
    options
        The score threshold, IoU threshold and maximum number of detections.
    """
    is_finite = np.isfinite(boxes.boxes_px).all(axis=1) & np.isfinite(boxes.scores)
    is_confident = boxes.scores >= options.detector_threshold_or(DETECTOR_THRESHOLD)
    boxes = boxes.select(is_finite & is_confident).clipped_to(image_shape)
    boxes = Boxes(boxes.boxes_px, np.clip(boxes.scores, 0, 1))
    candidates = boxes.highest_scores(MAX_CANDIDATES)
    kept = candidates.non_maximum_suppression(options.detector_nms_iou_threshold)
    return kept.highest_scores(options.max_detections)
