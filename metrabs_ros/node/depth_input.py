"""Depth images of a camera: calibration, choice by stamp, decoding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.depth_images import (
    DATA,
    MAX_OFFSET_NS,
    DepthArray,
    decompress_depth,
    depth_camera,
    is_registered,
    to_depth,
)
from metrabs_ros.conversions.stamps import NS_PER_S, to_ns
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.depth_buffer import (
    MAX_MESSAGE_BYTES,
    DepthBuffer,
    DepthMessage,
)
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.synchronisation import is_oversized
from metrabs_ros.options import View
from metrabs_ros.placement.depth_image import DepthImage

MISSING, UNREGISTERED = 'no depth image', 'depth not registered'
"""Causes of images without a depth image, although it is configured."""
MAX_GAP_S = 1.0
"""
Images without a depth image count as fallback if no image had one for this time.

Depth images are often published at a lower rate than images.
"""


class DepthInput:
    """
    Provides the depth image of each image of one camera.

    Messages are added in the executor thread, and decoded in the worker thread.

    Parameters
    ----------
    message_type
        Image, or CompressedImage of the transport compressedDepth.
    report
        Called with cause and explanation if the depth of an image cannot be used.
    """

    def __init__(
        self, message_type: type[Image | CompressedImage], report: Callable[[str, str], None]
    ) -> None:
        self.buffer = DepthBuffer()
        self.topic = self.info_topic = ''
        """Names of the topics, for messages and for the lookup of publishers."""
        self._message_type = message_type
        self._report = report
        self._info: CameraInfo | None = None
        self._used_s = -np.inf
        self._decoded: tuple[DepthMessage, Header, DepthArray] | None = None

    @property
    def has_info(self) -> bool:
        """Whether a camera_info was received."""
        return self._info is not None

    def add_info(self, info: CameraInfo) -> None:
        """Set the calibration of the depth images."""
        if not is_oversized(info):
            self._info = info

    def is_worth_waiting(self, header: Header) -> bool:
        """Return whether a better depth image for an image may still arrive."""
        return self.buffer.is_worth_waiting(to_ns(header.stamp))

    def take_for(self, header: Header) -> DepthMessage | None:
        """Return the nearest depth image for an image that does not wait any longer."""
        return self.buffer.take_for(to_ns(header.stamp))

    def prepare(
        self, message: DepthMessage | None, view: View, header: Header, current: Settings
    ) -> DepthImage | None:
        """
        Decode the depth image of an image; None if it cannot be used, which is reported.

        Parameters
        ----------
        message
            Depth image with the nearest stamp, if any.
        view, header
            The image, its camera and its header.
        current
            Settings.
        """
        try:
            return self._prepare(message, view, header, current)
        except UnusableInput as error:
            self._report(error.cause, f'depth is not used: {error}')
        return None

    def _prepare(
        self, message: DepthMessage | None, view: View, header: Header, current: Settings
    ) -> DepthImage | None:
        now_s = time.monotonic()
        image_ns = to_ns(header.stamp)
        if message is None or abs(message.stamp_ns - image_ns) > MAX_OFFSET_NS:
            if now_s - self._used_s > MAX_GAP_S:
                raise self._missing(message, image_ns)
            return None
        depth_header, depth_mm = self._decode(message, current.max_image_pixels)
        self._check_registered(depth_header, header, 'depth images have')
        camera = self._camera(depth_mm.shape, view, header, current)
        self._used_s = now_s
        return DepthImage(depth_mm, camera)

    def _missing(self, message: DepthMessage | None, image_ns: int) -> UnusableInput:
        if message is None:
            return UnusableInput(
                MISSING,
                f'no depth image was received on {self.topic}; check that it is published, and '
                'that the parameter depth_transport is that of the publisher',
            )
        difference_s = (image_ns - message.stamp_ns) / NS_PER_S
        return UnusableInput(
            MISSING,
            f'the stamp of the nearest depth image on {self.topic} is {abs(difference_s):.3f} s '
            f'{"before" if difference_s > 0 else "after"} that of the image; at most '
            f'{MAX_OFFSET_NS / NS_PER_S:g} s are allowed. Check that depth images are still '
            'published, and with the clock of the camera',
        )

    def _decode(self, message: DepthMessage, max_pixels: int) -> tuple[Header, DepthArray]:
        """Return header and depth [H, W] of a message; the latest one is stored."""
        # At a lower rate, several images have the same depth image.
        if self._decoded is None or self._decoded[0] is not message:
            self._decoded = None
            content = self._deserialise(message)
            decode = to_depth if self._message_type is Image else decompress_depth
            self._decoded = message, content.header, decode(content, max_pixels)
        _, header, depth_mm = self._decoded
        return header, depth_mm

    def _deserialise(self, message: DepthMessage) -> Any:
        if not message.serialised:
            raise UnusableInput(
                DATA,
                f'the depth image has {message.size_bytes} bytes; up to {MAX_MESSAGE_BYTES} bytes '
                'are processed',
            )
        try:
            return deserialize_message(message.serialised, self._message_type)
        # Invalid data can raise any exception in rclpy.
        except Exception as error:
            raise UnusableInput(
                DATA, f'the depth image is not valid ({printable(error, 200)})'
            ) from error

    def _check_registered(self, own: Header, header: Header, what: str) -> None:
        if not is_registered(own.frame_id, header.frame_id):
            raise UnusableInput(
                UNREGISTERED,
                f"the {what} the frame '{printable(own.frame_id, 100)}', but the images have "
                f"'{printable(header.frame_id, 100)}'; register depth to the camera: with an "
                'option of the camera driver (aligned or registered depth), or with the node '
                'register of depth_image_proc',
            )

    def _camera(
        self, shape: tuple[int, ...], view: View, header: Header, current: Settings
    ) -> Camera:
        """Return the camera of the depth image: its own, or that of an image of the same size."""
        info = self._info
        if info is not None:
            self._check_registered(info.header, header, "depth images' camera_info has")
        is_rectified = current.rectified == 'true' or (
            current.rectified == 'auto'
            and 'image_rect' in self.topic
            and info is not None
            and any(info.p)
        )
        try:
            return depth_camera(
                shape,
                view.image.shape,
                view.camera,
                info,
                is_rectified,
            )
        except UnusableInput as error:
            raise UnusableInput(error.cause, f'{error}; the topic is {self.info_topic}') from error
