"""Person detection with MoveNet MultiPose in images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray
from metrabs_ros.box_overlap import box_containment, box_iou
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import MAX_CANDIDATES, Boxes
from metrabs_ros.duplicates import are_near, keep_first
from metrabs_ros.image_pyramid import extract_part
from metrabs_ros.movenet.decoding import Keypoints, decode
from metrabs_ros.movenet.network import SIDE_MULTIPLE_PX, MoveNet
from metrabs_ros.options import DETECTOR_NMS_IOU, Options

THRESHOLD = 0.38
"""Minimum score of a person's centre."""
LARGE_PEOPLE_PX, SMALL_PEOPLE_PX = 256, 512
"""Longer side of the input in which people taller than half the image are found, and others."""
BOTH_SIDES_PX = (LARGE_PEOPLE_PX, SMALL_PEOPLE_PX)
MIN_SHARE = 0.2
"""Minimum height or width of a person, as a share of the longer side of the image, in the pass for
large people.  Of smaller people, it often mixes two, or the person and the background."""
DUPLICATE_DISTANCE = 0.15
"""Median distance of the keypoints of the same person, as a share of the size of its box."""
MIN_UP_IN_IMAGE = 0.3
"""Minimum length of the projection of the unit vector of the up direction on the image plane.
Otherwise, the camera looks up or down, and people have all directions in the image."""
PART_CONTAINMENT, PART_AREA_RATIO = 0.8, 0.5
"""Minimum containment and maximum relative area of a box that shows a part of a person."""
MIN_MEAN_POINT_SCORE = 0.05
"""Minimum mean score of the keypoints of a person that no other network confirms.  Most people
have more than 0.2, and most things that are detected as people with a low score have less."""


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
        quarter_turns: int = 0,
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
        quarter_turns
            From 0 to 3, how often the image is turned counterclockwise by 90 degrees, so that
            people are upright; see `quarter_turns_to_upright`.

        Returns
        -------
        People in descending order of score, with boxes inside the image.
        """
        passes = []
        size_px = np.array(image.shape[1::-1])
        image = extract_part(image, np.zeros_like(size_px), size_px, level=0)
        image = np.ascontiguousarray(np.rot90(image, quarter_turns))
        for side_px in sides_px:
            resized, factors = resize_to(image, side_px)
            min_size_px = MIN_SHARE * side_px if side_px <= LARGE_PEOPLE_PX else 0.0
            found = [decode(self._network(resized), threshold)]
            if flip_aug:
                mirrored = decode(self._network(resized[:, ::-1]), threshold)
                found.append(mirrored.mirrored(resized.shape[1]))
            people = Keypoints.concatenate(found)
            is_large = people.boxes_px[:, 2:].max(axis=1, initial=0) >= min_size_px
            passes.append(people.select(is_large).scaled(1 / factors))
        people = combine_passes([own.clipped_to(image.shape) for own in passes], nms_iou_threshold)
        for i in range(quarter_turns):
            people = people.turned_clockwise(image.shape[i % 2])
        return people


class MoveNetBoxes:
    """
    Box detector with MoveNet; see `BoxDetector`.

    People without distinct keypoints are left out.

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
            quarter_turns=quarter_turns_to_upright(camera),
        )
        people = people.select(people.point_scores.mean(axis=1) >= MIN_MEAN_POINT_SCORE)
        return Boxes(people.boxes_px, people.scores).highest_scores(options.max_detections)


def quarter_turns_to_upright(camera: Camera) -> int:
    """Return how often an image must be turned counterclockwise so that up is at the top."""
    right, down, _ = camera.up
    if np.hypot(right, down) < MIN_UP_IN_IMAGE:
        return 0
    return round(np.arctan2(right, -down) / (np.pi / 2)) % 4


def resize_to(image: ImageArray, side_px: int) -> tuple[ImageArray, FloatArray]:
    """
    Resize an image so that its longer side has a length, and pad it for the network.

    Returns
    -------
    [H, W, 3], uint8, with multiples of 32 as height and width, black at the right and bottom; and
    the ratios of the sizes in x and y.
    """
    size_px = np.array(image.shape[1::-1])
    resized_px = np.maximum(np.rint(size_px * (side_px / size_px.max())), 1).astype(int)
    method = cv2.INTER_AREA if side_px < size_px.max() else cv2.INTER_LINEAR
    resized = cv2.resize(image, resized_px.tolist(), interpolation=method)
    columns, rows = -resized_px % SIDE_MULTIPLE_PX
    padded = cv2.copyMakeBorder(resized, 0, rows, 0, columns, cv2.BORDER_CONSTANT)
    return np.asarray(padded, np.uint8), resized_px / size_px


def combine_passes(passes: Sequence[Keypoints], iou_threshold: float) -> Keypoints:
    """Return the people of one or more passes over an image once each, highest scores first."""
    people = Keypoints.concatenate(passes)
    people = people.select(np.argsort(-people.scores, kind='stable')[:MAX_CANDIDATES])
    return people.select(~is_duplicate(people, iou_threshold))


def is_duplicate(people: Keypoints, iou_threshold: float) -> BoolArray:
    """
    Return which people, in descending order of score, are shown by a person before them, [N].

    A person is detected twice by passes with different sizes, and in parts if it is too large for
    one of them.
    """
    boxes_px = people.boxes_px
    diagonals_px = np.linalg.norm(boxes_px[:, 2:], axis=1)
    limits_px = DUPLICATE_DISTANCE * np.minimum(diagonals_px[:, None], diagonals_px)
    area_px2 = boxes_px[:, 2:].prod(axis=1)
    is_part = box_containment(boxes_px[:, None], boxes_px) > PART_CONTAINMENT
    is_part &= area_px2[:, None] < PART_AREA_RATIO * area_px2
    is_part &= are_near(people.points_px, 2 * limits_px)
    is_same = box_iou(boxes_px[:, None], boxes_px) > iou_threshold
    is_same |= is_part | are_near(people.points_px, limits_px)
    return ~keep_first(is_same, np.arange(len(people)))
