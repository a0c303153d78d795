"""Validation of image files before they are displayed, with limits on memory and time."""

from __future__ import annotations

from typing import Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size

MAX_PIXELS = 50_000_000
"""Maximum size of a displayed image, which the browser must decode."""
PNG_START = b'\x89PNG'
JPEG_START = b'\xff\xd8\xff'


def validate_image_file(message: Any) -> tuple[bytes, tuple[int, int]]:
    """
    Return the data of a CompressedImage that browsers can display, and its height and width.

    Raises
    ------
    ValueError
        If the data is not a JPEG or PNG image, or the image is too large.
    """
    data = bytes(message.data)
    size = image_size(data)
    if size is None or not data.startswith((JPEG_START, PNG_START)):
        raise ValueError(
            f'the image of format {printable(message.format)!r} is neither a JPEG nor a PNG image'
        )
    width, height = size
    check_image_size(width, height, MAX_PIXELS)
    return data, (height, width)
