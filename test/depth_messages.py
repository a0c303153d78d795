"""Depth image messages for tests."""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

DEPTH_MM = np.array([[0, 1, 500], [1234, 40_000, 65_535]], np.uint16)
DEPTH_PARAMETERS = (30.0, -0.5)
"""Parameters of the inverse depth: scale in metres and offset."""


def message_of(depth, encoding, big_endian=False, padding=0):
    """Return a message of an array in millimetres (16UC1) or metres (32FC1)."""
    dtype = {'16UC1': 'u2', '32FC1': 'f4'}[encoding]
    values = np.ascontiguousarray(depth.astype(f'{">" if big_endian else "<"}{dtype}'))
    rows = values.view(np.uint8).reshape(len(depth), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(encoding=encoding, is_bigendian=int(big_endian), step=rows.shape[1])
    message.height, message.width = depth.shape
    message.data = array.array('B', rows.tobytes())
    return message


def compressed(values, format_='16UC1; compressedDepth png', parameters=DEPTH_PARAMETERS):
    """Return a compressedDepth message with 16-bit values."""
    is_encoded, png = cv2.imencode('.png', values)
    assert is_encoded
    data = struct.pack('<iff', 0, *parameters) + png.tobytes()
    return CompressedImage(format=format_, data=array.array('B', data))
