"""Selection of the image topics of a bag, and of the CameraInfo topic of each of them."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metrabs_ros.conversions.depth_images import is_registered
from metrabs_ros.conversions.stamps import to_ns
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import Topic
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.input_files import join_names
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    deserialize,
)
from metrabs_ros.regular_file import shown

MAX_STORED_INFOS = 200
"""Maximum number of CameraInfo messages in memory, per camera."""
DEPTH_ENCODINGS = ('16UC1', '32FC1')
AUTO_DEPTH = 'auto'
"""Name that selects the depth topic of each camera."""
RESULT_TOPICS = re.compile(r'.*/(pose|fusion)/(skeletons|markers|image_annotated)')
"""Topics that the pose node, the fusion node and annotate publish."""
FUSED_TOPIC = re.compile(r'.*/fusion/skeletons')
"""Topics with people that were fused from several cameras."""
IMAGE_VARIANT = re.compile(
    r'(.*/)image(_raw|_rect|_color|_mono|_rect_color|_rect_raw|_rect_mono)?'
)
"""Names that image_pipeline gives to one camera's image before and after each step."""


class ImageStream:
    """
    An image topic and the CameraInfo messages that belong to it.

    Parameters
    ----------
    topic
        The image topic.
    namespace
        Namespace of the result topics.
    """

    def __init__(self, topic: Topic, namespace: str) -> None:
        self.topic = topic
        self.namespace = namespace
        self.info_topic: Topic | None = None
        self.depth: ImageStream | None = None
        """Depth images that are registered to these images."""
        self.first_info: Any = None
        self._infos: dict[int, Any] = {}
        # The reading thread writes, the thread of the network reads.
        self._lock = threading.Lock()

    @property
    def base_name(self) -> str:
        """The topic name without the suffix of compressed images."""
        return self.topic.name.removesuffix('/compressed').removesuffix('/compressedDepth')

    def put_info(self, info: Any) -> None:
        """Store a CameraInfo; only the last `MAX_STORED_INFOS` are kept."""
        with self._lock:
            self._infos[to_ns(info.header.stamp)] = info
            if len(self._infos) > MAX_STORED_INFOS:
                del self._infos[next(iter(self._infos))]

    def info_at(self, stamp_ns: int) -> Any:
        """Return the last CameraInfo up to a stamp, or the first of the bag if there is none."""
        with self._lock:
            earlier = [stamp for stamp in self._infos if stamp <= stamp_ns]
            return self._infos[max(earlier)] if earlier else self.first_info


def select_image_streams(
    bag: Bag,
    names: Sequence[str],
    has_calibration: bool,
    has_fov: bool,
    depth: str,
    warn: Callable[[str], None],
) -> list[ImageStream]:
    """
    Select the image topics to process, one per camera, their CameraInfo and depth topics.

    Parameters
    ----------
    bag
        The bag.
    names
        Names of the image topics; empty to select one topic per camera.
    has_calibration
        Whether the calibration comes from a file, so that CameraInfo messages are not used.
    has_fov
        Whether a camera without CameraInfo is approximated by a field of view.
    depth
        Name of the depth topic; `AUTO_DEPTH` to select one per camera, empty to use none.
    warn
        Called with a message for each image topic that is not selected.

    Raises
    ------
    UnreadableRecording
        If a named topic has no images, or no image topic can be processed.
    """
    selection = _Selection(bag, warn)
    streams = selection.image_streams(names)
    selection.assign_infos(streams, has_calibration)
    if depth:
        selection.assign_depths(streams, depth)
    selection.warn_about_unused_depths(streams)
    usable = [s for s in streams if has_calibration or has_fov or s.first_info is not None]
    for stream in streams:
        if stream not in usable:
            warn(
                f'{printable(stream.topic.name)} is skipped: it has no CameraInfo (expected on '
                f'{printable(_namespace(stream.base_name))}/camera_info). Give a calibration with '
                '--camera-info FILE, or an approximate field of view with --fov DEGREES'
            )
    if not usable:
        raise UnreadableRecording(
            f'{shown(bag.path)} has no images with a CameraInfo; give a calibration with '
            '--camera-info FILE, or an approximate field of view with --fov DEGREES (distances '
            'are then approximate)'
        )
    return usable


class _Selection:
    """The topics of a bag, and the first message of those that have been read."""

    def __init__(self, bag: Bag, warn: Callable[[str], None]) -> None:
        self._bag = bag
        self._warn = warn
        self._first: dict[Topic, Any] = {}
        self._skipped_depths: list[Topic] = []

    def image_streams(self, names: Sequence[str]) -> list[ImageStream]:
        """Return the image topics with the given names, or by default one per camera."""
        topics = [
            topic
            for topic in self._bag.sorted_topics()
            if topic.msgtype in (IMAGE, COMPRESSED_IMAGE)
            and not RESULT_TOPICS.fullmatch(topic.name)
        ]
        if names:
            by_name = {topic.name: topic for topic in topics}
            missing = [name for name in names if name not in by_name]
            if missing:
                raise UnreadableRecording(
                    f'{shown(self._bag.path)} has no images on {join_names(missing)}; it has '
                    f'images on {join_names(by_name) or "no topic"}'
                )
            return _with_namespaces([by_name[name] for name in names])
        if not topics:
            found = join_names([f'{t.name} ({t.msgtype})' for t in self._bag.sorted_topics()])
            raise UnreadableRecording(
                f'{shown(self._bag.path)} has no topic of type sensor_msgs/Image or '
                f'sensor_msgs/CompressedImage; it has {found or "no topics"}'
            )
        self._read_first(topics)
        self._skipped_depths = [topic for topic in topics if self._is_depth(topic)]
        return _with_namespaces(
            self._one_per_camera([t for t in topics if t not in self._skipped_depths])
        )

    def assign_infos(self, streams: Sequence[ImageStream], has_calibration: bool) -> None:
        """
        Assign a CameraInfo topic to each image topic that has one.

        It is the topic ``camera_info`` next to the image, the one with the frame of the image, or
        the only one of the bag.
        """
        infos = [topic for topic in self._bag.sorted_topics() if topic.msgtype == CAMERA_INFO]
        self._read_first([*infos, *(s.topic for s in streams if s.topic not in self._first)])
        by_name = {topic.name: topic for topic in infos}
        by_frame: dict[str, Topic] = {}
        for topic in infos:
            by_frame.setdefault(self._first_frame_id(topic), topic)
        only = infos[0] if len(infos) == len(streams) == 1 else None
        for stream in streams:
            frame_id = self._first_frame_id(stream.topic)
            stream.info_topic = _info_next_to(stream, by_name) or (
                by_frame.get(frame_id, only) if frame_id else only
            )
            if stream.info_topic is not None and not has_calibration:
                stream.first_info = self._first.get(stream.info_topic)

    def assign_depths(self, streams: Sequence[ImageStream], name: str) -> None:
        """
        Assign to each image topic a depth topic that is registered to it.

        Registered depth images have the same TF frame (REP 118).  Only the topic with the given
        name is used, unless that is `AUTO_DEPTH`.
        """
        taken = {stream.topic for stream in streams}
        candidates = [
            topic
            for topic in self._bag.sorted_topics()
            if topic.msgtype in (IMAGE, COMPRESSED_IMAGE)
            and topic not in taken
            and name in (AUTO_DEPTH, topic.name)
        ]
        self._read_first([topic for topic in candidates if topic not in self._first])
        candidates = [topic for topic in candidates if self._is_depth(topic)]
        if not candidates:
            problem = f'{shown(self._bag.path)} has no depth images'
            if name != AUTO_DEPTH:
                raise UnreadableRecording(f'{problem} on {printable(name)}')
            self._warn(problem)
            return
        depths: dict[Topic, ImageStream] = {}
        frames = [f'{topic.name} ({self._first_frame_id(topic)})' for topic in candidates]
        for stream in streams:
            topic = self._registered_depth(stream, candidates, is_only=len(streams) == 1)
            if topic is None:
                self._warn(
                    f'{printable(stream.topic.name)} is processed without depth images: its TF '
                    f"frame is '{printable(self._first_frame_id(stream.topic))}', and that of the "
                    f'depth images is a different one: {join_names(frames)}; register them with '
                    'depth_image_proc'
                )
                continue
            stream.depth = depths.setdefault(topic, ImageStream(topic, ''))
        infos = {topic.name: topic for topic in self._bag.counts if topic.msgtype == CAMERA_INFO}
        for stream in depths.values():
            # That with the same frame is the one of the images.
            stream.info_topic = _info_next_to(stream, infos)
            if stream.info_topic is not None:
                self._read_first([stream.info_topic])
                stream.first_info = self._first.get(stream.info_topic)

    def warn_about_unused_depths(self, streams: Sequence[ImageStream]) -> None:
        """Warn about depth topics that are neither processed as images nor used."""
        used = {stream.depth.topic for stream in streams if stream.depth is not None}
        for topic in self._skipped_depths:
            if topic not in used:
                self._warn(
                    f'{printable(topic.name)} is skipped: it has depth images '
                    f'({printable(self._encoding(topic))})'
                )

    def _registered_depth(
        self, stream: ImageStream, candidates: Sequence[Topic], is_only: bool
    ) -> Topic | None:
        """Return the depth topic that is registered to an image topic; None if there is none."""
        image_frame = self._first_frame_id(stream.topic)
        frames = {topic: self._first_frame_id(topic) for topic in candidates}
        registered = [
            topic
            for topic, frame in frames.items()
            if is_registered(frame, image_frame)
            # Without a frame, it is not known to which of several cameras depth images belong.
            and (is_only or (frame and image_frame))
        ]

        def preference(topic: Topic) -> tuple[Any, ...]:
            # Drivers name the depth images that they register so.
            is_named = 'registered' in topic.name or 'aligned' in topic.name
            return not is_named, *self._preference(topic)

        return min(registered, key=preference, default=None)

    def _read_first(self, topics: Sequence[Topic]) -> None:
        """Store the first message of each topic, images without their data."""
        for topic, serialized in self._bag.first_messages(topics).items():
            message = deserialize(serialized)
            if message is not None:
                is_image = topic.msgtype in (IMAGE, COMPRESSED_IMAGE)
                self._first[topic] = dataclasses.replace(message, data=()) if is_image else message

    def _is_depth(self, topic: Topic) -> bool:
        """Return whether the first message of a topic is a depth image."""
        encoding = self._encoding(topic)
        return encoding in DEPTH_ENCODINGS or 'compressedDepth' in f'{topic.name} {encoding}'

    def _encoding(self, topic: Topic) -> str:
        image = self._first.get(topic)
        return str(getattr(image, 'encoding', getattr(image, 'format', '')))

    def _one_per_camera(self, topics: Sequence[Topic]) -> list[Topic]:
        """Return one topic per camera; raw and compressed images share a camera."""
        by_camera: dict[str, list[Topic]] = {}
        for topic in topics:
            base = topic.name.removesuffix('/compressed')
            variant = IMAGE_VARIANT.fullmatch(base)
            by_camera.setdefault(variant[1] if variant else base, []).append(topic)
        selected = []
        for variants in by_camera.values():
            variants.sort(key=self._preference)
            selected.append(variants[0])
            for other in variants[1:]:
                self._warn(
                    f'{printable(other.name)} is skipped: it is of the same camera as '
                    f'{printable(variants[0].name)}; select it with --topics '
                    f'{printable(other.name)}'
                )
        return selected

    def _preference(self, topic: Topic) -> tuple[Any, ...]:
        """Return a sort key: topics with messages, uncompressed and unrectified ones first."""
        is_empty = self._bag.counts[topic] == 0
        return is_empty, topic.msgtype != IMAGE, 'rect' in topic.name, topic.name

    def _first_frame_id(self, topic: Topic) -> str:
        message = self._first.get(topic)
        return '' if message is None else str(message.header.frame_id)


def _info_next_to(stream: ImageStream, infos: Mapping[str, Topic]) -> Topic | None:
    """Return the CameraInfo topic that belongs to images by its name; None if there is none."""
    base = stream.base_name
    names = (f'{_namespace(base)}/camera_info', f'{base}/camera_info')
    return next((infos[name] for name in names if name in infos), None)


def _namespace(name: str) -> str:
    return name.rpartition('/')[0]


def _with_namespaces(topics: Sequence[Topic]) -> list[ImageStream]:
    """Assign a unique namespace to each topic: its own, or its name if others share it."""
    bases = [topic.name.removesuffix('/compressed') for topic in topics]
    namespaces = [_namespace(base) for base in bases]
    counts = Counter(namespaces)
    streams = []
    taken: set[str] = set()
    for topic, parent in zip(topics, namespaces):
        namespace = parent if counts[parent] == 1 else topic.name
        while namespace in taken:
            namespace = f'{namespace}_'
        taken.add(namespace)
        streams.append(ImageStream(topic, namespace))
    return streams
