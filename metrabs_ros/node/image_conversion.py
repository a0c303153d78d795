"""
Conversion of image messages with cv_bridge.

Images in the common 8-bit encodings are views of the message data, which cv_bridge would copy.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions import images
from metrabs_ros.foreign_text import printable

_LOGGER = logging.getLogger(__name__)


def to_rgb(message: Image, max_pixels: int = images.MAX_PIXELS) -> ImageArray:
    """Convert an image to RGB; see `metrabs_ros.conversions.images.to_rgb`."""
    return images.to_rgb(message, max_pixels, convert_with_cv_bridge)


def convert_with_cv_bridge(message: Image, encoding: str) -> ImageArray:
    """Convert an image with cv_bridge; see `images.convert_with_opencv`, which is the fallback."""
    bridge = _bridge()
    if bridge is not None:
        try:
            return np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'), np.uint8)
        # Older versions lack encodings and raise further exceptions with NumPy 2.  The fallback
        # explains images that cannot be converted at all.
        except Exception as error:
            _LOGGER.debug('cv_bridge cannot convert %s: %s', encoding, printable(error, 200))
    return images.convert_with_opencv(message, encoding)


@functools.cache
def _bridge() -> Any | None:
    """Return the CvBridge, or None if it is not available."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    # A cv_bridge that was compiled for NumPy 1 raises various exceptions with NumPy 2.
    except Exception as error:
        _LOGGER.warning(
            "cv_bridge is not available, so that images are converted with OpenCV's Python "
            'bindings: %s',
            printable(f'{type(error).__name__}: {error}', 200),
        )
        return None
