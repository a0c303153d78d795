"""
Synchronisation of the images of a camera with camera_info, detections and transforms.

message_filters subscribes.  Its `TimeSynchronizer` is not used: it requires a camera_info for each
image, has no timeout, drops images without a notification, and drops all images after a jump back
in time, because it drops the lowest stamps first.  Its `Cache` raises exceptions for stamps before
1970 and uses a linear search.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from metrabs_ros.conversions.detections import is_too_large
from metrabs_ros.node.drops import DEACTIVATED, NEWER_FRAME
from metrabs_ros.node.size_limited_subscription import OversizedMessage
from metrabs_ros.node.steady_timer import create_steady_timer

FIRST_INFO_TIMEOUT_S = 0.5
"""Timeout for the first camera_info of a camera, counted from the first image."""
INFO_TIMEOUT_S = 0.1
"""Timeout for the camera_info of an image if images usually have one."""
DETECTIONS_TIMEOUT_S = 0.5
"""Timeout for the detections of an image."""
OPTIONAL_TIMEOUT_S = 0.05
"""
Timeout for optional inputs, counted from the time at which the image is otherwise complete.

It ends earlier if the next image arrives, so that no image is dropped because of it.
"""
MAX_PENDING = 16
"""Maximum number of pending images per camera: 0.5 s at 30 Hz."""
MAX_PENDING_BYTES = 64 * 1024**2
"""Maximum total size of pending images; two images of any size are allowed."""
MAX_INFO_COEFFS = 100
"""A camera_info with more distortion coefficients is not buffered."""
MAX_INFO_CHARS = 1000
"""A camera_info with more characters of text is not buffered."""
MAX_BUFFERED_MESSAGES = 60
"""Maximum number of messages in a `MessageBuffer`."""

Message = TypeVar('Message')
StampKey = tuple[int, int]


class MessageBuffer(Generic[Message]):
    """Buffer of the latest messages, indexed by stamp."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[StampKey, Message] = OrderedDict()

    def put(self, key: StampKey, message: Message) -> None:
        """Store a message; it replaces an earlier message with the same stamp."""
        # Removed first, so that the new entry is the latest.
        self._by_stamp.pop(key, None)
        self._by_stamp[key] = message
        if len(self._by_stamp) > MAX_BUFFERED_MESSAGES:
            self._by_stamp.popitem(last=False)

    def get(self, key: StampKey) -> Message | None:
        """Return the message with a stamp, or None."""
        return self._by_stamp.get(key)


def stamp_key(stamp: Time) -> StampKey:
    """Return a stamp as a dictionary key; unlike `rclpy.time.Time`, it may be before 1970."""
    return stamp.sec, stamp.nanosec


@dataclasses.dataclass(frozen=True)
class Requirements:
    """
    Inputs that images require in addition to camera_info.

    Parameters
    ----------
    detections
        Whether each image requires detections with its stamp.
    transforms
        Functions that return whether a required transform is available for an image header.
    transforms_timeout_s
        Timeout for the transforms, in seconds.
    optional
        Functions that return whether an optional input is missing for an image header, but may
        still arrive.
    """

    detections: bool = False
    transforms: Sequence[Callable[[Header], bool]] = ()
    transforms_timeout_s: float = 0.0
    optional: Sequence[Callable[[Header], bool]] = ()


@dataclasses.dataclass(frozen=True)
class SynchronisedImage:
    """
    Image with the messages that belong to it.

    Parameters
    ----------
    image
        Message of type Image or CompressedImage.
    info
        CameraInfo with the stamp of the image, or else the latest; None if none was received.
    detections
        Detections with the stamp of the image if these are required, else None.
    received_s, completed_s
        Times of reception of the image and of its last required input, by `time.monotonic`.
    """

    image: Any
    info: CameraInfo | None
    detections: Any
    received_s: float
    completed_s: float


# Compared by identity, because comparing pixels is slow and images may be equal.
@dataclasses.dataclass(eq=False)
class _PendingImage:
    image: Any
    stamp: StampKey
    received_s: float
    requirements: Requirements
    missing_transforms: list[Callable[[Header], bool]]
    info: CameraInfo | None
    detections: Any
    optional_deadline_s: float | None = None
    """Deadline of the optional inputs; None until all other inputs are complete."""

    @property
    def size_bytes(self) -> int:
        return len(self.image.data)


class Synchroniser:
    """
    Completes each image of a camera with its inputs, or drops it after a timeout.

    No call blocks.  Pending images are stored in a short queue, which is checked when a message or
    a transform arrives and when a timeout expires.  Timeouts start when an image is received, and
    use the steady clock, so that they are independent of simulated time.

    A complete image is delivered immediately, and older pending images are dropped.  Optional
    inputs never cause a drop: an image waits for them only until the next image arrives.

    Parameters
    ----------
    node
        Node that runs the timer.
    deliver
        Called with each complete image.
    drop
        Called for each image that is not delivered, with the cause and an explanation.  The
        explanation is None for drops of normal operation.
    """

    def __init__(
        self,
        node: Node,
        deliver: Callable[[SynchronisedImage], None],
        drop: Callable[[str, str | None], None],
    ) -> None:
        self._node = node
        self._deliver = deliver
        self._drop = drop
        self._lock = threading.Lock()
        self._is_closed = False
        self._pending: list[_PendingImage] = []
        self._infos: MessageBuffer[CameraInfo] = MessageBuffer()
        self._detections: MessageBuffer[Any] = MessageBuffer()
        self._latest_info: CameraInfo | None = None
        self._latest_stamp: StampKey | None = None
        self._first_received_s: float | None = None
        # Most drivers publish a camera_info with each image, some rarely or only once.
        self._images_have_infos = True
        self._timer = create_steady_timer(node, DETECTIONS_TIMEOUT_S, self.check)
        self._timer.cancel()

    @property
    def has_info(self) -> bool:
        """Whether a camera_info was received."""
        return self._latest_info is not None

    def add_image(self, image: Any, requirements: Requirements) -> None:
        """Add an image; it is delivered immediately if it is complete."""
        now_s = time.monotonic()
        with self._lock:
            if self._is_closed:
                self._drop(DEACTIVATED, None)
                return
            self._deliver_without_optional_inputs(now_s)
            stamp = stamp_key(image.header.stamp)
            if self._first_received_s is None:
                self._first_received_s = now_s
            self._latest_stamp = stamp
            info = self._infos.get(stamp)
            self._images_have_infos |= info is not None
            self._pending.append(
                _PendingImage(
                    image,
                    stamp,
                    now_s,
                    requirements,
                    list(requirements.transforms),
                    info,
                    self._detections.get(stamp) if requirements.detections else None,
                )
            )
            self._limit_pending()
            self._advance(now_s)

    def add_info(self, info: CameraInfo) -> None:
        """Add a camera_info."""
        with self._lock:
            self._latest_info = info
            stamp = stamp_key(info.header.stamp)
            # An oversized message is not buffered, but assigned to a pending image, which is then
            # dropped with an explanation.
            if not is_oversized(info):
                self._infos.put(stamp, info)
            for pending in self._pending:
                if pending.stamp == stamp:
                    pending.info = info
            self._images_have_infos |= stamp == self._latest_stamp
            self._advance(time.monotonic())

    def add_detections(self, detections: Any) -> None:
        """Add a vision_msgs/Detection2DArray, or the placeholder of an oversized one."""
        with self._lock:
            stamp = stamp_key(detections.header.stamp)
            # As above.  The placeholder of an oversized message is small.
            if isinstance(detections, OversizedMessage) or not is_too_large(detections):
                self._detections.put(stamp, detections)
            for pending in self._pending:
                if pending.stamp == stamp and pending.requirements.detections:
                    pending.detections = detections
            self._advance(time.monotonic())

    def check(self) -> None:
        """Check the pending images; called after new transforms and after a timeout."""
        with self._lock:
            self._advance(time.monotonic())

    def close(self) -> None:
        """Drop all pending images, and those that are added later."""
        with self._lock:
            self._is_closed = True
            self._node.destroy_timer(self._timer)
            for _ in self._pending:
                self._drop(DEACTIVATED, None)
            self._pending.clear()

    def _deliver_without_optional_inputs(self, now_s: float) -> None:
        """Deliver the image, if any, that waits for nothing but optional inputs."""
        waiting = [own for own in self._pending if own.optional_deadline_s is not None]
        for pending in waiting:
            pending.optional_deadline_s = now_s
        if waiting:
            self._advance(now_s)

    def _limit_pending(self) -> None:
        # The oldest image is kept because it is the next one to be completed.  Otherwise no image
        # would be completed if the latency of detections exceeds the length of the queue.
        while len(self._pending) > 2 and (
            len(self._pending) > MAX_PENDING
            or sum(pending.size_bytes for pending in self._pending) > MAX_PENDING_BYTES
        ):
            del self._pending[-2]
            self._drop(NEWER_FRAME, None)

    def _advance(self, now_s: float) -> None:
        """Deliver or drop images, and set the timer for the remaining ones."""
        if not self._pending:
            return
        # Repeated, because delivering an image without its own camera_info ends the timeout of the
        # others.
        while (complete := self._newest_complete(now_s)) is not None:
            index = self._pending.index(complete)
            for _ in self._pending[:index]:
                self._drop(NEWER_FRAME, None)
            del self._pending[: index + 1]
            self._deliver(self._completed(complete, now_s))
        self._drop_overdue(now_s)
        if self._pending:
            # After its timeouts have expired, an image may still lack another input.
            remaining_s = min(
                (
                    deadline_s - now_s
                    for pending in self._pending
                    for deadline_s in self._deadlines_s(pending)
                    if deadline_s > now_s
                ),
                default=INFO_TIMEOUT_S,
            )
            self._timer.timer_period_ns = max(1, round(1e9 * remaining_s))
            self._timer.reset()
        else:
            self._timer.cancel()

    def _newest_complete(self, now_s: float) -> _PendingImage | None:
        return next((p for p in reversed(self._pending) if self._is_complete(p, now_s)), None)

    def _completed(self, pending: _PendingImage, now_s: float) -> SynchronisedImage:
        if pending.info is None and self._latest_info is not None:
            self._images_have_infos = False
        return SynchronisedImage(
            pending.image,
            self._latest_info if pending.info is None else pending.info,
            pending.detections,
            pending.received_s,
            now_s,
        )

    def _is_complete(self, pending: _PendingImage, now_s: float) -> bool:
        if pending.info is None and now_s < self._info_deadline_s(pending):
            return False
        if pending.requirements.detections and pending.detections is None:
            return False
        pending.missing_transforms = [
            is_available
            for is_available in pending.missing_transforms
            if not is_available(pending.image.header)
        ]
        if pending.missing_transforms and now_s < _transforms_deadline_s(pending):
            return False
        return self._has_optional_inputs(pending, now_s)

    def _has_optional_inputs(self, pending: _PendingImage, now_s: float) -> bool:
        """Return whether an image, which has all other inputs, need not wait any longer."""
        if pending.optional_deadline_s is None:
            pending.optional_deadline_s = now_s + OPTIONAL_TIMEOUT_S
        if now_s >= pending.optional_deadline_s:
            return True
        header = pending.image.header
        return not any(is_missing(header) for is_missing in pending.requirements.optional)

    def _drop_overdue(self, now_s: float) -> None:
        def is_overdue(pending: _PendingImage) -> bool:
            lacks_detections = pending.requirements.detections and pending.detections is None
            return lacks_detections and now_s >= _detections_deadline_s(pending)

        overdue = [pending for pending in self._pending if is_overdue(pending)]
        self._pending = [pending for pending in self._pending if not is_overdue(pending)]
        for pending in overdue:
            sec, nanosec = pending.stamp
            self._drop(
                'no detections',
                f'no detections with the stamp {sec}.{nanosec:09} were received within '
                f'{DETECTIONS_TIMEOUT_S} s after the image; check that the detector copies the '
                'stamp of the image',
            )

    def _info_deadline_s(self, pending: _PendingImage) -> float:
        """Return the deadline for the camera_info of an image."""
        if self._latest_info is None and self._first_received_s is not None:
            return self._first_received_s + FIRST_INFO_TIMEOUT_S
        return pending.received_s + (INFO_TIMEOUT_S if self._images_have_infos else 0.0)

    def _deadlines_s(self, pending: _PendingImage) -> Iterator[float]:
        """Yield the deadlines of the missing inputs of an image."""
        if pending.info is None:
            yield self._info_deadline_s(pending)
        if pending.requirements.detections and pending.detections is None:
            yield _detections_deadline_s(pending)
        if pending.missing_transforms:
            yield _transforms_deadline_s(pending)
        if pending.optional_deadline_s is not None:
            yield pending.optional_deadline_s


def is_oversized(info: CameraInfo) -> bool:
    """Return whether a camera_info is too large to be stored."""
    chars = len(info.distortion_model) + len(info.header.frame_id)
    return len(info.d) > MAX_INFO_COEFFS or chars > MAX_INFO_CHARS


def _detections_deadline_s(pending: _PendingImage) -> float:
    return pending.received_s + DETECTIONS_TIMEOUT_S


def _transforms_deadline_s(pending: _PendingImage) -> float:
    return pending.received_s + pending.requirements.transforms_timeout_s
