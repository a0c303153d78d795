"""Depth images are converted to millimetres, or rejected with the reason."""

from __future__ import annotations

import array
import struct
import zlib

import cv2
import numpy as np
import pytest
from depth_messages import DEPTH_MM, DEPTH_PARAMETERS, compressed, message_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from metrabs_ros.conversions.depth_images import DATA, ENCODING, decompress_depth, to_depth
from metrabs_ros.conversions.unusable_input import UnusableInput


@pytest.mark.parametrize('padding', [0, 1, 6])
@pytest.mark.parametrize('big_endian', [False, True])
def test_both_encodings_are_converted_to_millimetres(big_endian, padding):
    depth_mm = to_depth(message_of(DEPTH_MM, '16UC1', big_endian, padding))
    np.testing.assert_array_equal(depth_mm, DEPTH_MM)
    depth_mm = to_depth(message_of(DEPTH_MM / 1000, '32FC1', big_endian, padding))
    np.testing.assert_allclose(depth_mm, DEPTH_MM, rtol=1e-6)


@pytest.mark.filterwarnings('error')
def test_invalid_pixels_are_kept_without_warnings():
    depth_m = np.array([[np.nan, np.inf, -np.inf, 3e38, 0, -1]], np.float32)
    depth_mm = to_depth(message_of(depth_m, '32FC1'))
    np.testing.assert_array_equal(depth_mm, [[np.nan, np.inf, -np.inf, np.inf, 0, -1000]])


def test_millimetres_are_a_view_of_the_message():
    message = message_of(DEPTH_MM, '16UC1')
    depth_mm = to_depth(message)
    message.data[2:4] = array.array('B', b'\x07\x00')
    assert depth_mm[0, 1] == 7


@pytest.mark.parametrize(
    ('changes', 'cause', 'expected'),
    [
        ({'encoding': 'rgb8'}, ENCODING, "'rgb8'; supported are 16UC1"),
        ({'encoding': '64FC1'}, ENCODING, '64FC1'),
        ({'encoding': 'x\n' * 5000}, ENCODING, 'x'),
        ({'step': 5}, DATA, 'rows of 5 bytes'),
        ({'step': 2**32 - 1}, DATA, '12 bytes of data'),
        ({'height': 3}, DATA, 'it needs at least 6 and 18'),
        ({'height': 0}, DATA, '3 x 0 pixels'),
        ({'width': 2**32 - 1}, DATA, '4294967295 x 2'),
        ({'width': 16_000, 'height': 16_000}, DATA, 'max_image_pixels'),
        ({'data': array.array('B')}, DATA, '0 bytes of data'),
    ],
)
def test_invalid_images_are_rejected_with_the_reason(changes, cause, expected):
    message = message_of(DEPTH_MM, '16UC1')
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(UnusableInput, match=expected) as caught:
        to_depth(message)
    assert caught.value.cause == cause
    assert str(caught.value).isprintable()


sizes = st.sampled_from([0, 1, 2, 3, 7, 16_384, 16_385, 2**31, 2**32 - 1])


@settings(max_examples=500)
@given(
    height=sizes,
    width=sizes,
    step=sizes,
    encoding=st.sampled_from(['16UC1', '32FC1', 'mono16', '']),
    big_endian=st.integers(0, 255),
    data=st.binary(max_size=200),
)
@pytest.mark.filterwarnings('error')
def test_any_image_is_converted_or_rejected(height, width, step, encoding, big_endian, data):
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian, message.data = big_endian, array.array('B', data)
    try:
        depth_mm = to_depth(message)
    except UnusableInput:
        return
    assert depth_mm.shape == (height, width)
    depth_mm.astype(float).sum()


def test_compressed_millimetres_are_decoded():
    for format_ in ('16UC1; compressedDepth png', '16UC1; compressedDepth'):
        np.testing.assert_array_equal(decompress_depth(compressed(DEPTH_MM, format_)), DEPTH_MM)


@pytest.mark.filterwarnings('error')
def test_compressed_metres_are_inverse_depths():
    scale_m, offset = DEPTH_PARAMETERS
    depth_mm = decompress_depth(compressed(DEPTH_MM, '32FC1; compressedDepth png'))
    values = DEPTH_MM.astype(float)
    expected_mm = np.where(values > 0, 1000 * scale_m / (values - offset), 0)
    np.testing.assert_allclose(depth_mm, expected_mm, rtol=1e-5)
    assert depth_mm.dtype == np.float32


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('parameters', [(0.0, 0.0), (-1.0, 5.0), (3e38, 1.0), (1e-45, 500.0)])
def test_values_without_a_depth_are_invalid(parameters):
    depth_mm = decompress_depth(compressed(DEPTH_MM, '32FC1; compressedDepth png', parameters))
    assert np.isfinite(depth_mm).all()
    assert (depth_mm >= 0).all()


def png(header=None, values=DEPTH_MM):
    """Return PNG data, with another size or type in its header if one is given."""
    data = bytearray(cv2.imencode('.png', values)[1].tobytes())
    if header is not None:
        data[16:29] = header
        data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)


def ihdr(width, height, bits=16, colour=0):
    return struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)


GRAY_8 = png(values=DEPTH_MM.astype(np.uint8))
JPEG = cv2.imencode('.jpg', DEPTH_MM.astype(np.uint8))[1].tobytes()
FORMAT = '16UC1; compressedDepth png'


@pytest.mark.parametrize(
    ('format_', 'payload', 'cause', 'expected'),
    [
        ('16UC1; compressedDepth rvl', png(), ENCODING, 'RVL is not supported; set the format'),
        ('rgb8; jpeg compressed bgr8', png(), ENCODING, 'supported are'),
        ('mono16; compressedDepth png', png(), ENCODING, "'mono16; compressedDepth png'"),
        ('', png(), ENCODING, "format ''"),
        ('\0' * 100_000, png(), ENCODING, 'format'),
        (FORMAT, b'', DATA, '0 bytes of the compressed depth image are not a PNG'),
        (FORMAT, GRAY_8, DATA, '16 bits per pixel'),
        (FORMAT, JPEG, DATA, 'not a PNG'),
        (FORMAT, png()[:-20], DATA, 'truncated or damaged'),
        (FORMAT, png(ihdr(60_000, 60_000)), DATA, '60000 x 60000'),
        (FORMAT, png(ihdr(16_000, 16_000)), DATA, 'too large'),
        (FORMAT, png(ihdr(4000, 4000)), DATA, 'damaged'),
        (FORMAT, png(ihdr(3, 2, bits=8, colour=2)), DATA, '16 bits per pixel'),
        ('32FC1; compressedDepth png', b'', DATA, 'not a PNG'),
    ],
)
def test_invalid_compressed_images_are_rejected(format_, payload, cause, expected, capfd):
    data = array.array('B', struct.pack('<iff', 0, 1.0, 0.0) + payload)
    with pytest.raises(UnusableInput, match=expected) as caught:
        decompress_depth(CompressedImage(format=format_, data=data))
    assert caught.value.cause == cause
    assert len(str(caught.value)) <= 600
    # The decoder prints a warning about wrong sizes only.
    assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.parametrize('parameters', [(np.nan, 0.0), (1.0, np.inf)])
def test_parameters_that_are_not_finite_are_rejected(parameters):
    with pytest.raises(UnusableInput, match='not finite'):
        decompress_depth(compressed(DEPTH_MM, '32FC1; compressedDepth png', parameters))


@settings(max_examples=300)
@given(
    format_=st.sampled_from(['16UC1; compressedDepth png', '32FC1; compressedDepth']),
    length=st.integers(0, 200),
    position=st.integers(0, 199),
    byte=st.integers(0, 255),
)
def test_any_damaged_data_is_decoded_or_rejected(format_, length, position, byte):
    data = bytearray(struct.pack('<iff', 0, *DEPTH_PARAMETERS) + png())[:length]
    if position < len(data):
        data[position] = byte
    try:
        depth_mm = decompress_depth(CompressedImage(format=format_, data=array.array('B', data)))
    except UnusableInput:
        return
    assert depth_mm.shape == (2, 3)
