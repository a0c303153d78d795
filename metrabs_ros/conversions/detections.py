"""Conversion of vision_msgs/Detection2DArray to person boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.detectors.boxes import Boxes

MAX_MESSAGE_BYTES = 2**20
"""
Maximum size of a Detection2DArray message, in bytes.

A message of this size takes up to 0.5 s to deserialise.  It contains 1000 detections with one or
two hypotheses each.
"""
MAX_DETECTIONS = 1000
"""Maximum number of detections in a message."""
DEFAULT_MAX_PEOPLE = 100
"""Maximum number of poses estimated per image if the parameter max_detections is -1."""
MAX_HYPOTHESES = 10_000
"""Maximum number of hypotheses of all detections in a message."""
MAX_TEXT_CHARS = 100_000
"""Maximum total length of all ids, class_ids and frame_ids in a message."""


def is_too_large(message: Any) -> bool:
    """Return whether a Detection2DArray has too many detections, hypotheses or characters."""
    if len(message.detections) > MAX_DETECTIONS:
        return True
    if sum(len(detection.results) for detection in message.detections) > MAX_HYPOTHESES:
        return True
    return _text_chars(message) > MAX_TEXT_CHARS


def _text_chars(message: Any) -> int:
    """Return the total number of characters of all strings in a Detection2DArray."""
    count = len(message.header.frame_id)
    for detection in message.detections:
        count += len(detection.header.frame_id) + len(detection.id)
        count += sum(len(result.hypothesis.class_id) for result in detection.results)
    return count


def to_boxes(message: Any, class_id: str, image_shape: tuple[int, ...]) -> Boxes:
    """
    Return the boxes of detections, clipped to the image.

    Parameters
    ----------
    message
        A vision_msgs/Detection2DArray.
    class_id
        Keep only detections with this class_id in the best hypothesis; '' keeps all.
    image_shape
        Height and width in pixels; further entries are ignored.

    Returns
    -------
    Boxes [N, 4] in pixels and scores [N].  Boxes that are not finite, empty or outside of the
    image are left out.

    Raises
    ------
    UnusableInput
        If the message is too large.
    """
    if is_too_large(message):
        raise UnusableInput(
            'detections',
            f'a message has {len(message.detections)} detections; up to {MAX_DETECTIONS} with '
            f'{MAX_HYPOTHESES} hypotheses and {MAX_TEXT_CHARS} characters of text are processed; '
            'publish fewer detections or shorter texts',
        )
    rows, scores = [], []
    for detection in message.detections:
        best = max((r.hypothesis for r in detection.results), key=lambda h: h.score, default=None)
        if class_id and (best is None or best.class_id != class_id):
            continue
        centre, box = detection.bbox.center.position, detection.bbox
        rows.append((centre.x - box.size_x / 2, centre.y - box.size_y / 2, box.size_x, box.size_y))
        scores.append(1.0 if best is None else best.score)
    boxes = Boxes(np.array(rows, float).reshape(-1, 4), np.array(scores, float))
    usable = np.all(np.isfinite(boxes.boxes_px), axis=1)
    usable &= np.all(boxes.boxes_px[:, 2:] > 0, axis=1)
    scored = Boxes(boxes.boxes_px, np.clip(np.nan_to_num(boxes.scores, nan=0.0), 0, 1))
    # The sum of two large finite numbers may be infinite; it is clipped to the image.
    with np.errstate(over='ignore'):
        return scored.select(usable).clipped_to(image_shape)


def select_detections(
    boxes: Boxes, iou_threshold: float, max_detections: int
) -> tuple[Boxes, int]:
    """
    Select the boxes for pose estimation by non-maximum suppression and by score.

    Each pose takes milliseconds, so the number of boxes must be limited to limit the processing
    time of an image.

    Parameters
    ----------
    boxes
        Boxes in an image.
    iou_threshold
        IoU threshold of non-maximum suppression.
    max_detections
        Maximum number of boxes; those with the highest scores are kept.  -1 for
        `DEFAULT_MAX_PEOPLE`.

    Returns
    -------
    The selected boxes, and the number of boxes left out because of `DEFAULT_MAX_PEOPLE`.
    """
    suppressed = boxes.non_maximum_suppression(iou_threshold)
    if max_detections >= 0:
        return suppressed.highest_scores(max_detections), 0
    kept = suppressed.highest_scores(DEFAULT_MAX_PEOPLE)
    return kept, len(suppressed) - len(kept)
