"""Boxes of exported detectors are converted to image pixels for all output layouts."""

from __future__ import annotations

import numpy as np
import pytest
from bright_box import LAYOUTS, LOWER_SCORE, SCORE, write_detector

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.onnx import OnnxDetector
from metrabs_ros.options import Options

SHAPE = (480, 640, 3)
BOX = [200, 100, 80, 160]


@pytest.fixture(params=LAYOUTS)
def detector(request, tmp_path):
    """Return a detector of each layout."""
    write_detector(tmp_path / 'a.onnx', request.param)
    return OnnxDetector(tmp_path / 'a.onnx')


@pytest.fixture
def yolo(tmp_path):
    """Return a detector with the YOLO layout."""
    write_detector(tmp_path / 'a.onnx', 'yolo')
    return OnnxDetector(tmp_path / 'a.onnx')


def image_with(*boxes, shape=SHAPE):
    image = np.zeros(shape, np.uint8)
    for left, top, width, height in boxes:
        image[top : top + height, left : left + width, 0] = 255
    return image


def detect(detector, image, **options):
    camera = Camera.from_fov(55, image.shape)
    return detector(image, camera, Options(**options))


@pytest.mark.slow
def test_the_box_is_detected_once_in_image_pixels(detector):
    boxes = detect(detector, image_with(BOX))
    # An input pixel is 7.5 image pixels.
    np.testing.assert_allclose(boxes.boxes_px, [BOX], atol=8)
    np.testing.assert_allclose(boxes.scores, [SCORE], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(480, 640, 3), (900, 300, 3), (50, 60, 3), (64, 96, 3)])
def test_the_aspect_ratio_of_images_is_preserved(yolo, shape):
    height, width = shape[:2]
    box = [width // 4, height // 4, width // 2, height // 2]
    boxes = detect(yolo, image_with(box, shape=shape))
    input_px = max(height / 64, width / 96, 1)
    np.testing.assert_allclose(boxes.boxes_px, [box], atol=1.1 * input_px)


def test_flip_augmentation_detects_the_same_box(yolo):
    boxes = detect(yolo, image_with(BOX), detector_flip_aug=True)
    np.testing.assert_allclose(boxes.boxes_px, [BOX], atol=8)


def test_thresholds_and_the_maximum_number_are_applied(yolo):
    image = image_with(BOX)
    assert len(detect(yolo, image, detector_threshold=0.95)) == 0
    both = detect(yolo, image, detector_nms_iou_threshold=1.0)
    np.testing.assert_allclose(both.scores, [SCORE, LOWER_SCORE], atol=1e-6)
    assert len(detect(yolo, image, detector_nms_iou_threshold=1.0, detector_threshold=0.85)) == 1
    assert len(detect(yolo, image, detector_nms_iou_threshold=1.0, max_detections=1)) == 1
    assert len(detect(yolo, image, max_detections=0)) == 0


def test_an_empty_image_has_no_detections(yolo):
    boxes = detect(yolo, image_with())
    assert boxes.boxes_px.shape == (0, 4)


def test_boxes_are_clipped_to_the_image(yolo):
    boxes = detect(yolo, image_with([560, 380, 80, 100]))
    assert (boxes.boxes_px[:, :2] + boxes.boxes_px[:, 2:] <= (640, 480)).all()


@pytest.mark.parametrize('content', [None, b'', b'not a network'])
def test_an_invalid_file_is_rejected_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(ValueError, match=r'detector .*a\.onnx is not'):
        OnnxDetector(tmp_path / 'a.onnx')


def test_metrabs_uses_the_detector(checkpoint_folder, tmp_path):
    write_detector(tmp_path / 'a.onnx', 'end to end')
    model = metrabs_ros.load_model(
        checkpoint_folder('s_centered'), detector=f'onnx:{tmp_path / "a.onnx"}'
    )
    boxes = model.detect_poses(image_with(BOX), suppress_implausible_poses=False)
    np.testing.assert_allclose(boxes['boxes'], [[*BOX, SCORE]], atol=8)
    assert boxes['poses3d'].shape == (1, 40, 3)


@pytest.mark.parametrize('name', ['yolo', 'onnx:', 'ultralytics:', 'movenet:x'])
def test_an_unknown_detector_is_named_in_the_error(checkpoint_folder, name):
    with pytest.raises(ValueError, match=f"detector is '{name}'; it must be one of auto, movenet"):
        metrabs_ros.load_model(checkpoint_folder('s_centered'), detector=name)
