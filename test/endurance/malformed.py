"""Generators of malformed messages."""

from __future__ import annotations

import array
import struct
import zlib
from random import Random
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

WIDTH, HEIGHT = 64, 48
FLOATS = (float('nan'), float('inf'), -float('inf'), 0.0, -1.0, 1e-300, 1e300, 1e308, 5e-324)
UINT32_MAX = 2**32 - 1
ENCODINGS = (
    *('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '8UC3', '16UC1', '32FC1'),
    *('bayer_rggb8', 'bayer_gbrg16', 'yuv422', 'yuv422_yuy2', 'nv21', 'nv24', ''),
)
LENSES = ('plumb_bob', 'rational_polynomial', 'equidistant', 'thin_prism', '')


def text(random: Random) -> str:
    """Return a random string, short or long, with control characters."""
    alphabet = 'ab/ _\n\t\x1b\x07"\'<>&|[](){}%s\u202e\u00e4\u76f8'
    length = random.choice((1, 8, 40, 3000))
    return ''.join(random.choices(alphabet, k=length))


def number(random: Random) -> float:
    """Return a number of any magnitude, which may not be finite."""
    return random.choice((*FLOATS, random.uniform(-1000, 1000)))


def stamp(random: Random) -> Time:
    """Return a random time."""
    return Time(sec=random.randint(-(2**31), 2**31 - 1), nanosec=random.randrange(10**9))


def image(random: Random) -> Image:
    """Return a small image with one to three invalid fields."""
    message = Image(encoding='rgb8', width=WIDTH, height=HEIGHT, step=3 * WIDTH)
    message.header.frame_id = 'camera'
    message.data = array.array('B', bytes(3 * WIDTH * HEIGHT))
    message.header.stamp = stamp(random)
    invalid = {
        'encoding': lambda: random.choice((*ENCODINGS, text(random))),
        'width': lambda: random.choice((0, 1, UINT32_MAX, random.randrange(1000))),
        'height': lambda: random.choice((0, 1, UINT32_MAX, random.randrange(1000))),
        'step': lambda: random.choice((0, 1, UINT32_MAX, random.randrange(1000))),
        'data': lambda: array.array('B', random.randbytes(random.randrange(20_000))),
        'is_bigendian': lambda: random.randrange(256),
    }
    for field in random.sample(sorted(invalid), random.randint(1, 3)):
        setattr(message, field, invalid[field]())
    if random.random() < 0.3:
        message.header.frame_id = text(random)
    return message


def compressed_image(random: Random) -> CompressedImage:
    """Return a compressed image that is damaged, declares a huge size or is not an image."""
    kind = random.choice(
        (_truncated, _corrupted, _oversized_jpeg, _oversized_png, _bytes, _other_format)
    )
    message = CompressedImage(format=random.choice(('jpeg', 'png', '', text(random))))
    message.header.frame_id = random.choice(('camera', text(random)))
    message.header.stamp = stamp(random)
    message.data = array.array('B', kind(random))
    return message


def camera_info(random: Random) -> CameraInfo:
    """Return a calibration with one to four invalid fields."""
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob')
    message.k = [100.0, 0.0, WIDTH / 2, 0.0, 100.0, HEIGHT / 2, 0.0, 0.0, 1.0]
    message.header.stamp = stamp(random)

    def numbers(count: int) -> list[float]:
        return [number(random) for _ in range(count)]

    invalid = {
        'k': lambda: numbers(9),
        'r': lambda: numbers(9),
        'p': lambda: numbers(12),
        'd': lambda: numbers(random.randrange(20)),
        'distortion_model': lambda: random.choice((*LENSES, text(random))),
        'width': lambda: random.choice((0, 1, UINT32_MAX)),
        'binning_x': lambda: random.choice((1, 2, UINT32_MAX)),
    }
    for field in random.sample(sorted(invalid), random.randint(1, 4)):
        setattr(message, field, invalid[field]())
    roi = message.roi
    roi.x_offset, roi.width = random.choice(((0, 0), (10, 20), (UINT32_MAX, UINT32_MAX)))
    return message


def detections(random: Random, at: Time) -> Detection2DArray:
    """Return boxes that are outside of the image, empty, not finite, or very many."""
    message = Detection2DArray()
    message.header.stamp = random.choice((at, stamp(random)))
    message.header.frame_id = random.choice(('camera', text(random)))
    for _ in range(random.choice((0, 1, 3, 300))):
        detection = Detection2D()
        position, box = detection.bbox.center.position, detection.bbox
        position.x, position.y = number(random), number(random)
        box.size_x, box.size_y = number(random), number(random)
        if random.random() < 0.5:
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id = text(random)
            result.hypothesis.score = number(random)
            detection.results.append(result)
        message.detections.append(detection)
    return message


def transform(random: Random, parent: str, child: str, at: Time) -> TransformStamped:
    """Return a transform with invalid values."""
    message = TransformStamped(child_frame_id=random.choice((child, text(random))))
    message.header.frame_id = random.choice((parent, child, text(random)))
    message.header.stamp = at
    turn, move = message.transform.rotation, message.transform.translation
    for vector, names in ((turn, 'xyzw'), (move, 'xyz')):
        for name in names:
            setattr(vector, name, number(random))
    return message


def corrupted(random: Random, message: Any) -> bytes:
    """Return a serialised message with up to four corrupted bytes."""
    data = bytearray(serialize_message(message))
    # The first four bytes are the encapsulation header.
    for _ in range(random.randint(1, 4)):
        data[random.randrange(4, min(len(data), 120))] = random.randrange(256)
    return bytes(data)


def _encoded(suffix: str) -> bytes:
    gradient = np.linspace(0, 255, 3 * WIDTH * HEIGHT).astype(np.uint8)
    return cv2.imencode(suffix, gradient.reshape(HEIGHT, WIDTH, 3))[1].tobytes()


def _truncated(random: Random) -> bytes:
    data = _encoded(random.choice(('.jpg', '.png')))
    return data[: random.randrange(len(data))]


def _corrupted(random: Random) -> bytes:
    data = bytearray(_encoded(random.choice(('.jpg', '.png'))))
    for _ in range(random.randint(1, 20)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def _oversized_jpeg(random: Random) -> bytes:
    data = bytearray(_encoded('.jpg'))
    frame = data.index(b'\xff\xc0')
    struct.pack_into('>HH', data, frame + 5, random.choice((30000, 65500)), 30000)
    return bytes(data)


def _oversized_png(random: Random) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack('>I', zlib.crc32(kind + content))
        return struct.pack('>I', len(content)) + kind + content + checksum

    side = random.choice((30000, 2**31 - 1))
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', pixels)


def _bytes(random: Random) -> bytes:
    return random.randbytes(random.choice((0, 1, 100, 100_000)))


def _other_format(random: Random) -> bytes:
    return _encoded(random.choice(('.bmp', '.webp', '.tiff', '.ppm')))
