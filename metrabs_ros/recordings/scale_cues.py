"""Ground planes, depth images and camera poses for the frames of a bag."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.depth_images import MAX_OFFSET_NS
from metrabs_ros.conversions.stamps import NS_PER_S, to_ns
from metrabs_ros.conversions.transforms import is_person_frame
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MM_PER_M
from metrabs_ros.placement.ground_plane import MIN_DROP_MM, GroundPlane
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.limits import MIB
from metrabs_ros.recordings.recording import RecordedFrame, size_of
from metrabs_ros.recordings.topic_selection import ImageStream
from metrabs_ros.recordings.transform_buffer import Transform, TransformBuffer
from metrabs_ros.recordings.typestore import TRANSFORMS, deserialize

LOOK_AHEAD_NS = 300_000_000
"""
Time of recording after an image in which its transforms and its depth image are expected.

Drivers publish depth images, and localisation publishes transforms, with a delay.
"""
MAX_WAITING_BYTES, MAX_WAITING_FRAMES = 256 * MIB, 1000
"""Limits of the images that wait; beyond, the oldest one does not wait any longer."""
MAX_DEPTH_BYTES, MAX_DEPTH_IMAGES = 256 * MIB, 1000
"""Limits of the depth images in memory; beyond, the oldest one is removed."""
MAX_STATIC_MESSAGES = 10_000
"""Maximum number of messages of /tf_static that are read in advance."""
TF, TF_STATIC = '/tf', '/tf_static'
TRANSFORM_TYPES = (TRANSFORMS, 'tf/msg/tfMessage')
"""The current type of TF messages, and that of the first versions of ROS 1."""


class CueOptions(NamedTuple):
    """
    The cues of the person scale to use, and the frame of camera poses.

    Parameters
    ----------
    depth
        Topic of the depth images; ``auto`` to select one per camera, empty to use none.
    ground_frame
        TF frame with z up; empty if the ground plane is not used.
    ground_height_m
        Height of the floor in this frame, in metres.
    fixed_frame
        TF frame in which the poses of the cameras are needed; empty if they are not.
    """

    depth: str = ''
    ground_frame: str = ''
    ground_height_m: float = 0.0
    fixed_frame: str = ''


NO_CUES = CueOptions()


class FrameDelay:
    """
    Holds the frames of a bag until the messages shortly after them have been read.

    Parameters
    ----------
    wait_ns
        Time of recording after a frame that is read before the frame is returned.
    max_bytes, max_frames
        Limits of the frames that wait.
    """

    def __init__(
        self,
        wait_ns: int,
        max_bytes: int = MAX_WAITING_BYTES,
        max_frames: int = MAX_WAITING_FRAMES,
    ) -> None:
        self._wait_ns = wait_ns
        self._max_bytes, self._max_frames = max_bytes, max_frames
        self._waiting: collections.deque[RecordedFrame] = collections.deque()
        self._bytes = 0

    def put(self, frame: RecordedFrame) -> None:
        """Append a frame."""
        self._waiting.append(frame)
        self._bytes += size_of(frame)

    def due(self, time_ns: int) -> Iterator[RecordedFrame]:
        """Return the frames that need not wait for messages from a time of recording on."""
        while self._waiting and (
            self._waiting[0].time_ns + self._wait_ns < time_ns
            or self._bytes > self._max_bytes
            or len(self._waiting) > self._max_frames
        ):
            yield self._next()

    def rest(self) -> Iterator[RecordedFrame]:
        """Return all frames."""
        while self._waiting:
            yield self._next()

    def _next(self) -> RecordedFrame:
        frame = self._waiting.popleft()
        self._bytes -= size_of(frame)
        return frame


class _StampedDepth(NamedTuple):
    """A depth image message, its topic and its stamp."""

    topic: Topic
    stamp_ns: int
    message: Any


class RecordedDepths:
    """
    The latest depth images of all cameras.

    Parameters
    ----------
    max_bytes, max_images
        Limits of the images in memory.
    """

    def __init__(
        self, max_bytes: int = MAX_DEPTH_BYTES, max_images: int = MAX_DEPTH_IMAGES
    ) -> None:
        self._max_bytes, self._max_images = max_bytes, max_images
        self._images: collections.deque[_StampedDepth] = collections.deque()
        self._bytes = 0

    def put(self, topic: Topic, message: Any) -> None:
        """Store the message of a depth image."""
        self._images.append(_StampedDepth(topic, to_ns(message.header.stamp), message))
        self._bytes += len(message.data)
        while self._bytes > self._max_bytes or len(self._images) > self._max_images:
            self._bytes -= len(self._images.popleft().message.data)

    def nearest(self, topic: Topic, stamp_ns: int) -> Any:
        """
        Return the depth image of a topic with the nearest stamp.

        Raises
        ------
        UnusableInput
            If there is none within `MAX_OFFSET_NS`.
        """
        images = [image for image in self._images if image.topic == topic]
        nearest = min(images, key=lambda image: abs(image.stamp_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest.stamp_ns - stamp_ns) > MAX_OFFSET_NS:
            raise UnusableInput(
                'none at this time',
                f'{printable(topic.name)} has no depth image within '
                f'{MAX_OFFSET_NS / NS_PER_S:g} s of the image',
            )
        return nearest.message


class ScaleCues:
    """
    Adds the cues of the person scale, and camera poses, to the frames of a bag.

    Parameters
    ----------
    streams
        The image topics, in the order of the cameras of the recording.
    bag
        The bag.
    options
        The cues to use.
    """

    def __init__(self, streams: Sequence[ImageStream], bag: Bag, options: CueOptions) -> None:
        self._streams = streams
        self._bag = bag
        self._ground_frame = options.ground_frame
        self._ground_height_mm = MM_PER_M * options.ground_height_m
        self._fixed_frame = options.fixed_frame
        needs_transforms = options.ground_frame or options.fixed_frame
        self._transform_topics = transform_topics(bag) if needs_transforms else set()
        self._depth_topics = {stream.depth.topic for stream in streams if stream.depth is not None}
        self.pose_topics = self._transform_topics if options.fixed_frame else set()
        """The topics with the poses of the cameras, if they are needed."""
        self.topics = self._transform_topics | self._depth_topics
        """The topics of the messages to `put`."""
        self.wait_ns = LOOK_AHEAD_NS if self.topics else -1
        """Time of recording after an image after which its cues are complete."""

    def start(self) -> None:
        """Start at the beginning of the bag; read the static transforms in advance."""
        # A latched message may have been recorded after the first images.
        self.transforms = TransformBuffer()
        read_static_transforms(self._bag, self._transform_topics, self.transforms)
        self._depths = RecordedDepths()
        # They are counted when they are read again.
        self.transforms.rejected, self.transforms.rejection = 0, ''

    def put(self, message: BagMessage) -> None:
        """Store the content of a message of the bag; others than those of `topics` are ignored."""
        if message.topic in self._transform_topics:
            is_static = message.topic.name == TF_STATIC
            put = self.transforms.put_static if is_static else self.transforms.put
            for transform in _transforms(message):
                put(transform)
        elif message.topic in self._depth_topics:
            depth = deserialize(message)
            if depth is not None:
                self._depths.put(message.topic, depth)

    def add_to(self, frame: RecordedFrame) -> RecordedFrame:
        """Return a frame with its ground plane, the message of its depth image, and its pose."""
        return frame._replace(
            ground=self._ground(frame), depth=self._depth(frame), pose=self._pose(frame)
        )

    def _ground(self, frame: RecordedFrame) -> GroundPlane | UnusableInput | None:
        if not self._ground_frame:
            return None
        try:
            transform = self._lookup(self._ground_frame, frame)
            translation_mm = MM_PER_M * transform.translation_m
            return _checked(
                GroundPlane.from_transform(
                    transform.rotation, translation_mm, self._ground_height_mm
                )
            )
        except UnusableInput as error:
            return UnusableInput(
                f'ground plane, {error.cause}',
                f"ground frame '{printable(self._ground_frame)}': {error}",
            )

    def _pose(self, frame: RecordedFrame) -> FloatArray | UnusableInput | None:
        if not self._fixed_frame:
            return None
        try:
            transform = self._lookup(self._fixed_frame, frame)
        except UnusableInput as error:
            # Counted for each camera: those of the others can be known.
            name = printable(self._streams[frame.camera].topic.name)
            return UnusableInput(f'camera pose, {name}, {error.cause}', f'{name}: {error}')
        rotation = transform.rotation.T
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -MM_PER_M * rotation @ transform.translation_m
        return pose

    def _lookup(self, target: str, frame: RecordedFrame) -> Transform:
        """Return the transform from the camera of a frame to a target frame."""
        if not frame.frame_id:
            raise UnusableInput('no frame_id', 'the images have no frame_id')
        if not self._transform_topics:
            raise UnusableInput(
                'no transform', f'the bag has no transforms (topics {TF} and {TF_STATIC})'
            )
        return self.transforms.lookup(target, frame.frame_id, frame.stamp_ns)

    def _depth(self, frame: RecordedFrame) -> Any:
        """Return the depth message of a frame, or an `UnusableInput`; None if it is not used."""
        stream = self._streams[frame.camera].depth
        if stream is None:
            return None
        try:
            depth = self._depths.nearest(stream.topic, frame.stamp_ns)
        except UnusableInput as error:
            return UnusableInput(f'depth image, {error.cause}', str(error))
        return depth


def transform_topics(bag: Bag) -> set[Topic]:
    """Return the topics of a bag with transforms."""
    return {
        topic
        for topic in bag.counts
        if topic.name in (TF, TF_STATIC) and topic.msgtype in TRANSFORM_TYPES
    }


def read_static_transforms(
    bag: Bag, topics: Collection[Topic], transforms: TransformBuffer
) -> None:
    """Add the first transform of each static frame in some topics of a bag to a buffer."""
    static = [topic for topic in topics if topic.name == TF_STATIC]
    messages = bag.messages(static) if static else iter(())
    for _, message in zip(range(MAX_STATIC_MESSAGES), messages):
        for transform in _transforms(message):
            if not transforms.has_static(transform.child_frame_id):
                transforms.put_static(transform)


def _checked(plane: GroundPlane) -> GroundPlane:
    """Return a ground plane; raise an `UnusableInput` if the camera is not above it."""
    if not plane.is_usable:
        raise UnusableInput(
            'camera height',
            f'the floor is {plane.camera_height_mm / MM_PER_M:.2f} m below the camera; it must be '
            f'at least {MIN_DROP_MM / MM_PER_M:g} m: check that the frame has z up, and the '
            'height of the floor (--ground-height)',
        )
    return plane


def _transforms(message: BagMessage) -> list[Any]:
    """Return the transforms in a message, except those of people in earlier results."""
    # Both types of messages have the same fields.
    tree = deserialize(message._replace(topic=message.topic._replace(msgtype=TRANSFORMS)))
    transforms = [] if tree is None else tree.transforms
    return [own for own in transforms if not is_person_frame(own.child_frame_id)]
