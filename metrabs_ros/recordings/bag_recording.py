"""Bags as recordings of cameras: which topics are cameras, and what calibrates them."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.images import decompress, to_rgb
from metrabs_ros.conversions.transforms import frame_name
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size
from metrabs_ros.options import View
from metrabs_ros.recordings.bag_message import Recorded, Topic
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.calibration import Calibration
from metrabs_ros.recordings.image_files import MAX_PIXELS
from metrabs_ros.recordings.input_files import listed
from metrabs_ros.recordings.limits import MAX_NAME_CHARS
from metrabs_ros.recordings.message_types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IDL_START,
    IMAGE,
    TRANSFORMS,
    maker,
    types_of,
    typestore,
)
from metrabs_ros.recordings.recording import Frame, RecordedCamera
from metrabs_ros.recordings.stamps import NANOSECONDS, stamp_ns_of
from metrabs_ros.regular_file import shown

KEPT_INFOS = 200
VALID_TYPE = re.compile(r'[A-Za-z]\w*/(msg|srv|action)/[A-Za-z]\w*', re.ASCII)
DEPTH_ENCODINGS = ('16UC1', '32FC1')
OWN_OUTPUTS = re.compile(r'.*/pose/(skeletons|markers|image_annotated)')
"""What the node publishes, and what is written here."""
PEOPLE_FRAMES = re.compile(r'\w*person_\d+(_\w+)?')
VARIANT = re.compile(r'(.*/)image(_raw|_rect|_color|_mono|_rect_color|_rect_raw|_rect_mono)?')
"""What image_pipeline calls the stages of one camera's image."""


class _ImageStream:
    """
    A topic of images, and what calibrates them.

    Parameters
    ----------
    topic
        The topic.
    namespace
        Under which its people are written.
    """

    def __init__(self, topic: Topic, namespace: str) -> None:
        self.topic = topic
        self.namespace = namespace
        self.info_topic: Topic | None = None
        self.first_info: Any = None
        self._infos: dict[int, Any] = {}
        # They are put in where the bag is read, and looked up beside the network.
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """The name without what says how images were compressed."""
        return self.topic.name.removesuffix('/compressed')

    def put_info(self, info: Any) -> None:
        """Keep a calibration that came; of many the last ones."""
        with self._lock:
            self._infos[stamp_ns_of(info.header)] = info
            if len(self._infos) > KEPT_INFOS:
                del self._infos[next(iter(self._infos))]

    def info_at(self, stamp_ns: int) -> Any:
        """Return an image's own calibration, else the last before it, else the first of all."""
        with self._lock:
            before = [own for own in self._infos if own <= stamp_ns]
            return self._infos[max(before)] if before else self.first_info


class BagRecording:
    """
    A bag.

    Parameters
    ----------
    bag
        The bag; is closed with the recording.
    calibration
        Of all its cameras, instead of what the bag has.
    fov_degrees
        The field of view of cameras without calibration; 0 refuses them.
    topics
        The image topics to work on; by default one a camera.
    keep
        Whether its messages are there to be kept.
    tell
        Is told in a sentence of everything that is not as it should be.

    Raises
    ------
    UnreadableRecording
        If no camera can be worked on.
    """

    def __init__(
        self,
        bag: Bag,
        calibration: Calibration | None,
        fov_degrees: float,
        topics: Sequence[str],
        keep: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._bag = bag
        self._calibration = calibration
        self._fov_degrees = fov_degrees
        self._tell = tell
        self._first: dict[Topic, Any] = {}
        self._streams = self._calibrated(self._chosen(topics))
        for stream in self._streams:
            for topic in (stream.topic, stream.info_topic):
                if topic is not None and not _is_as_usual(topic):
                    tell(
                        f'the definition of {printable(topic.msgtype)} in {shown(bag.path)} is '
                        f'not that of ROS; {printable(topic.name)} is read by that of ROS'
                    )
        several = len(self._streams) > 1
        self.cameras = [
            RecordedCamera(
                stream.namespace,
                f'{frame_name(stream.namespace.strip("/"))}_' if several else '',
                stream.topic.name,
                bag.counts[stream.topic],
            )
            for stream in self._streams
        ]
        results = [topic for topic in bag.counts if OWN_OUTPUTS.fullmatch(topic.name)]
        if results and keep:
            names = listed(sorted(topic.name for topic in results))
            tell(
                f'{shown(bag.path)} has people in it already ({names}); they are replaced by the '
                'new ones'
            )
        others = [topic for topic in bag.counts if keep and topic not in set(results)]
        self.kept = [topic for topic in others if _can_be_written(topic)]
        lost = [topic.name for topic in others if not _can_be_written(topic)]
        if lost:
            tell(
                f'the topics {listed(lost)} are left out of the results: their names or types '
                'are not valid in ROS 2'
            )

    def __iter__(self) -> Iterator[Frame | Recorded]:
        """Return frames and messages; see `Recording`."""
        cameras = {stream.topic: i for i, stream in enumerate(self._streams)}
        calibrating: dict[Topic, list[_ImageStream]] = {}
        for stream in self._streams:
            if stream.info_topic is not None:
                calibrating.setdefault(stream.info_topic, []).append(stream)
        kept = set(self.kept)
        needed = {*kept, *cameras, *calibrating}
        for message in self._bag.messages([t for t in self._bag.counts if t in needed]):
            if message.topic in kept:
                yield from self._without_people(message)
            for stream in calibrating.get(message.topic, ()):
                info = self._read(message)
                if info is not None:
                    stream.put_info(info)
            if message.topic in cameras:
                yield self._frame(cameras[message.topic], message)

    def view(self, frame: Frame) -> View:
        """Return the image of a frame and its camera; see `Recording`."""
        stream = self._streams[frame.camera]
        if isinstance(frame.content, UnusableInput):
            raise frame.content
        if stream.topic.msgtype == IMAGE:
            image = to_rgb(frame.content)
        else:
            _check_size(frame.content)
            image = decompress(frame.content)
        return View(image, self._camera(stream, frame.stamp_ns, image.shape))

    def close(self) -> None:
        """Close the files."""
        self._bag.close()

    def _chosen(self, names: Sequence[str]) -> list[_ImageStream]:
        """Return the topics of images to work on, one a camera."""
        found = [
            topic
            for topic in self._bag.topics_by_name()
            if topic.msgtype in (IMAGE, COMPRESSED_IMAGE) and not OWN_OUTPUTS.fullmatch(topic.name)
        ]
        if names:
            known = {topic.name: topic for topic in found}
            missing = [name for name in names if name not in known]
            if missing:
                raise UnreadableRecording(
                    f'{shown(self._bag.path)} has no images on {listed(missing)}; it has them on '
                    f'{listed(known) or "no topic"}'
                )
            return _with_namespaces([known[name] for name in names])
        if not found:
            topics = listed([f'{t.name} ({t.msgtype})' for t in self._bag.topics_by_name()])
            raise UnreadableRecording(
                f'{shown(self._bag.path)} has no topic of sensor_msgs/Image or CompressedImage; '
                f'it has {topics or "no topics at all"}'
            )
        self._first |= self._first_of(found)
        pictures = [topic for topic in found if self._shows_colours(topic)]
        return _with_namespaces(self._one_a_camera(pictures))

    def _first_of(self, topics: Sequence[Topic]) -> dict[Topic, Any]:
        """Return the first message of each topic that has a readable one, without its data."""
        first = {}
        for topic, recorded in self._bag.first_messages(topics).items():
            message = self._read(recorded)
            if message is not None:
                is_image = topic.msgtype in (IMAGE, COMPRESSED_IMAGE)
                first[topic] = dataclasses.replace(message, data=()) if is_image else message
        return first

    def _shows_colours(self, topic: Topic) -> bool:
        """Tell whether images are such as people can be seen in, by the first of them."""
        image = self._first.get(topic)
        kind = str(getattr(image, 'encoding', getattr(image, 'format', '')))
        if kind in DEPTH_ENCODINGS or 'compressedDepth' in f'{topic.name} {kind}':
            self._tell(
                f'{printable(topic.name)} holds depths ({printable(kind)}), which are not worked '
                'on'
            )
            return False
        return True

    def _one_a_camera(self, topics: Sequence[Topic]) -> list[Topic]:
        """Return one topic of those that show the same camera's image in different stages."""
        by_camera: dict[str, list[Topic]] = {}
        for topic in topics:
            base = topic.name.removesuffix('/compressed')
            variant = VARIANT.fullmatch(base)
            by_camera.setdefault(variant[1] if variant else base, []).append(topic)
        chosen = []
        for same in by_camera.values():
            same.sort(key=self._preference)
            chosen.append(same[0])
            for other in same[1:]:
                self._tell(
                    f'{printable(other.name)} is of the same camera as {printable(same[0].name)} '
                    f'and left alone; --topics {printable(other.name)} takes it instead'
                )
        return chosen

    def _preference(self, topic: Topic) -> tuple[Any, ...]:
        """Sort what there is before what is empty, the whole before the compressed, the raw."""
        is_empty = self._bag.counts[topic] == 0
        return is_empty, topic.msgtype != IMAGE, 'rect' in topic.name, topic.name

    def _calibrated(self, streams: Sequence[_ImageStream]) -> list[_ImageStream]:
        """Return those whose calibration is there, or is not needed."""
        infos = [topic for topic in self._bag.topics_by_name() if topic.msgtype == CAMERA_INFO]
        missing = [s.topic for s in streams if s.topic not in self._first]
        self._first |= self._first_of([*infos, *missing])
        by_name = {topic.name: topic for topic in infos}
        by_frame: dict[str, Topic] = {}
        for topic in infos:
            by_frame.setdefault(self._first_frame_id(topic), topic)
        only = infos[0] if len(infos) == len(streams) == 1 else None
        for stream in streams:
            beside = (f'{_namespace(stream.base)}/camera_info', f'{stream.base}/camera_info')
            frame_id = self._first_frame_id(stream.topic)
            # Next to the image, of its frame, or the only one there is.
            stream.info_topic = next((by_name[n] for n in beside if n in by_name), None) or (
                by_frame.get(frame_id, only) if frame_id else only
            )
            if stream.info_topic is not None and self._calibration is None:
                stream.first_info = self._first.get(stream.info_topic)
        usable = [
            stream
            for stream in streams
            if self._calibration is not None or self._fov_degrees or stream.first_info is not None
        ]
        for stream in streams:
            if stream not in usable:
                self._tell(
                    f'there is no CameraInfo for {printable(stream.topic.name)} (looked for '
                    f'{printable(_namespace(stream.base))}/camera_info); it is left out. '
                    '--camera-info FILE takes a calibration, --fov DEGREES a guess'
                )
        if not usable:
            raise UnreadableRecording(
                f'{shown(self._bag.path)} has no images with a CameraInfo; give a calibration '
                'with --camera-info FILE, or with --fov DEGREES a field of view to guess from '
                '(distances are then only as true as the guess)'
            )
        return usable

    def _first_frame_id(self, topic: Topic) -> str:
        message = self._first.get(topic)
        return '' if message is None else str(message.header.frame_id)

    def _camera(self, stream: _ImageStream, stamp_ns: int, image_shape: tuple[int, ...]) -> Camera:
        rectified = 'image_rect' in stream.topic.name
        info = self._calibration or stream.info_at(stamp_ns)
        if self._fov_degrees and (info is None or not any(info.k)):
            return Camera.from_fov(self._fov_degrees, image_shape)
        return to_camera(info, image_shape, rectified and any(info.p))

    def _frame(self, camera: int, message: Recorded) -> Frame:
        image = self._read(message)
        if image is None:
            broken = UnusableInput(
                'image message',
                f'a message on {printable(message.topic.name)} is no '
                f'{printable(message.topic.msgtype)}',
            )
            return Frame(camera, message.time_ns, message.time_ns, '', broken)
        problem = _problem_of(image.header, message.topic)
        if problem is not None:
            return Frame(camera, message.time_ns, message.time_ns, '', problem)
        return Frame(
            camera, message.time_ns, stamp_ns_of(image.header), image.header.frame_id, image
        )

    def _read(self, message: Recorded) -> Any:
        """Return a message by the definition that ROS has of it; None if it is none such."""
        # Whatever a bag says its messages look like: that can be wrong, and these never change.
        try:
            return typestore().deserialize_cdr(message.data, message.topic.msgtype)
        except Exception:  # Data of another kind makes the library stumble in many ways.
            return None

    def _without_people(self, message: Recorded) -> Iterator[Recorded]:
        """Return a message, but of transforms without the people who were known before."""
        tree = self._read(message) if message.topic.msgtype == TRANSFORMS else None
        transforms = [] if tree is None else tree.transforms
        others = [t for t in transforms if not _is_person(t.child_frame_id)]
        if len(others) == len(transforms):
            yield message
        elif others:
            rest = maker(TRANSFORMS)(transforms=others)
            yield message._replace(data=typestore().serialize_cdr(rest, TRANSFORMS))


def _is_as_usual(topic: Topic) -> bool:
    """Tell whether a bag has the usual definition of a type, or none."""
    if not topic.definition or topic.definition.startswith(IDL_START):
        return True
    types = types_of(topic)
    return types is not None and types[topic.msgtype][1] == typestore().fielddefs[topic.msgtype][1]


def _problem_of(header: Any, topic: Topic) -> UnusableInput | None:
    """Return what is wrong with an image's header."""
    sec, nanosec = int(header.stamp.sec), int(header.stamp.nanosec)
    if sec < 0 or nanosec >= NANOSECONDS:
        return UnusableInput(
            'image stamp',
            f'an image on {printable(topic.name)} has the stamp {sec} s and {nanosec} ns; neither '
            f'can be negative, and the latter must be less than {NANOSECONDS}',
        )
    if len(header.frame_id) > MAX_NAME_CHARS:
        return UnusableInput(
            'image frame_id',
            f'an image on {printable(topic.name)} has a frame_id of {len(header.frame_id)} '
            f'characters; at most {MAX_NAME_CHARS} are used',
        )
    return None


def _check_size(message: Any) -> None:
    """Refuse a compressed image whose header claims more pixels than are decoded."""
    size = image_size(bytes(message.data))
    if size is None:
        return
    try:
        check_image_size(*size, MAX_PIXELS)
    except ValueError as error:
        raise UnusableInput('image size', str(error)) from error


def _is_person(frame_id: str) -> bool:
    """Tell whether a frame is one that is published of a person."""
    return len(frame_id) <= MAX_NAME_CHARS and PEOPLE_FRAMES.fullmatch(frame_id) is not None


def _namespace(name: str) -> str:
    return name.rpartition('/')[0]


def _with_namespaces(topics: Sequence[Topic]) -> list[_ImageStream]:
    """Give each topic a namespace of its own: that which it is in, or else its name."""
    bases = [topic.name.removesuffix('/compressed') for topic in topics]
    spaces = [_namespace(base) for base in bases]
    counts = Counter(spaces)
    streams = []
    taken: set[str] = set()
    for topic, space in zip(topics, spaces):
        namespace = space if counts[space] == 1 else topic.name
        while namespace in taken:
            namespace = f'{namespace}_'
        taken.add(namespace)
        streams.append(_ImageStream(topic, namespace))
    return streams


def _can_be_written(topic: Topic) -> bool:
    """Tell whether a bag can have a topic."""
    is_named = bool(topic.name) and topic.name.isprintable()
    return is_named and VALID_TYPE.fullmatch(topic.msgtype) is not None
