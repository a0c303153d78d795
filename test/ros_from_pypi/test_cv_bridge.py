"""The replacement for cv_bridge converts images in both directions for all encodings."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError, cvtColorForDisplay, getCvType
from sensor_msgs.msg import CompressedImage, Image

BRIDGE = CvBridge()
RNG = np.random.default_rng(0)

PLAIN = ['rgb8', 'bgr8', 'mono8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'mono16', 'rgba16', 'bgra16']
BAYER = [f'bayer_{p}{bits}' for p in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]
TYPES = [f'{t}C{c}' for t in ('8U', '8S', '16U', '16S', '32S', '32F', '64F') for c in range(1, 5)]


def random_image(encoding):
    name, channels = BRIDGE.encoding_to_dtype_with_channels(encoding)
    shape = (7, 10) if channels == 1 else (7, 10, channels)
    return RNG.integers(0, 100, shape).astype(name)


@pytest.mark.parametrize('encoding', [*PLAIN, *BAYER, *TYPES, 'yuv422', 'yuv422_yuy2', '8U'])
def test_every_encoding_survives_a_round_trip(encoding):
    image = random_image(encoding)
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert message.step == image.strides[0]
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), image)


@pytest.mark.parametrize('encoding', ['mono16', 'rgb16', '32FC3', '64FC1', '16SC2'])
def test_big_endian_and_padded_rows_are_converted(encoding):
    image = random_image(encoding)
    rows = image.astype(image.dtype.newbyteorder('>')).view(np.uint8).reshape(7, -1)
    padded = np.pad(rows, ((0, 0), (0, 3)), constant_values=99)
    message = Image(height=7, width=10, encoding=encoding, is_bigendian=1, step=padded.shape[1])
    message.data = array.array('B', padded.tobytes())
    result = BRIDGE.imgmsg_to_cv2(message)
    np.testing.assert_array_equal(result, image)
    assert result.dtype.isnative


def test_big_endian_arrays_set_is_bigendian():
    message = BRIDGE.cv2_to_imgmsg(random_image('mono16').astype('>u2'), 'mono16')
    assert message.is_bigendian


@pytest.mark.parametrize(
    ('source', 'target', 'code'),
    [
        ('rgb8', 'bgr8', cv2.COLOR_RGB2BGR),
        ('bgra8', 'rgb8', cv2.COLOR_BGRA2RGB),
        ('rgb8', 'mono8', cv2.COLOR_RGB2GRAY),
        ('mono8', 'bgra8', cv2.COLOR_GRAY2BGRA),
        ('bayer_rggb8', 'bgr8', cv2.COLOR_BayerBG2BGR),
        ('bayer_grbg8', 'rgb8', cv2.COLOR_BayerGB2RGB),
        ('yuv422', 'bgr8', cv2.COLOR_YUV2BGR_UYVY),
        ('yuv422_yuy2', 'mono8', cv2.COLOR_YUV2GRAY_YUY2),
    ],
)
def test_colour_conversions_match_opencv(source, target, code):
    image = random_image(source)
    result = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, source), target)
    np.testing.assert_array_equal(result, cv2.cvtColor(image, code))


def test_values_are_scaled_between_8_and_16_bits():
    image = np.array([[0, 128, 255]], np.uint8)
    wide = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, 'mono8'), 'mono16')
    np.testing.assert_array_equal(wide, [[0, 32896, 65535]])
    back = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(wide, 'mono16'), 'mono8')
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize(
    ('source', 'target'),
    [('8UC3', 'rgb8'), ('32FC1', 'mono8'), ('rgb8', '8UC1'), ('rgb8', 'bayer_rggb8')],
)
def test_unsupported_conversions_are_rejected(source, target):
    message = BRIDGE.cv2_to_imgmsg(random_image(source), source)
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(message, target)


def test_short_messages_and_unknown_encodings_are_rejected():
    message = BRIDGE.cv2_to_imgmsg(random_image('rgb8'), 'rgb8')
    message.data = message.data[:-1]
    with pytest.raises(CvBridgeError, match='wrongly formed'):
        BRIDGE.imgmsg_to_cv2(message)
    message.encoding = 'no_such_encoding'
    with pytest.raises(CvBridgeError, match='Unrecognized image encoding'):
        BRIDGE.imgmsg_to_cv2(message)
    with pytest.raises(CvBridgeError, match='incompatible type'):
        BRIDGE.cv2_to_imgmsg(random_image('rgb8'), 'mono8')
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_imgmsg([1, 2, 3])


@pytest.mark.parametrize('kind', ['png', 'bmp', 'tiff'])
def test_compressed_images_survive_a_round_trip(kind):
    image = random_image('bgr8')
    message = BRIDGE.cv2_to_compressed_imgmsg(image, kind)
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(message), image)
    np.testing.assert_array_equal(
        BRIDGE.compressed_imgmsg_to_cv2(message, 'rgb8'), image[..., ::-1]
    )


def test_invalid_compressed_data_is_rejected():
    for data in (b'', b'invalid'):
        with pytest.raises(CvBridgeError, match='cannot be decoded'):
            BRIDGE.compressed_imgmsg_to_cv2(CompressedImage(format='jpeg', data=data))


def test_types_have_the_numbers_of_opencv():
    for name in TYPES:
        assert getCvType(name) == getattr(cv2, f'CV_{name}')


def test_values_are_scaled_and_labels_coloured_for_display():
    depth = np.array([[1.0, 3.0, np.inf], [2.0, np.nan, 1.0]], np.float32)
    shown = cvtColorForDisplay(depth, '32FC1', 'mono8', do_dynamic_scaling=True)
    assert shown[0, :2].tolist() == [0, 255]
    labels = np.array([[0, 1], [-1, 0]], np.int32)
    colored = cvtColorForDisplay(labels, '32SC1', 'bgr8')
    assert colored[1, 0].tolist() == [0, 0, 0]
    assert colored[0, 0].tolist() == colored[1, 1].tolist() != colored[0, 1].tolist()
