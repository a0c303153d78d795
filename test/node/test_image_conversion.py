"""Images are converted with cv_bridge, or with OpenCV where cv_bridge is not able to."""

from __future__ import annotations

import sys

import cv_bridge
import numpy as np
import pytest
from sensor_msgs.msg import Image

from metrabs_ros.conversions import images
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node import image_conversion

ENCODINGS = {
    'mono16': (np.uint16, 1),
    'rgb16': (np.uint16, 3),
    'bgra16': (np.uint16, 4),
    'yuv422': (np.uint8, 2),
    'yuv422_yuy2': (np.uint8, 2),
    'bayer_rggb8': (np.uint8, 1),
    'bayer_gbrg16': (np.uint16, 1),
}


@pytest.fixture(autouse=True)
def _separate_bridge():
    image_conversion._bridge.cache_clear()
    yield
    image_conversion._bridge.cache_clear()


def image_of(encoding, width=32, height=24):
    dtype, channels = ENCODINGS.get(encoding, (np.uint16, 1))
    limit = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, limit, (height, width, channels), dtype)
    message = Image(height=height, width=width, encoding=encoding)
    message.step = width * channels * pixels.itemsize
    message.data = pixels.tobytes()
    return message


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_cv_bridge_gives_the_colours_of_opencv(encoding, monkeypatch):
    converted = []
    convert = cv_bridge.CvBridge.imgmsg_to_cv2

    def counted(bridge, message, desired_encoding):
        converted.append(desired_encoding)
        return convert(bridge, message, desired_encoding)

    monkeypatch.setattr(cv_bridge.CvBridge, 'imgmsg_to_cv2', counted)
    message = image_of(encoding)
    image = image_conversion.to_rgb(message)
    assert converted == ['rgb8']
    assert image.shape == (24, 32, 3)
    assert image.dtype == np.uint8
    difference = image.astype(int) - images.to_rgb(message)
    assert np.abs(difference).max() <= 1


def test_views_of_the_message_do_not_use_cv_bridge(monkeypatch):
    monkeypatch.setattr(cv_bridge, 'CvBridge', None)
    message = Image(height=2, width=2, encoding='bgr8', step=6, data=bytes(range(12)))
    assert image_conversion.to_rgb(message)[0, 0].tolist() == [2, 1, 0]


def test_images_are_converted_without_cv_bridge(monkeypatch, caplog):
    # The exception of a cv_bridge that is compiled for NumPy 1, with NumPy 2.
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    message = image_of('mono16')
    for _ in range(2):
        np.testing.assert_array_equal(image_conversion.to_rgb(message), images.to_rgb(message))
    (record,) = caplog.records
    assert 'cv_bridge is not available' in record.getMessage()


def test_encodings_that_cv_bridge_does_not_know_are_converted():
    message = image_of('16UC1')
    np.testing.assert_array_equal(image_conversion.to_rgb(message), images.to_rgb(message))


def test_sizes_that_no_conversion_supports_are_explained():
    message = image_of('yuv422', width=31)
    with pytest.raises(UnusableInput, match='yuv422 cannot be 31 x 24 pixels'):
        image_conversion.to_rgb(message)
