from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.image_header import JPEG_START, PNG_SIGNATURE, check_image_size, image_size


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.gif', '.webp', '.tiff'])
@pytest.mark.parametrize(('width', 'height'), [(1, 1), (640, 480), (300, 17), (17, 300)])
def test_the_size_is_that_of_the_decoded_image(suffix, width, height):
    encoded = _encoded(suffix, width, height)

    assert image_size(encoded) == (width, height)


@pytest.mark.parametrize('options', [[cv2.IMWRITE_JPEG_PROGRESSIVE, 1], []])
def test_the_size_of_baseline_and_progressive_jpegs_is_read(options):
    image = np.zeros((48, 64, 3), np.uint8)
    encoded = cv2.imencode('.jpg', image, options)[1].tobytes()

    assert image_size(encoded) == (64, 48)


def test_the_thumbnail_of_a_jpeg_is_ignored():
    thumbnail = _encoded('.jpg', 16, 12)
    application = b'\xff\xe1' + struct.pack('>H', len(thumbnail) + 8) + b'Exif\0\0' + thumbnail
    encoded = _encoded('.jpg', 640, 480)

    assert image_size(JPEG_START + application + encoded[2:]) == (640, 480)


def test_fill_bytes_and_garbage_before_the_frame_header_of_a_jpeg_are_skipped():
    encoded = _encoded('.jpg', 640, 480)

    assert image_size(JPEG_START + b'\xff\xff\xff' + encoded[3:]) == (640, 480)
    assert image_size(JPEG_START + b'garbage' + encoded[2:]) == (640, 480)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.gif', '.webp', '.tiff'])
def test_truncated_headers_have_no_size(suffix):
    encoded = _encoded(suffix, 64, 48)

    assert {image_size(encoded[:length]) for length in range(len(encoded))} <= {None, (64, 48)}
    assert image_size(encoded[:10]) in (None, (64, 48))


@given(
    st.sampled_from([JPEG_START, PNG_SIGNATURE, b'BM', b'GIF89a', b'RIFF', b'II*\0']),
    st.binary(max_size=200),
)
def test_random_data_returns_a_size_or_none(start, data):
    size = image_size(start + data)

    assert size is None or len(size) == 2


def test_the_first_of_duplicate_tiff_entries_is_used():
    encoded = bytearray(_encoded('.tiff', 64, 48))
    (directory,) = struct.unpack_from('<I', encoded, 4)
    (entries,) = struct.unpack_from('<H', encoded, directory)
    tags = [struct.unpack_from('<H', encoded, directory + 2 + 12 * i)[0] for i in range(entries)]
    later = directory + 2 + 12 * (tags.index(256) + 5)
    struct.pack_into('<HHIHH', encoded, later, 256, 3, 1, 8, 0)

    assert image_size(bytes(encoded)) == (64, 48)


def test_other_data_has_no_size():
    assert image_size(b'P6\n64 48\n255\n') is None
    assert image_size(b'') is None
    assert image_size(b'\0' * 100) is None


@pytest.mark.parametrize('size', [(0, 480), (640, 0), (30000, 30000), (-1, 5)])
def test_sizes_without_pixels_and_above_the_limit_are_rejected(size):
    with pytest.raises(ValueError, match=f'{size[0]} x {size[1]}'):
        check_image_size(*size, limit_px=50_000_000)


def test_sizes_up_to_the_limit_are_accepted():
    check_image_size(8000, 6000, limit_px=48_000_000)


def _encoded(suffix, width, height):
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize(
    'data', [b'\xff' * 10_000_000, b'\xff\xd0' * 5_000_000, b'\xff\xe0\0\0' * 2_500_000]
)
def test_a_jpeg_without_a_frame_header_has_no_size(data):
    assert image_size(JPEG_START + data) is None
