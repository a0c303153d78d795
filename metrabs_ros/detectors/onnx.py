"""Person detectors of the YOLO and DETR families, exported to ONNX and run by OpenVINO."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.openvino import compile_for_cpu, create_core, error_summary
from metrabs_ros.camera import Camera
from metrabs_ros.detectors import trial
from metrabs_ros.detectors.boxes import Boxes, detect_boxes
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import Options
from metrabs_ros.regular_file import open_regular, shown

DEFAULT_SIDE_PX = 640
MIN_SIDE_PX, MAX_SIDE_PX = 16, 4096
MAX_REASON_CHARS = 200
PADDING_GREY = 114
PERSON_CLASS = 0
"""Index of the class person in COCO's list without gaps; in the list of 91 classes it is 1."""
CLASS_COUNTS_WITH_GAPS = (91, 92)
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
ROW_LENGTHS = (84, 85)
"""Values per box with COCO's 80 classes, without and with an objectness score."""
MAX_NORMALISED_COORDINATE = 2.0
"""Coordinates up to this limit are relative to the input size, larger ones are in pixels."""


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """
    Transform of an image to a network's input.

    Parameters
    ----------
    scale
        Input pixels for each image pixel.
    left_px, top_px
        Position of the image's upper left corner in the input.
    """

    scale: float
    left_px: int
    top_px: int

    def to_image(self, corners_px: FloatArray) -> FloatArray:
        """Map corners [N, 4], x1, y1, x2, y2, in the input to left, top, width, height."""
        offset = np.array([self.left_px, self.top_px] * 2)
        # Corners that are not finite are filtered later.
        with np.errstate(invalid='ignore', over='ignore'):
            corners = (corners_px - offset) / self.scale
            return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


class OnnxDetector:
    """
    Person detector that runs an ONNX file.

    The network input is one RGB image [1, 3, H, W] from 0 to 1.  The output is one of:
    [1, 4 + C, N] (YOLO from version 8 on), [1, N, 5 + C] (YOLO to version 7, with an objectness
    score), [1, N, 4 + C] with coordinates from 0 to 1 (RT-DETR), [1, N, 6] (end-to-end: corners,
    score, class), or boxes [1, N, 4] and logits [1, N, C] (DETR, RF-DETR).

    Parameters
    ----------
    model_file
        An ``.onnx`` file.
    threads
        Number of CPU threads; 0 uses one thread per core.

    Raises
    ------
    ValueError
        If the file is missing, is not ONNX, has other inputs or outputs, or cannot be run.
    ImportError
        If the package openvino is not installed.
    """

    def __init__(self, model_file: pathlib.Path, threads: int = 0) -> None:
        create_core()  # Raises an ImportError if openvino is not installed.
        try:
            open_regular(model_file).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f'detector {shown(model_file)} is not a readable file: '
                f'{printable(error, MAX_REASON_CHARS)}'
            ) from error
        trial.run(model_file, threads)
        self._load(model_file, threads)

    @classmethod
    def load_unchecked(cls, model_file: pathlib.Path, threads: int) -> OnnxDetector:
        """Load a network without a trial; a hostile file can terminate this process."""
        detector = cls.__new__(cls)
        detector._load(model_file, threads)
        return detector

    def _load(self, model_file: pathlib.Path, threads: int) -> None:
        self._model_file = model_file
        try:
            network, self._input_px = _read_network(model_file)
            self._request = compile_for_cpu(create_core(), network, threads).create_infer_request()
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(
                f'detector {shown(model_file)} is not an ONNX file of a network with one image '
                f'[1, 3, H, W] as input: {error_summary(error)}'
            ) from error
        last_sizes = [list(output.partial_shape)[-1:] for output in network.outputs]
        self._normalises = any(
            size.is_static and size.get_length() in CLASS_COUNTS_WITH_GAPS
            for sizes in last_sizes
            for size in sizes
        )
        # Reject unsupported outputs when loading, not at the first image.
        self._run_network(np.zeros((*self._input_px, 3), np.uint8))

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Detect people; see `BoxDetector`."""
        return detect_boxes(self._run_network, image, options)

    def _run_network(self, image: ImageArray) -> Boxes:
        batch, letterbox = self._network_input(image)
        try:
            self._request.infer({0: batch})
        except RuntimeError as error:
            raise ValueError(
                f'detector {shown(self._model_file)} cannot be run: {error_summary(error)}'
            ) from error
        outputs = [
            np.array(self._request.get_output_tensor(i).data, np.float64)
            for i in range(len(self._request.model_outputs))
        ]
        corners, scores = self._decode(outputs)
        return Boxes(letterbox.to_image(corners), scores)

    def _network_input(self, image: ImageArray) -> tuple[FloatArray, Letterbox]:
        """Resize an image to the network's input, with its aspect ratio preserved."""
        height, width = self._input_px
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        padded = np.full((height, width, 3), PADDING_GREY, np.uint8)
        padded[top : top + size[1], left : left + size[0]] = resized
        colours = padded.astype(np.float32) / np.float32(255)
        if self._normalises:
            colours = (colours - IMAGENET_MEAN) / IMAGENET_STD
        batch = np.ascontiguousarray(colours.transpose(2, 0, 1)[None])
        return batch, Letterbox(scale, left, top)

    def _decode(self, outputs: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Return corners [N, 4] in input pixels and scores [N] of the class person."""
        if len(outputs) == 1 and outputs[0].ndim == 3:
            (rows,) = outputs[0]
            channels_first = rows.shape[0] in ROW_LENGTHS or 4 < rows.shape[0] < rows.shape[1]
            if rows.shape[1] == 6 and rows.shape[0] not in ROW_LENGTHS:
                return self._decode_end_to_end(rows)
            if channels_first and rows.shape[1] not in ROW_LENGTHS:
                return self._to_pixels(rows[:4].T), rows[4 + PERSON_CLASS]
            if rows.shape[1] > 6:
                return self._decode_rows(rows)
        if len(outputs) == 2 and all(output.ndim == 3 for output in outputs):
            boxes, logits = (output[0] for output in outputs)
            if boxes.shape[1] != 4:
                boxes, logits = logits, boxes
            if boxes.shape[1] == 4:
                return self._to_pixels(boxes), _person_scores(logits)
        raise ValueError(
            f'detector {shown(self._model_file)} has outputs of shape '
            f'{printable([output.shape for output in outputs], 200)}; expected is '
            '[1, 4 + classes, N], [1, N, 4 + classes], [1, N, 6], or boxes [1, N, 4] and logits'
        )

    def _decode_end_to_end(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        people = rows[rows[:, 5].round() == PERSON_CLASS]
        return people[:, :4] * self._unit_px(people[:, :4]), people[:, 4]

    def _decode_rows(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        corners = self._to_pixels(rows[:, :4])
        if rows[:, :4].max(initial=0) <= MAX_NORMALISED_COORDINATE:
            return corners, rows[:, 4 + PERSON_CLASS]
        return corners, rows[:, 4] * rows[:, 5 + PERSON_CLASS]

    def _to_pixels(self, centred: FloatArray) -> FloatArray:
        """Convert centres and sizes [N, 4] to corners in input pixels."""
        half = centred[:, 2:] / 2
        corners = np.concatenate([centred[:, :2] - half, centred[:, :2] + half], axis=1)
        return corners * self._unit_px(centred)

    def _unit_px(self, coordinates: FloatArray) -> FloatArray:
        """Return the input pixels that correspond to a coordinate of 1, [4]."""
        height, width = self._input_px
        is_normalised = coordinates.max(initial=0) <= MAX_NORMALISED_COORDINATE
        return np.array([width, height] * 2, np.float64) if is_normalised else np.ones(4)


def _read_network(model_file: pathlib.Path) -> tuple[Any, tuple[int, int]]:
    """Read a network and set its input to one image; return the network and the image size."""
    network = create_core().read_model(model_file)
    shape = network.input().partial_shape
    height, width = (
        shape[i].get_length() if shape[i].is_static else DEFAULT_SIDE_PX for i in (2, 3)
    )
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (height, width)):
        raise ValueError(
            f'detector {shown(model_file)} takes images of {width} x {height} pixels; the sides '
            f'must be from {MIN_SIDE_PX} to {MAX_SIDE_PX}'
        )
    network.reshape([1, 3, height, width])
    return network, (height, width)


def _person_scores(logits: FloatArray) -> FloatArray:
    """Return the probability of the class person, [N], from logits [N, C]."""
    classes = logits.shape[1]
    person = 1 if classes in CLASS_COUNTS_WITH_GAPS else PERSON_CLASS
    if classes == max(CLASS_COUNTS_WITH_GAPS):
        # DETR uses softmax with an additional last class "no object".
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials[:, person] / exponentials.sum(axis=1)
    return 1 / (1 + np.exp(-np.clip(logits[:, person], -80, 80)))
