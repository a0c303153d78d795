"""Read the size of an encoded image from its header, before memory is allocated for its pixels."""

from __future__ import annotations

import re
import struct
from typing import Literal

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_START = b'\xff\xd8'
JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15, without DHT, JPG and DAC, which do not start a frame."""
JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length field: TEM, RST0 to RST7."""
JPEG_FINAL_MARKERS = frozenset({0xD8, 0xD9, 0xDA})
"""Markers that must not precede the frame header: a second SOI, EOI, SOS."""
JPEG_FILL_END = re.compile(rb'[^\xff]', re.DOTALL)
MAX_JPEG_SEGMENTS = 1000
"""Maximum number of segments before the frame header.  It bounds the time for malformed images."""
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
MAX_TIFF_ENTRIES = 1000

ByteOrder = Literal['<', '>']
Size = tuple[int, int]


def image_size(data: bytes) -> Size | None:
    """
    Return the width and height in the header of an encoded image, in pixels.

    Parameters
    ----------
    data
        The beginning of a JPEG, PNG, BMP, GIF, WebP or TIFF image, including the size fields.

    Returns
    -------
    tuple of int, or None
        Width and height; None if the format is unknown or the header is incomplete.
    """
    data = bytes(data)
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png_size(data)
        if data.startswith(JPEG_START):
            return _jpeg_size(data)
        if data.startswith(b'BM'):
            return _bmp_size(data)
        if data[:6] in (b'GIF87a', b'GIF89a'):
            return struct.unpack_from('<HH', data, 6)
        if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
            return _webp_size(data)
        if data[:4] == b'II*\0':
            return _tiff_size(data, '<')
        if data[:4] == b'MM\0*':
            return _tiff_size(data, '>')
        return None
    except struct.error:
        return None


def check_image_size(width: int, height: int, limit_px: int) -> None:
    """
    Check that an image is not too large to be decoded.

    Parameters
    ----------
    width, height
        Size in pixels.
    limit_px
        Maximum number of pixels.

    Raises
    ------
    ValueError
        If a side is not positive or the image has more than `limit_px` pixels.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f'the image is empty: its size is {width} x {height}')
    if width * height > limit_px:
        raise ValueError(
            f'the image is too large: {width} x {height} pixels, the limit is '
            f'{limit_px / 1e6:g} million pixels'
        )


def _png_size(data: bytes) -> Size | None:
    if data[12:16] != b'IHDR':
        return None
    return struct.unpack_from('>II', data, 16)


def _jpeg_size(data: bytes) -> Size | None:
    position = len(JPEG_START)
    for _ in range(MAX_JPEG_SEGMENTS):
        # Like libjpeg, skip bytes that are not markers, and fill bytes before a marker.
        fill = data.find(b'\xff', position)
        match = JPEG_FILL_END.search(data, fill) if fill >= 0 else None
        if match is None:
            return None
        marker, position = match[0][0], match.end()
        if marker in JPEG_FRAME_MARKERS:
            height, width = struct.unpack_from('>HH', data, position + 3)
            return width, height
        if marker in JPEG_FINAL_MARKERS:
            return None
        if marker != 0 and marker not in JPEG_BARE_MARKERS:
            position += struct.unpack_from('>H', data, position)[0]
    return None


def _bmp_size(data: bytes) -> Size:
    (header_bytes,) = struct.unpack_from('<I', data, 14)
    # Version 1 of the format has 16-bit sizes.  A negative height means top-down row order.
    width, height = struct.unpack_from('<HH' if header_bytes == 12 else '<ii', data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b'VP8X':
        width, height = (int.from_bytes(data[i : i + 3], 'little') for i in (24, 27))
        return (width + 1, height + 1) if len(data) >= 30 else None
    if kind == b'VP8L':
        (bits,) = struct.unpack_from('<I', data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b'VP8 ':
        width, height = struct.unpack_from('<HH', data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes, order: ByteOrder) -> Size | None:
    (directory,) = struct.unpack_from(f'{order}I', data, 4)
    (entries,) = struct.unpack_from(f'{order}H', data, directory)
    size: dict[int, int] = {}
    for entry in range(min(entries, MAX_TIFF_ENTRIES)):
        position = directory + 2 + 12 * entry
        tag, kind = struct.unpack_from(f'{order}HH', data, position)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT) and kind in (3, 4):
            kind_code = 'H' if kind == 3 else 'I'
            (value,) = struct.unpack_from(f'{order}{kind_code}', data, position + 8)
            # Like libtiff, use the first of duplicate entries.
            size.setdefault(tag, value)
    if len(size) < 2:
        return None
    return size[TIFF_WIDTH], size[TIFF_HEIGHT]
