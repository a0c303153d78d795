"""
Complete a camera's images with the messages and transforms that belong to them.

message_filters subscribes.  Its `TimeSynchronizer` does not fit: it needs a camera_info for every
image, never gives up on a set, and drops images without telling, after a jump back in time all
of them, as it drops the lowest stamps first.  Its `Cache` raises on stamps before 1970 and finds
messages only by going through all of them.  So the messages that wait are kept here.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from metrabs_ros.node.detections import is_too_large
from metrabs_ros.node.drops import DEACTIVATED, NEWER_FRAME
from metrabs_ros.node.size_limited_subscription import OversizedMessage

FIRST_INFO_TIMEOUT_S = 0.5
"""How long images wait for the first camera_info of all, counted from the first image."""
INFO_TIMEOUT_S = 0.1
"""How long an image waits for its own camera_info where images usually have one."""
DETECTIONS_TIMEOUT_S = 0.5
MAX_PENDING = 16
"""Images of a camera that wait at the same time: half a second at 30 Hz."""
MAX_PENDING_BYTES = 64 * 1024**2
"""Of the images that wait.  Two of any size may."""
MAX_INFO_COEFFS = 100
"""A camera_info with more coefficients is no lens model's, and not kept by its stamp."""
MAX_INFO_CHARS = 1000
"""Of all texts in a camera_info; one with longer texts is not kept by its stamp, either."""
MAX_KEPT = 60

Message = TypeVar('Message')
Key = tuple[int, int]


class StampedMessages(Generic[Message]):
    """The messages that were received last, by their stamps."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[Key, Message] = OrderedDict()

    def put(self, key: Key, message: Message) -> None:
        """Keep a message in place of an earlier one of the same stamp."""
        # Removed first, so that it counts as received last.
        self._by_stamp.pop(key, None)
        self._by_stamp[key] = message
        if len(self._by_stamp) > MAX_KEPT:
            self._by_stamp.popitem(last=False)

    def get(self, key: Key) -> Message | None:
        """Return the message of a stamp, if it is kept."""
        return self._by_stamp.get(key)


def key_of(stamp: Time) -> Key:
    """Return a stamp as a key; unlike `rclpy.time.Time`, it may be before 1970."""
    return stamp.sec, stamp.nanosec


@dataclasses.dataclass(frozen=True)
class Requirements:
    """
    What images have to wait for beside their camera_info.

    Parameters
    ----------
    detections
        Whether each needs detections of its stamp.
    transforms
        Each tells whether a transform that an image with a header needs is available now.
    transforms_timeout_s
        How long to wait for these at most.
    """

    detections: bool = False
    transforms: Sequence[Callable[[Header], bool]] = ()
    transforms_timeout_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class SynchronisedImage:
    """
    An image and what belongs to it.

    Parameters
    ----------
    image
        The message.
    info
        Its own camera_info, or else the latest; None if none has come.
    detections
        Of its stamp, if these are required.
    received_s, completed_s
        When the image came, and when the last of the others did, by `time.monotonic`.
    """

    image: Any
    info: CameraInfo | None
    detections: Any
    received_s: float
    completed_s: float


# Compared by identity: two images can be equal, and comparing pixels takes long.
@dataclasses.dataclass(eq=False)
class _PendingImage:
    image: Any
    stamp: Key
    received_s: float
    requirements: Requirements
    missing_transforms: list[Callable[[Header], bool]]
    info: CameraInfo | None
    detections: Any

    @property
    def size_bytes(self) -> int:
        return len(self.image.data)


class Synchroniser:
    """
    Completes each image of a camera, or drops it after a time limit.

    Nothing blocks: images wait in a short queue, which is looked at when a message or a transform
    comes in, and when the time limit of an image has passed.  Time limits are counted from when an
    image is received, on a clock that neither simulated time nor a change of the date affects.

    The newest complete image counts: those that came before it are dropped.

    Parameters
    ----------
    node
        The node whose executor runs the timer.
    deliver
        Called with every image that is complete.
    drop
        Called for every image that is not delivered, with the cause and an explanation, or None if
        it is dropped in normal operation.
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
        self._infos: StampedMessages[CameraInfo] = StampedMessages()
        self._detections: StampedMessages[Any] = StampedMessages()
        self._latest_info: CameraInfo | None = None
        self._latest_stamp: Key | None = None
        self._first_received_s: float | None = None
        # Most drivers send a camera_info with each image, some rarely or once and for all.
        self._images_have_infos = True
        self._timer = node.create_timer(
            DETECTIONS_TIMEOUT_S, self.check, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()

    @property
    def has_info(self) -> bool:
        """Whether any camera_info has come."""
        return self._latest_info is not None

    def add_image(self, image: Any, requirements: Requirements) -> None:
        """Take an image, which is delivered at once if all that it needs is there."""
        now_s = time.monotonic()
        with self._lock:
            if self._is_closed:
                self._drop(DEACTIVATED, None)
                return
            stamp = key_of(image.header.stamp)
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
        """Take a camera_info."""
        with self._lock:
            self._latest_info = info
            stamp = key_of(info.header.stamp)
            # Too large a message is not kept, but given to its image, which says so.
            if not _is_large(info):
                self._infos.put(stamp, info)
            for pending in self._pending:
                if pending.stamp == stamp:
                    pending.info = info
            self._images_have_infos |= stamp == self._latest_stamp
            self._advance(time.monotonic())

    def add_detections(self, detections: Any) -> None:
        """Take a vision_msgs/Detection2DArray, or what is known of one that was refused."""
        with self._lock:
            stamp = key_of(detections.header.stamp)
            # Too large a message is not kept, but given to its image, which says so.
            if isinstance(detections, OversizedMessage) or not is_too_large(detections):
                self._detections.put(stamp, detections)
            for pending in self._pending:
                if pending.stamp == stamp and pending.requirements.detections:
                    pending.detections = detections
            self._advance(time.monotonic())

    def check(self) -> None:
        """Look at the images that wait: a transform has come, or a time limit has passed."""
        with self._lock:
            self._advance(time.monotonic())

    def close(self) -> None:
        """Drop all images that wait, and those that still come."""
        with self._lock:
            self._is_closed = True
            self._node.destroy_timer(self._timer)
            for _ in self._pending:
                self._drop(DEACTIVATED, None)
            self._pending.clear()

    def _limit_pending(self) -> None:
        # The oldest is the next to be complete, and stays: where messages are later than images
        # can wait, none would ever be complete if each made way for the next.
        while len(self._pending) > 2 and (
            len(self._pending) > MAX_PENDING
            or sum(pending.size_bytes for pending in self._pending) > MAX_PENDING_BYTES
        ):
            del self._pending[-2]
            self._drop(NEWER_FRAME, None)

    def _advance(self, now_s: float) -> None:
        """Deliver or drop images, and set the timer for those that go on waiting."""
        if not self._pending:
            return
        # Again, as an image without its own camera_info ends the wait of the others for theirs.
        while (complete := self._newest_complete(now_s)) is not None:
            index = self._pending.index(complete)
            for _ in self._pending[:index]:
                self._drop(NEWER_FRAME, None)
            del self._pending[: index + 1]
            self._deliver(self._completed(complete, now_s))
        self._drop_overdue(now_s)
        if self._pending:
            # Limits that passed did not complete an image, which lacks something else, too.
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
        return not self._lacks_transforms(pending) or now_s >= _transforms_deadline_s(pending)

    def _lacks_transforms(self, pending: _PendingImage) -> bool:
        pending.missing_transforms = [
            is_available
            for is_available in pending.missing_transforms
            if not is_available(pending.image.header)
        ]
        return bool(pending.missing_transforms)

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
                f'no detections of the stamp {sec}.{nanosec:09} came within '
                f"{DETECTIONS_TIMEOUT_S} s of the image; does your detector keep the image's "
                'stamp?',
            )

    def _info_deadline_s(self, pending: _PendingImage) -> float:
        """Return until when an image waits for its own camera_info, or for any."""
        if self._latest_info is None and self._first_received_s is not None:
            return self._first_received_s + FIRST_INFO_TIMEOUT_S
        return pending.received_s + (INFO_TIMEOUT_S if self._images_have_infos else 0.0)

    def _deadlines_s(self, pending: _PendingImage) -> Iterator[float]:
        """Return the time limits of what an image lacks."""
        if pending.info is None:
            yield self._info_deadline_s(pending)
        if pending.requirements.detections and pending.detections is None:
            yield _detections_deadline_s(pending)
        if pending.missing_transforms:
            yield _transforms_deadline_s(pending)


def _is_large(info: CameraInfo) -> bool:
    chars = len(info.distortion_model) + len(info.header.frame_id)
    return len(info.d) > MAX_INFO_COEFFS or chars > MAX_INFO_CHARS


def _detections_deadline_s(pending: _PendingImage) -> float:
    return pending.received_s + DETECTIONS_TIMEOUT_S


def _transforms_deadline_s(pending: _PendingImage) -> float:
    return pending.received_s + pending.requirements.transforms_timeout_s
