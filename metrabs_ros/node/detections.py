"""Person boxes from detection messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.node.size_limited_subscription import OversizedMessage

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2DArray

MAX_MESSAGE_BYTES = 2**20
"""
Of a Detection2DArray that is deserialised, which takes up to 0.5 s.

It holds 1000 detections with one or two hypotheses each.
"""
MAX_DETECTIONS = 1000
DEFAULT_MAX_PEOPLE = 100
"""People whose poses are estimated in an image if max_detections sets no limit."""
MAX_HYPOTHESES = 10_000
"""Of all detections in a message."""
MAX_TEXT_CHARS = 100_000
"""Of all ids, class_ids and frame_ids in a message."""


def is_too_large(message: Any) -> bool:
    """Tell whether a Detection2DArray has more detections, hypotheses or text than allowed."""
    if len(message.detections) > MAX_DETECTIONS:
        return True
    if sum(len(detection.results) for detection in message.detections) > MAX_HYPOTHESES:
        return True
    return _chars(message) > MAX_TEXT_CHARS


def _chars(message: Any) -> int:
    """Return the number of characters of all texts in a Detection2DArray."""
    count = len(message.header.frame_id)
    for detection in message.detections:
        count += len(detection.header.frame_id) + len(detection.id)
        count += sum(len(result.hypothesis.class_id) for result in detection.results)
    return count


def to_boxes(
    message: Detection2DArray | OversizedMessage, wanted_class: str, image_shape: tuple[int, ...]
) -> Boxes:
    """
    Return the boxes of detections, as far as they lie in the image.

    Parameters
    ----------
    message
        The detections, or what is known of a message that was too large to be deserialised.
    wanted_class
        Only those whose hypothesis of the highest score has this class_id; '' for all.
    image_shape
        Height and width, further entries are ignored.

    Raises
    ------
    UnusableInput
        If there are too many, or if their texts are too long.
    """
    if isinstance(message, OversizedMessage):
        raise UnusableInput('detections', str(message))
    if is_too_large(message):
        raise UnusableInput(
            'detections',
            f'a message has {len(message.detections)} detections; up to {MAX_DETECTIONS} with '
            f'{MAX_HYPOTHESES} hypotheses and {MAX_TEXT_CHARS} characters of text are processed',
        )
    rows, scores = [], []
    for detection in message.detections:
        best = max((r.hypothesis for r in detection.results), key=lambda h: h.score, default=None)
        if wanted_class and (best is None or best.class_id != wanted_class):
            continue
        centre, box = detection.bbox.center.position, detection.bbox
        rows.append((centre.x - box.size_x / 2, centre.y - box.size_y / 2, box.size_x, box.size_y))
        scores.append(1.0 if best is None else best.score)
    boxes = Boxes(np.array(rows, float).reshape(-1, 4), np.array(scores, float))
    usable = np.all(np.isfinite(boxes.boxes_px), axis=1)
    usable &= np.all(boxes.boxes_px[:, 2:] > 0, axis=1)
    scored = Boxes(boxes.boxes_px, np.clip(np.nan_to_num(boxes.scores, nan=0.0), 0, 1))
    # The sum of two large finite numbers is infinite, and cut off at the image's edge.
    with np.errstate(over='ignore'):
        return scored.select(usable).clipped_to(image_shape)


def select_detections(
    boxes: Boxes, iou_threshold: float, max_detections: int
) -> tuple[Boxes, int]:
    """
    Return the boxes whose people's poses are estimated, and how many the default limit left out.

    Duplicates are suppressed as those of a detector are.  A pose takes milliseconds, so that the
    time for an image is bounded only with a limit of the number of people.

    Parameters
    ----------
    boxes
        In an image.
    iou_threshold
        Of non-maximum suppression.
    max_detections
        The largest number of boxes, those with the highest scores; -1 for `DEFAULT_MAX_PEOPLE`.
    """
    non_maximum_suppression = boxes.non_maximum_suppression(iou_threshold)
    if max_detections >= 0:
        return non_maximum_suppression.select(slice(max_detections)), 0
    kept = non_maximum_suppression.select(slice(DEFAULT_MAX_PEOPLE))
    return kept, len(non_maximum_suppression) - len(kept)
