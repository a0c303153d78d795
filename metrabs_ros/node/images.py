"""From image messages to arrays."""

from __future__ import annotations

from cv_bridge import CvBridge
from sensor_msgs.msg import Image

from metrabs_ros.arrays import ImageArray
from metrabs_ros.node.drops import UnusableInput

LARGEST_SIDE_PX = 16384

_BRIDGE = CvBridge()
# What drivers call by its type only is in OpenCV's order.
_MEANT_BY = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC1': 'mono16'}


def to_rgb(message: Image) -> ImageArray:
    """
    Return a message's image as RGB.

    Parameters
    ----------
    message
        In any encoding that has colours or grey.

    Returns
    -------
    [H, W, 3], uint8.  For rgb8 without padding it is a view of the message's data.

    Raises
    ------
    UnusableInput
        If the message does not hold what it says, or its encoding is not known.
    """
    height, width, step = message.height, message.width, message.step
    if not 0 < height <= LARGEST_SIDE_PX or not 0 < width <= LARGEST_SIDE_PX:
        raise UnusableInput(
            'image size',
            f'the image is {width} x {height} pixels; from 1 to {LARGEST_SIDE_PX} a side can be '
            'worked on',
        )
    if len(message.data) < height * step:
        raise UnusableInput(
            'image data',
            f'the image has {len(message.data)} bytes of data, but {height} rows of {step} bytes '
            f'make {height * step}; the camera driver sends broken messages',
        )
    if message.encoding == 'rgb8' and step >= 3 * width:
        return _BRIDGE.imgmsg_to_cv2(message)
    encoding = _MEANT_BY.get(message.encoding)
    if encoding is not None:
        message = _renamed(message, encoding)
    try:
        return _BRIDGE.imgmsg_to_cv2(message, 'rgb8')
    # A CvBridgeError is a TypeError, and the compiled cv_bridge raises other kinds, too.
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(
            f'image encoding {message.encoding}',
            f'an image in encoding {message.encoding!r} cannot be turned into rgb8: {error}',
        ) from error


def _renamed(message: Image, encoding: str) -> Image:
    """Return the same image under another encoding's name; the data is shared."""
    renamed = Image()
    renamed.header = message.header
    renamed.height, renamed.width, renamed.step = message.height, message.width, message.step
    renamed.is_bigendian = message.is_bigendian
    renamed.encoding = encoding
    renamed.data = message.data
    return renamed
