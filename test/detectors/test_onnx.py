"""Exported detectors' boxes come out in image pixels, whatever the layout."""

from __future__ import annotations

import numpy as np
import pytest
from bright_box import LAYOUTS, SURE, UNSURE, write_detector

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
    """Return a detector of the usual layout."""
    write_detector(tmp_path / 'a.onnx', 'yolo')
    return OnnxDetector(tmp_path / 'a.onnx')


def picture(*boxes, shape=SHAPE):
    image = np.zeros(shape, np.uint8)
    for left, top, width, height in boxes:
        image[top : top + height, left : left + width, 0] = 255
    return image


def detect(detector, image, **options):
    camera = Camera.from_fov(55, image.shape)
    return detector(image, camera, Options(**options))


def test_the_box_is_found_once_in_image_pixels(detector):
    found = detect(detector, picture(BOX))
    # An input pixel is 7.5 image pixels.
    np.testing.assert_allclose(found.boxes_px, [BOX], atol=8)
    np.testing.assert_allclose(found.scores, [SURE], atol=0.01)


@pytest.mark.parametrize('shape', [(480, 640, 3), (900, 300, 3), (50, 60, 3), (64, 96, 3)])
def test_images_of_any_shape_keep_their_aspect(yolo, shape):
    height, width = shape[:2]
    box = [width // 4, height // 4, width // 2, height // 2]
    found = detect(yolo, picture(box, shape=shape))
    input_px = max(height / 64, width / 96, 1)
    np.testing.assert_allclose(found.boxes_px, [box], atol=1.1 * input_px)


def test_flip_augmentation_finds_the_same_box(yolo):
    found = detect(yolo, picture(BOX), detector_flip_aug=True)
    np.testing.assert_allclose(found.boxes_px, [BOX], atol=8)


def test_thresholds_choose(yolo):
    image = picture(BOX)
    assert len(detect(yolo, image, detector_threshold=0.95)) == 0
    both = detect(yolo, image, detector_nms_iou_threshold=1.0)
    np.testing.assert_allclose(both.scores, [SURE, UNSURE], atol=1e-6)
    assert len(detect(yolo, image, detector_nms_iou_threshold=1.0, detector_threshold=0.85)) == 1
    assert len(detect(yolo, image, detector_nms_iou_threshold=1.0, max_detections=1)) == 1
    assert len(detect(yolo, image, max_detections=0)) == 0


def test_nobody_is_found_where_nothing_is(yolo):
    found = detect(yolo, picture())
    assert found.boxes_px.shape == (0, 4)


def test_boxes_end_at_the_images_edge(yolo):
    found = detect(yolo, picture([560, 380, 80, 100]))
    assert (found.boxes_px[:, :2] + found.boxes_px[:, 2:] <= (640, 480)).all()


@pytest.mark.parametrize('content', [None, b'', b'not a network'])
def test_what_is_no_network_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(ValueError, match=r'detector .*a\.onnx is no'):
        OnnxDetector(tmp_path / 'a.onnx')


def test_metrabs_takes_it(checkpoint_folder, tmp_path):
    write_detector(tmp_path / 'a.onnx', 'end to end')
    model = metrabs_ros.load_model(
        checkpoint_folder('s_centered'), detector=f'onnx:{tmp_path / "a.onnx"}'
    )
    found = model.detect_poses(picture(BOX), suppress_implausible_poses=False)
    np.testing.assert_allclose(found['boxes'], [[*BOX, SURE]], atol=8)
    assert found['poses3d'].shape == (1, 40, 3)


@pytest.mark.parametrize('name', ['yolo', 'onnx:', 'ultralytics:', 'blazepose:x'])
def test_an_unknown_detector_is_named(checkpoint_folder, name):
    with pytest.raises(ValueError, match=f"detector '{name}' is none of auto, blazepose"):
        metrabs_ros.load_model(checkpoint_folder('s_centered'), detector=name)
