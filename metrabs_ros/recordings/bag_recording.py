"""Bags as recordings of one or several cameras."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.depth_images import decompress_depth, depth_camera, to_depth
from metrabs_ros.conversions.images import decompress, to_rgb
from metrabs_ros.conversions.stamps import NS_PER_S, to_ns
from metrabs_ros.conversions.transforms import frame_name, is_person_frame
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size, image_size
from metrabs_ros.options import View
from metrabs_ros.placement.depth_image import DepthImage
from metrabs_ros.placement.ground_plane import GroundPlane
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.calibration import Calibration
from metrabs_ros.recordings.image_files import MAX_PIXELS
from metrabs_ros.recordings.input_files import join_names
from metrabs_ros.recordings.limits import MAX_NAME_CHARS
from metrabs_ros.recordings.recording import RecordedCamera, RecordedFrame, timed_view
from metrabs_ros.recordings.scale_cues import NO_CUES, CueOptions, FrameDelay, ScaleCues
from metrabs_ros.recordings.topic_selection import (
    RESULT_TOPICS,
    ImageStream,
    select_image_streams,
)
from metrabs_ros.recordings.typestore import (
    IDL_START,
    IMAGE,
    TRANSFORMS,
    deserialize,
    field_types,
    message_factory,
    typestore,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.tracking.timed_view import TimedView

VALID_TYPE = re.compile(r'[A-Za-z]\w*/(msg|srv|action)/[A-Za-z]\w*', re.ASCII)


def _ignore(error: UnusableInput) -> None:
    """Ignore that a cue cannot be used."""


class BagRecording:
    """
    A bag of one or several cameras.

    Parameters
    ----------
    bag
        The bag.  It is closed together with the recording.
    calibration
        Calibration of all cameras; None to use the CameraInfo messages of the bag.
    fov_degrees
        Field of view of cameras without calibration, in degrees; 0 to skip these cameras.
    topics
        Names of the image topics; empty to select one topic per camera.
    copy_messages
        Whether the messages of the bag are returned, too, to be copied to the results.  Transforms
        are always copied if camera poses are needed.
    warn
        Called with each warning message.
    cue_options
        The cues of the person scale to use, and the frame of camera poses.
    report_unused
        Called by `view` with an exception for each cue of the frame that cannot be used.

    Raises
    ------
    UnreadableRecording
        If the bag has no images that can be processed.
    """

    def __init__(
        self,
        bag: Bag,
        calibration: Calibration | None,
        fov_degrees: float,
        topics: Sequence[str],
        copy_messages: bool,
        warn: Callable[[str], None],
        cue_options: CueOptions = NO_CUES,
        report_unused: Callable[[UnusableInput], None] = _ignore,
    ) -> None:
        self._bag = bag
        self._calibration = calibration
        self._fov_degrees = fov_degrees
        self._warn = warn
        self._report_unused = report_unused
        self._streams = select_image_streams(
            bag, topics, calibration is not None, bool(fov_degrees), cue_options.depth, warn
        )
        self._cues = ScaleCues(self._streams, bag, cue_options)
        for stream in self._streams:
            for topic in (stream.topic, stream.info_topic):
                if topic is not None and not _has_standard_definition(topic):
                    warn(
                        f'the definition of {printable(topic.msgtype)} in {shown(bag.path)} '
                        f'differs from that of ROS; {printable(topic.name)} is read with the '
                        'definition of ROS'
                    )
        has_several = len(self._streams) > 1
        self.cameras = [
            RecordedCamera(
                stream.namespace,
                f'{frame_name(stream.namespace.strip("/"))}_' if has_several else '',
                stream.topic.name,
                bag.counts[stream.topic],
            )
            for stream in self._streams
        ]
        results = [topic for topic in bag.counts if RESULT_TOPICS.fullmatch(topic.name)]
        if results and copy_messages:
            names = join_names(sorted(topic.name for topic in results))
            warn(
                f'{shown(bag.path)} already contains results ({names}); the new results replace '
                'them'
            )
        # Skeletons in the frames of the cameras need the transforms to be placed.
        needed = set(bag.counts) if copy_messages else self._cues.pose_topics
        others = [topic for topic in bag.counts if topic in needed and topic not in results]
        self.copied_topics = [topic for topic in others if _is_valid_topic(topic)]
        invalid = [topic.name for topic in others if not _is_valid_topic(topic)]
        if invalid:
            warn(
                f'the topics {join_names(invalid)} are not copied to the results: their names or '
                'types are not valid in ROS 2'
            )

    def __iter__(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return frames and messages; see `Recording`."""
        cameras = {stream.topic: i for i, stream in enumerate(self._streams)}
        depths = {stream.depth for stream in self._streams if stream.depth is not None}
        streams_of_infos: dict[Topic, list[ImageStream]] = {}
        for stream in (*self._streams, *depths):
            if stream.info_topic is not None:
                streams_of_infos.setdefault(stream.info_topic, []).append(stream)
        copied = set(self.copied_topics)
        needed = {*copied, *cameras, *streams_of_infos, *self._cues.topics}
        self._cues.start()
        delay = FrameDelay(self._cues.wait_ns)
        for message in self._bag.messages([t for t in self._bag.counts if t in needed]):
            if message.topic in copied:
                yield from _without_person_frames(message)
            self._cues.put(message)
            for stream in streams_of_infos.get(message.topic, ()):
                info = deserialize(message)
                if info is not None:
                    stream.put_info(info)
            if message.topic in cameras:
                delay.put(_to_frame(cameras[message.topic], message))
            yield from map(self._cues.add_to, delay.due(message.time_ns))
        yield from map(self._cues.add_to, delay.rest())
        transforms = self._cues.transforms
        if transforms.rejected:
            self._warn(
                f'{transforms.rejected} transforms of {shown(self._bag.path)} are not used: '
                f'{transforms.rejection}'
            )

    def view(self, frame: RecordedFrame) -> TimedView:
        """Return the image of a frame, its camera and its cues; see `Recording`."""
        stream = self._streams[frame.camera]
        if isinstance(frame.content, UnusableInput):
            raise frame.content
        if stream.topic.msgtype == IMAGE:
            image = to_rgb(frame.content)
        else:
            _check_size(frame.content)
            image = decompress(frame.content)
        view = View(image, self._camera(stream, frame.stamp_ns, image.shape))
        return timed_view(frame, view, self._ground(frame), self._depth(stream.depth, frame, view))

    def close(self) -> None:
        """Close the files."""
        self._bag.close()

    def _ground(self, frame: RecordedFrame) -> GroundPlane | None:
        """Return the ground plane of a frame; None if there is none, which is reported."""
        if isinstance(frame.ground, UnusableInput):
            self._report_unused(frame.ground)
            return None
        return frame.ground

    def _depth(
        self, stream: ImageStream | None, frame: RecordedFrame, view: View
    ) -> DepthImage | None:
        """Return the depth image of a frame; None if there is none, which is reported."""
        if stream is None:
            return None
        try:
            if isinstance(frame.depth, UnusableInput):
                raise frame.depth
            info = stream.info_at(to_ns(frame.depth.header.stamp))
            is_raw = stream.topic.msgtype == IMAGE
            depth_mm = to_depth(frame.depth) if is_raw else decompress_depth(frame.depth)
            is_rectified = 'image_rect' in stream.topic.name and info is not None and any(info.p)
            camera = depth_camera(
                depth_mm.shape, view.image.shape, view.camera, info, is_rectified
            )
            return DepthImage(depth_mm, camera)
        except UnusableInput as error:
            self._report_unused(error)
            return None

    def _camera(self, stream: ImageStream, stamp_ns: int, image_shape: tuple[int, ...]) -> Camera:
        rectified = 'image_rect' in stream.topic.name
        info = self._calibration or stream.info_at(stamp_ns)
        if self._fov_degrees and (info is None or not any(info.k)):
            return Camera.from_fov(self._fov_degrees, image_shape)
        return to_camera(info, image_shape, rectified and any(info.p))


def _to_frame(camera: int, message: BagMessage) -> RecordedFrame:
    """Return an image message as a frame; its content is an exception if it is not usable."""
    image = deserialize(message)
    if image is None:
        error = UnusableInput(
            'image message',
            f'a message on {printable(message.topic.name)} is not a valid '
            f'{printable(message.topic.msgtype)}',
        )
        return RecordedFrame(camera, message.time_ns, message.time_ns, '', error)
    header_error = _header_error(image.header, message.topic)
    if header_error is not None:
        return RecordedFrame(camera, message.time_ns, message.time_ns, '', header_error)
    return RecordedFrame(
        camera, message.time_ns, to_ns(image.header.stamp), image.header.frame_id, image
    )


def _without_person_frames(message: BagMessage) -> Iterator[BagMessage]:
    """Return a message; remove person frames of earlier results from transforms."""
    tree = deserialize(message) if message.topic.msgtype == TRANSFORMS else None
    transforms = [] if tree is None else tree.transforms
    others = [t for t in transforms if not is_person_frame(t.child_frame_id)]
    if len(others) == len(transforms):
        yield message
    elif others:
        filtered = message_factory(TRANSFORMS)(transforms=others)
        yield message._replace(data=typestore().serialize_cdr(filtered, TRANSFORMS))


def _has_standard_definition(topic: Topic) -> bool:
    """Return whether the bag defines a type as ROS does, or does not define it."""
    if not topic.definition or topic.definition.startswith(IDL_START):
        return True
    types = field_types(topic)
    return types is not None and types[topic.msgtype][1] == typestore().fielddefs[topic.msgtype][1]


def _header_error(header: Any, topic: Topic) -> UnusableInput | None:
    """Return an exception that describes an invalid image header; None if it is valid."""
    sec, nanosec = int(header.stamp.sec), int(header.stamp.nanosec)
    if sec < 0 or nanosec >= NS_PER_S:
        return UnusableInput(
            'image stamp',
            f'an image on {printable(topic.name)} has the stamp {sec} s and {nanosec} ns; '
            f'sec must not be negative and nanosec must be from 0 to {NS_PER_S - 1}',
        )
    if len(header.frame_id) > MAX_NAME_CHARS:
        return UnusableInput(
            'image frame_id',
            f'an image on {printable(topic.name)} has a frame_id of {len(header.frame_id)} '
            f'characters; at most {MAX_NAME_CHARS} are used',
        )
    return None


def _check_size(message: Any) -> None:
    """Raise an `UnusableInput` if the header of a compressed image declares too many pixels."""
    size = image_size(bytes(message.data))
    if size is None:
        return
    try:
        check_image_size(*size, MAX_PIXELS)
    except ValueError as error:
        raise UnusableInput('image size', str(error)) from error


def _is_valid_topic(topic: Topic) -> bool:
    """Return whether the name and the type of a topic are valid in a ROS 2 bag."""
    is_named = bool(topic.name) and topic.name.isprintable()
    return is_named and VALID_TYPE.fullmatch(topic.msgtype) is not None
