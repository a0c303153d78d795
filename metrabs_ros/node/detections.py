"""Boxes that somebody else finds, from detection messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time

from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.messages.unusable import UnusableInput
from metrabs_ros.node.stamped import Stamped

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2DArray

PATIENCE_S = 0.5


class DetectionBook:
    """The detections that came, to be had for images by their stamps."""

    def __init__(self) -> None:
        self._messages: Stamped[Detection2DArray] = Stamped()

    def put(self, message: Detection2DArray) -> None:
        """Keep a message that came in."""
        self._messages.put(message)

    def wait_for(self, stamp: Time, patience_s: float = PATIENCE_S) -> Detection2DArray:
        """
        Return the detections in the image of a stamp.

        Raises
        ------
        UnusableInput
            If none come in time.
        """
        message = self._messages.wait_for(stamp, patience_s)
        if message is None:
            raise UnusableInput(
                'no detections',
                f'no detections of the stamp {stamp.sec}.{stamp.nanosec:09} came within '
                f"{patience_s} s of the image; does your detector keep the image's stamp?",
            )
        return message


def to_boxes(message: Detection2DArray, wanted_class: str, image_shape: tuple[int, ...]) -> Boxes:
    """
    Return the boxes of detections, as far as they lie in the image.

    Parameters
    ----------
    message
        The detections.
    wanted_class
        Only those whose surest class_id is this; '' for all.
    image_shape
        Height and width, further entries are ignored.
    """
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
    return scored.select(usable).within(image_shape)
