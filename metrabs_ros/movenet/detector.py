"""Person detection with MoveNet MultiPose in images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray
from metrabs_ros.box_overlap import box_containment, box_iou
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.movenet.decoding import Keypoints, decode
from metrabs_ros.movenet.network import SIDE_MULTIPLE_PX, MoveNet
from metrabs_ros.options import DETECTOR_NMS_IOU, Options

THRESHOLD = 0.3
"""Minimum score of a person's centre."""
LARGE_PEOPLE_PX, SMALL_PEOPLE_PX = 256, 512
"""Longer side of the input in which people taller than half the image are found, and others."""
BOTH_SIDES_PX = (LARGE_PEOPLE_PX, SMALL_PEOPLE_PX)
MIN_SHARE = 0.2
"""Minimum height or width of a person, as a share of the longer side of the image, in passes other
than the largest.  Of smaller people, they often mix two, or the person and the background."""
DUPLICATE_DISTANCE = 0.15
"""Median distance of the keypoints of the same person, as a share of the size of its box."""
PART_CONTAINMENT, PART_AREA_RATIO = 0.8, 0.5
"""Minimum containment and maximum relative area of a box that shows a part of a person."""


class MoveNetDetector:
    """
    Detects people and their keypoints in an image, in one or several passes of the network.

    Parameters
    ----------
    network
        The network.
    """

    def __init__(self, network: MoveNet) -> None:
        self._network = network

    def __call__(
        self,
        image: ImageArray,
        threshold: float = THRESHOLD,
        nms_iou_threshold: float = DETECTOR_NMS_IOU,
        flip_aug: bool = False,
        sides_px: Sequence[int] = BOTH_SIDES_PX,
    ) -> Keypoints:
        """
        Detect people.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        threshold
            Minimum score of a person's centre.
        nms_iou_threshold
            Of two boxes with a higher IoU, the one with the lower score is suppressed.
        flip_aug
            Detect people also in the mirror image.
        sides_px
            Longer side of the network's input in each pass.

        Returns
        -------
        People in descending order of score.
        """
        passes = []
        for side_px in sides_px:
            resized, scale = resize_to(image, side_px)
            min_size_px = MIN_SHARE * side_px if side_px < max(sides_px) else 0.0
            found = [decode(self._network(resized), threshold)]
            if flip_aug:
                mirrored = decode(self._network(resized[:, ::-1]), threshold)
                found.append(mirrored.mirrored(resized.shape[1]))
            people = Keypoints.concatenate(*found)
            is_large = people.boxes_px[:, 2:].max(axis=1, initial=0) >= min_size_px
            passes.append(people.select(is_large).scaled(1 / scale))
        people = Keypoints.concatenate(*passes)
        people = people.select(np.argsort(-people.scores, kind='stable'))
        return people.select(~is_duplicate(people, nms_iou_threshold))


class MoveNetBoxes:
    """
    Box detector with MoveNet; see `BoxDetector`.

    Parameters
    ----------
    detector
        Detects people with keypoints.
    """

    def __init__(self, detector: MoveNetDetector) -> None:
        self._detector = detector

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Detect people; see `BoxDetector`."""
        people = self._detector(
            image,
            options.detector_threshold_or(THRESHOLD),
            options.detector_nms_iou_threshold,
            bool(options.detector_flip_aug),
        )
        boxes = Boxes(people.boxes_px, people.scores).clipped_to(image.shape)
        return boxes.highest_scores(options.max_detections)


def resize_to(image: ImageArray, side_px: int) -> tuple[ImageArray, float]:
    """
    Resize an image so that its longer side has a length, and pad it for the network.

    Returns
    -------
    [H, W, 3], uint8, with multiples of 32 as height and width, black at the right and bottom; and
    the ratio of the sizes.
    """
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    size = np.maximum(np.rint(np.array([width, height]) * scale), 1).astype(int)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, size.tolist(), interpolation=method)
    columns, rows = -size % SIDE_MULTIPLE_PX
    padded = cv2.copyMakeBorder(resized, 0, rows, 0, columns, cv2.BORDER_CONSTANT)
    return np.asarray(padded, np.uint8), scale


def is_duplicate(people: Keypoints, iou_threshold: float) -> BoolArray:
    """
    Return which people, in descending order of score, are shown by a person before them, [N].

    A person is detected twice by passes with different sizes, and in parts if it is too large for
    one of them.
    """
    boxes_px = people.boxes_px
    area_px2 = boxes_px[:, 2:].prod(axis=1)
    distance = keypoint_distance(people)
    same = (box_iou(boxes_px[:, None], boxes_px[None]) > iou_threshold) | (
        distance < DUPLICATE_DISTANCE
    )
    contained = box_containment(boxes_px[:, None], boxes_px[None]) > PART_CONTAINMENT
    is_part = contained & (area_px2[:, None] < PART_AREA_RATIO * area_px2)
    is_part &= distance < 2 * DUPLICATE_DISTANCE
    duplicate = np.zeros(len(people), bool)
    for i in range(len(people)):
        before = np.flatnonzero(~duplicate[:i])
        duplicate[i] = (same[i, before] | is_part[i, before]).any()
    return duplicate


def keypoint_distance(people: Keypoints) -> FloatArray:
    """Return the median distance of the keypoints, as a share of the smaller box, [N, N]."""
    points_px, size_px = people.points_px, np.linalg.norm(people.boxes_px[:, 2:], axis=1)
    apart_px = np.linalg.norm(points_px[:, None] - points_px[None], axis=-1)
    smaller_px = np.minimum(size_px[:, None], size_px[None])
    return np.asarray(np.median(apart_px, axis=-1) / np.maximum(smaller_px, 1e-6))
