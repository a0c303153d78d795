"""Image messages are converted to RGB arrays, or rejected with the reason."""

from __future__ import annotations

import array
import re
import resource
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from metrabs_ros.conversions.images import decompress, to_rgb
from metrabs_ros.conversions.unusable_input import UnusableInput

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def message_of(image, encoding, padding=0):
    rows = np.ascontiguousarray(image).view(np.uint8).reshape(image.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image()
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.step = padded.shape[1]
    message.data = array.array('B', padded.tobytes())
    return message


@pytest.fixture
def flag():
    """Return an RGB image with four quarters of different colours."""
    image = np.zeros((24, 32, 3), np.uint8)
    image[:12, :16], image[:12, 16:], image[12:, :16], image[12:, 16:] = RED, GREEN, BLUE, 200
    return image


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'code'),
    [
        ('rgb8', None),
        ('bgr8', cv2.COLOR_RGB2BGR),
        ('8UC3', cv2.COLOR_RGB2BGR),
        ('rgba8', cv2.COLOR_RGB2RGBA),
        ('bgra8', cv2.COLOR_RGB2BGRA),
        ('8UC4', cv2.COLOR_RGB2BGRA),
    ],
)
def test_colour_encodings_keep_the_colours(flag, encoding, code, padding):
    image = flag if code is None else cv2.cvtColor(flag, code)
    np.testing.assert_array_equal(to_rgb(message_of(image, encoding, padding)), flag)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1', 'mono16', '16UC1'])
def test_grayscale_is_converted_to_rgb(flag, encoding):
    grey = cv2.cvtColor(flag, cv2.COLOR_RGB2GRAY)
    image = grey.astype(np.uint16) * 257 if '16' in encoding else grey
    expected = np.dstack([grey] * 3)
    np.testing.assert_array_equal(to_rgb(message_of(image, encoding)), expected)


def test_rgb8_is_not_copied(flag):
    message = message_of(flag, 'rgb8')
    view = to_rgb(message)
    message.data[0] = 11
    assert view[0, 0, 0] == 11


@pytest.mark.parametrize('encoding', ['yuv422', 'yuv422_yuy2', 'bayer_rggb8', 'bayer_bggr8'])
def test_camera_formats_are_converted_to_approximately_the_same_colours(encoding):
    color = np.full((24, 32, 3), (180, 60, 90), np.uint8)
    if encoding.startswith('bayer'):
        rows = {'rggb': ((0, 1), (1, 2)), 'bggr': ((2, 1), (1, 0))}[encoding[6:10]]
        raw = np.zeros((24, 32), np.uint8)
        for y in (0, 1):
            for x in (0, 1):
                raw[y::2, x::2] = color[y::2, x::2, rows[y][x]]
    else:
        y, u, v = cv2.cvtColor(color[:1, :1], cv2.COLOR_RGB2YUV)[0, 0].tolist()
        luma, chroma = np.full((24, 32), y, np.uint8), np.full((24, 32), u, np.uint8)
        chroma[:, 1::2] = v
        raw = np.dstack([chroma, luma] if encoding == 'yuv422' else [luma, chroma])
    converted = to_rgb(message_of(raw, encoding))
    assert np.abs(converted[4:-4, 4:-4].astype(int) - color[4:-4, 4:-4]).max() < 40


@pytest.mark.parametrize(
    ('change', 'cause', 'explanation'),
    [
        ({'encoding': 'jpeg2000'}, 'image encoding', "encoding 'jpeg2000'"),
        ({'encoding': ''}, 'image encoding', 'cannot be converted to rgb8'),
        ({'encoding': '32FC1'}, 'image encoding', '32FC1'),
        ({'encoding': '\x1b[2J' + 5000 * 'x'}, 'image encoding', r'\\x1b\[2Jxxx'),
        ({'data': array.array('B', bytes(100))}, 'image data', '100 bytes of data'),
        ({'height': 0}, 'image size', '32 x 0'),
        ({'width': 0}, 'image size', '0 x 24'),
        ({'width': 4_000_000_000}, 'image size', '4000000000 x 24'),
        ({'width': 16000, 'height': 16000}, 'image size', 'too large: 16000 x 16000 pixels'),
        ({'step': 2**32 - 1}, 'image data', 'rows of 4294967295 bytes need'),
        ({'step': 3}, 'image data', 'rows of 3 bytes, but 32 pixels of 3 bytes need 96'),
    ],
)
def test_inconsistent_images_are_rejected_with_the_reason(flag, change, cause, explanation):
    message = message_of(flag, 'rgb8')
    for field, value in change.items():
        setattr(message, field, value)
    with pytest.raises(UnusableInput, match=explanation) as caught:
        to_rgb(message)
    assert caught.value.cause == cause
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


ENCODINGS = [
    'rgb8',
    'bgr8',
    'mono8',
    'mono16',
    '8UC3',
    '32FC1',
    'bayer_grbg8',
    'yuv422',
    'nv21',
    'nv24',
    'bgra8',
    'yuv422_yuy2',
    'bayer_rggb16',
    '?',
]


@given(
    width=st.integers(0, 70),
    height=st.integers(0, 70),
    step=st.integers(0, 300),
    length=st.integers(0, 20_000),
    encoding=st.sampled_from(ENCODINGS),
    big=st.booleans(),
)
def test_any_image_is_converted_or_rejected(width, height, step, length, encoding, big):
    message = Image(width=width, height=height, step=step, encoding=encoding)
    message.is_bigendian = int(big)
    message.data = array.array('B', bytes(length))
    try:
        image = to_rgb(message)
    except UnusableInput:
        return
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8


def test_messages_of_cv_bridge_are_converted_back(street):
    message = CvBridge().cv2_to_imgmsg(street, 'rgb8')
    np.testing.assert_array_equal(to_rgb(message), street)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', 'mono8'])
def test_common_encodings_are_converted_without_a_copy(encoding):
    channels = {'rgba8': 4, 'bgra8': 4, 'mono8': 1}.get(encoding, 3)
    message = message_of(np.zeros((24, 32, channels), np.uint8), encoding, padding=3)
    image = to_rgb(message)
    message.data[0:3] = array.array('B', [9, 9, 9])
    assert image[0, 0].tolist() == [9, 9, 9]


def semi_planar(image, encoding):
    """Convert an RGB image to a luma plane and a plane of interleaved chroma."""
    yuv = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    height, width = image.shape[:2]
    quarter = height * width // 4
    y, rest = yuv[:height], yuv[height:].reshape(-1)
    u, v = (part.reshape(height // 2, width // 2) for part in (rest[:quarter], rest[quarter:]))
    if encoding == 'nv21':
        return np.concatenate([y, np.stack([v, u], axis=-1).reshape(-1, width)])
    u, v = (part.repeat(2, axis=0).repeat(2, axis=1) for part in (u, v))
    return np.concatenate([y, np.stack([u, v], axis=-1).reshape(-1, width)])


@pytest.mark.parametrize('padding', [0, 7])
@pytest.mark.parametrize('encoding', ['nv21', 'nv24'])
def test_semi_planar_encodings_keep_the_colours(flag, encoding, padding):
    planes = semi_planar(flag, encoding)
    if encoding == 'nv24':
        luma, chroma = planes[:24], planes[24:].reshape(24, 64)
        stride = 32 + padding
        padded = np.zeros((3 * 24, stride), np.uint8)
        padded[:24, :32] = luma
        padded[24:].reshape(24, 2 * stride)[:, :64] = chroma
    else:
        padded = np.pad(planes, ((0, 0), (0, padding)))
    message = Image(height=24, width=32, step=32 + padding, encoding=encoding)
    message.data = array.array('B', padded.tobytes())
    assert np.abs(to_rgb(message).astype(int) - flag).max() <= 4


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_compressed_images_are_decoded_to_rgb(street, extension):
    _, data = cv2.imencode(extension, street[..., ::-1])
    message = CompressedImage(format='jpeg', data=array.array('B', data.tobytes()))
    assert np.abs(decompress(message).astype(int) - street).mean() < 6


def compressed(data):
    return CompressedImage(format='jpeg', data=array.array('B', data))


@pytest.mark.parametrize('data', [b'', b'no picture', b'\xff\xd8\xff\xe0' + bytes(50)])
def test_data_other_than_images_is_rejected(data):
    with pytest.raises(UnusableInput, match='not a valid JPEG or PNG image') as caught:
        decompress(compressed(data))
    assert caught.value.cause == 'compressed image'


def encoded(image, extension, *options):
    return cv2.imencode(extension, image, options)[1].tobytes()


def with_size(data, width, height):
    """Replace the size in the header of a JPEG or PNG file."""
    if data.startswith(b'\x89PNG'):
        header = b'IHDR' + struct.pack('>II', width, height) + data[24:29]
        return data[:12] + header + struct.pack('>I', zlib.crc32(header)) + data[33:]
    at = re.search(rb'\xff[\xc0-\xc2]', data).start()
    return data[: at + 5] + struct.pack('>HH', height, width) + data[at + 9 :]


SMALL = np.full((16, 16, 3), 90, np.uint8)
FILES_WITH_HUGE_SIZE = {
    'jpeg': with_size(encoded(SMALL, '.jpg'), 30000, 30000),
    'progressive': with_size(
        encoded(SMALL, '.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 16000, 16000
    ),
    'png': with_size(encoded(SMALL, '.png'), 16000, 16000),
    'png of 2**31 - 1': with_size(encoded(SMALL, '.png'), 2**31 - 1, 1),
    'tall jpeg': with_size(encoded(SMALL, '.jpg'), 1, 65535),
}


@pytest.mark.parametrize('data', FILES_WITH_HUGE_SIZE.values(), ids=FILES_WITH_HUGE_SIZE)
def test_small_files_that_declare_a_huge_image_are_not_decoded(data):
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnusableInput, match='pixels') as caught:
        decompress(compressed(data))
    assert caught.value.cause == 'image size'
    assert len(data) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000


def test_images_larger_than_the_given_limit_are_rejected():
    message = compressed(encoded(SMALL, '.png'))
    assert decompress(message, max_pixels=256).shape == SMALL.shape
    with pytest.raises(UnusableInput, match=r'16 x 16 pixels, the limit is 0\.000255'):
        decompress(message, max_pixels=255)
    raw = message_of(SMALL, 'rgb8')
    assert to_rgb(raw, max_pixels=256).shape == SMALL.shape
    with pytest.raises(UnusableInput, match='the image is too large'):
        to_rgb(raw, max_pixels=255)


OTHER_FORMATS = ('.bmp', '.webp', '.tiff', '.ppm', '.jp2', '.hdr', '.gif', '.avif', '.sr')


@pytest.mark.parametrize('extension', OTHER_FORMATS)
def test_formats_that_compressed_image_transport_does_not_use_are_rejected(extension):
    image = np.full((64, 64, 3), 90, np.float32 if extension == '.hdr' else np.uint8)
    try:
        data = encoded(image, extension)
    except cv2.error:
        pytest.skip('this OpenCV cannot write it')
    with pytest.raises(UnusableInput) as caught:
        decompress(compressed(data))
    assert caught.value.cause == 'compressed image'


def test_svg_images_are_rejected():
    data = b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>'
    with pytest.raises(UnusableInput, match='not a valid JPEG or PNG'):
        decompress(compressed(data))


def test_jpegs_with_too_many_scans_are_not_decoded():
    data = encoded(SMALL, '.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b'\xff\xda')
    many = data[:last] + 1000 * data[last:-2] + data[-2:]
    with pytest.raises(UnusableInput, match='scans, more than the limit of 64 for this size'):
        decompress(compressed(many))
    assert decompress(compressed(data)).shape == SMALL.shape


def test_the_limit_on_scans_is_lower_for_large_jpegs():
    data = encoded(SMALL, '.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b'\xff\xda')
    many = data[:last] + 20 * data[last:-2] + data[-2:]
    largest_px = SMALL.shape[0] * SMALL.shape[1]
    assert decompress(compressed(many)).shape == SMALL.shape
    assert decompress(compressed(data), largest_px).shape == SMALL.shape
    with pytest.raises(UnusableInput, match='more than the limit of 12 for this size'):
        decompress(compressed(many), largest_px)


def test_all_variants_of_jpeg_and_png_are_decoded_to_8_bit_rgb():
    deep = np.full((16, 16, 3), 90 * 257, np.uint16)
    alpha = np.dstack([SMALL, np.zeros((16, 16), np.uint8)])
    for data in (
        encoded(SMALL[..., 0], '.png'),
        encoded(deep, '.png'),
        encoded(deep[..., 0], '.png'),
        encoded(alpha, '.png'),
        encoded(SMALL[..., 0], '.jpg'),
        encoded(SMALL, '.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(SMALL, '.jpg', cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    ):
        image = decompress(compressed(data))
        assert (image.shape, image.dtype) == (SMALL.shape, np.uint8)
        assert np.abs(image.astype(int) - 90).max() <= 2


def test_orientation_in_metadata_does_not_rotate_the_image():
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255
    # A TIFF directory with one entry: orientation 6, rotated by 90 degrees.
    exif = b'MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x112, 3, 1, 6, 0, 0)
    jpeg = encoded(wide, '.jpg')
    segment = b'Exif\0\0' + exif
    jpeg = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:]
    png = encoded(wide, '.png')
    chunk = b'eXIf' + exif
    png = (
        png[:33]
        + struct.pack('>I', len(exif))
        + chunk
        + struct.pack('>I', zlib.crc32(chunk))
        + png[33:]
    )
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3)
    for data in (jpeg, png):
        np.testing.assert_allclose(decompress(compressed(data)), wide, atol=3)


@pytest.mark.parametrize('extension', ['.jpg', '.png'])
def test_truncated_images_are_rejected_without_output_on_stderr(street, extension, capfd):
    whole = encoded(street, extension)
    for length in (len(whole) // 2, len(whole) - 2, 600):
        with pytest.raises(UnusableInput, match='truncated or damaged'):
            decompress(compressed(whole[:length]))
    assert capfd.readouterr().err == ''
    # Some cameras append padding to their images.
    assert decompress(compressed(whole + bytes(100))).shape == street.shape


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_compressed_images_are_decoded_or_rejected(data):
    extension = data.draw(st.sampled_from(['.jpg', '.png']))
    whole = bytearray(encoded(SMALL, extension))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    truncated = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        image = decompress(compressed(bytes(truncated)), max_pixels=1_000_000)
    except UnusableInput:
        return
    assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8)
    assert image.shape[0] * image.shape[1] <= 1_000_000


def test_the_conversion_of_nv24_needs_less_memory_than_two_images():
    height, width = 2000, 3000
    message = Image(height=height, width=width, step=width, encoding='nv24')
    message.data = array.array('B', bytes(3 * height * width))
    tracemalloc.start()
    to_rgb(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 3 * height * width
