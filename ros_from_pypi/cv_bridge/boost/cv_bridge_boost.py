"""OpenCV types of image encodings, and conversions between encodings."""

from __future__ import annotations

import colorsys
import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]

_DEPTHS = {'8U': 0, '8S': 1, '16U': 2, '16S': 3, '32S': 4, '32F': 5, '64F': 6}
_DEPTH_DTYPES = {
    '8U': np.uint8,
    '8S': np.int8,
    '16U': np.uint16,
    '16S': np.int16,
    '32S': np.int32,
    '32F': np.float32,
    '64F': np.float64,
}
_CHANNEL_SHIFT = 3
_GENERIC = re.compile(r'(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?')

_COLOR_ORDERS = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
_PACKED_YUV = {'yuv422': 'UYVY', 'uyvy': 'UYVY', 'yuv422_yuy2': 'YUY2', 'yuyv': 'YUY2'}
# ROS names the pattern by its first pixels, OpenCV by the second row starting at column 1.
_BAYER = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}

_BACKGROUND_LABEL = -1


class Encoding:
    """
    Channel order, depth and number of channels of an encoding.

    Parameters
    ----------
    name
        Encoding of sensor_msgs/image_encodings, or an OpenCV type such as ``8UC3``.

    Raises
    ------
    RuntimeError
        If the encoding is unknown.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = ''
        generic = _GENERIC.fullmatch(name)
        colored = re.fullmatch(r'(mono|rgb|bgr|rgba|bgra)(8|16)', name)
        bayer = re.fullmatch(r'bayer_(rggb|bggr|gbrg|grbg)(8|16)', name)
        if generic:
            self.depth = generic[1]
            self.channels = int(generic[2] or 1)
        elif colored:
            self.order = colored[1]
            self.depth = f'{colored[2]}U'
            self.channels = _COLOR_ORDERS[self.order]
        elif bayer:
            self.order = f'bayer_{bayer[1]}'
            self.depth = f'{bayer[2]}U'
            self.channels = 1
        elif name in _PACKED_YUV:
            self.order = _PACKED_YUV[name]
            self.depth = '8U'
            self.channels = 2
        else:
            raise RuntimeError(f'Unrecognized image encoding [{name}]')

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy type of a channel."""
        return np.dtype(_DEPTH_DTYPES[self.depth])

    @property
    def is_color(self) -> bool:
        """Whether the encoding defines the meaning of the channels."""
        return bool(self.order)


def getCvType(encoding: str) -> int:  # noqa: N802
    """Return the OpenCV type of an encoding."""
    parsed = Encoding(encoding)
    return _DEPTHS[parsed.depth] + ((parsed.channels - 1) << _CHANNEL_SHIFT)


def CV_MAT_CNWrap(i: int) -> int:  # noqa: N802
    """Return the number of channels of an OpenCV type."""
    return (i >> _CHANNEL_SHIFT) + 1


def CV_MAT_DEPTHWrap(i: int) -> int:  # noqa: N802
    """Return the depth of an OpenCV type."""
    return i & ((1 << _CHANNEL_SHIFT) - 1)


def cvtColor2(image: Image, encoding_in: str, encoding_out: str) -> Image:  # noqa: N802
    """
    Convert an image from one encoding to another.

    Values are scaled between 8 and 16 bits; for other depths, values are not scaled.

    Raises
    ------
    RuntimeError
        If the conversion is not supported.
    """
    if encoding_in == encoding_out or not encoding_out:
        return image.copy()
    source, target = Encoding(encoding_in), Encoding(encoding_out)
    code = _conversion_code(source, target)
    if code is not None:
        image = cv2.cvtColor(image, code)
    if source.depth == target.depth:
        return image if code is not None else image.copy()
    return _to_depth(image, source, target)


def cvtColorForDisplay(  # noqa: N802
    source: Image,
    encoding_in: str,
    encoding_out: str,
    do_dynamic_scaling: bool = False,
    min_image_value: float = 0.0,
    max_image_value: float = 0.0,
    colormap: int = -1,
) -> Image:
    """
    Convert an image for display.

    Parameters
    ----------
    source
        Image.
    encoding_in
        Encoding of the image; ``32SC1`` is interpreted as labels, which get different colours.
    encoding_out
        Colour or mono encoding with 8 bits; '' for ``bgr8``.
    do_dynamic_scaling
        Whether to scale the minimum and maximum of the image to black and white.
    min_image_value, max_image_value
        Values that are scaled to black and white if they differ.
    colormap
        OpenCV colormap for images with one channel; -1 for none.
    """
    encoding_out = encoding_out or 'bgr8'
    target = Encoding(encoding_out)
    if target.order not in _COLOR_ORDERS or target.depth != '8U':
        raise RuntimeError(
            f'cvtColorForDisplay() does not support the output encoding [{encoding_out}]; use a '
            'color or mono encoding with 8 bits'
        )
    parsed = Encoding(encoding_in)
    if encoding_in == '32SC1' and encoding_out == 'bgr8':
        return _colored_labels(source)
    if do_dynamic_scaling:
        finite = source[np.isfinite(source)]
        min_image_value, max_image_value = (
            (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        )
        if min_image_value == max_image_value:
            grey = np.full(source.shape[:2], 127, np.uint8)
            return cvtColor2(grey, 'mono8', encoding_out)
    if min_image_value != max_image_value:
        if parsed.channels != 1:
            raise RuntimeError('cvtColorForDisplay() can only scale images with one channel')
        return _scaled(source, min_image_value, max_image_value, colormap, encoding_out)
    guesses = {'8UC1': 'mono8', '16UC1': 'mono16', '8UC3': 'bgr8', '8UC4': 'bgra8'}
    guesses |= {'16UC3': 'bgr16', '16UC4': 'bgra16'}
    return cvtColor2(source, guesses.get(encoding_in, encoding_in), encoding_out)


def _conversion_code(source: Encoding, target: Encoding) -> int | None:
    """Return the OpenCV code of a color conversion, or None if the channels are unchanged."""
    if not source.is_color and target.is_color:
        raise RuntimeError(
            f'[{source.name}] is not a color format. but [{target.name}] is. The conversion does '
            'not make sense'
        )
    if not target.is_color:
        if source.channels != target.channels:
            raise RuntimeError(
                f'[{source.name}] and [{target.name}] do not have the same number of channel'
            )
        return None
    if source.order == target.order:
        return None
    name = {'mono': 'GRAY'}.get(target.order, target.order.upper())
    if source.order in _COLOR_ORDERS and target.order in _COLOR_ORDERS:
        origin = {'mono': 'GRAY'}.get(source.order, source.order.upper())
        return int(getattr(cv2, f'COLOR_{origin}2{name}'))
    if source.order in _PACKED_YUV.values() and target.order in _COLOR_ORDERS:
        return int(getattr(cv2, f'COLOR_YUV2{name}_{source.order}'))
    if source.order.startswith('bayer_') and target.order in ('mono', 'rgb', 'bgr'):
        pattern = _BAYER[source.order.removeprefix('bayer_')]
        return int(getattr(cv2, f'COLOR_Bayer{pattern}2{name}'))
    raise RuntimeError(f'Unsupported conversion from [{source.name}] to [{target.name}]')


def _to_depth(image: Image, source: Encoding, target: Encoding) -> Image:
    scale = {('8U', '16U'): 65535 / 255, ('16U', '8U'): 255 / 65535}.get(
        (source.depth, target.depth), 1.0
    )
    if np.issubdtype(target.dtype, np.floating):
        return (image * scale).astype(target.dtype)
    limits = np.iinfo(target.dtype)
    rounded = np.rint(image * scale)
    return np.clip(rounded, limits.min, limits.max).astype(target.dtype)


def _scaled(source: Image, low: float, high: float, colormap: int, encoding_out: str) -> Image:
    shade = (source.astype(np.float64) - low) * 255 / (high - low)
    unknown = np.isnan(shade)
    scaled = np.clip(np.rint(np.nan_to_num(shade)), 0, 255).astype(np.uint8)
    if colormap == -1:
        return cvtColor2(scaled, 'mono8', encoding_out)
    colored = cv2.applyColorMap(scaled, colormap)
    colored[unknown] = 0
    return cvtColor2(colored, 'bgr8', encoding_out)


def _colored_labels(labels: Image) -> Image:
    """Map labels to different colours; the background is black."""
    values, indices = np.unique(labels, return_inverse=True)
    colors = [
        (0, 0, 0)
        if value == _BACKGROUND_LABEL
        else [round(255 * c) for c in colorsys.hsv_to_rgb(value * 0.618034 % 1, 1, 1)][::-1]
        for value in values.tolist()
    ]
    return np.array(colors, np.uint8)[indices.reshape(labels.shape)]
