"""One of the node's cameras: its topics, the people seen by it, and what is published of them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import message_filters
import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import check_size, to_camera
from metrabs_ros.conversions.images import (
    compressed_shape,
    declared_shape,
    decompress,
    to_rgb,
)
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.detections import (
    DEFAULT_MAX_PEOPLE,
    MAX_MESSAGE_BYTES,
    select_detections,
    to_boxes,
)
from metrabs_ros.node.diagnostics import Record
from metrabs_ros.node.drops import DISABLED, LOG_PERIOD_S, UNCALIBRATED
from metrabs_ros.node.outputs import Outputs
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.size_limited_subscription import OversizedMessage, size_limited
from metrabs_ros.node.synchronisation import Requirements, SynchronisedImage, Synchroniser
from metrabs_ros.node.transforms import WORLD_UP, Frames, Motion
from metrabs_ros.options import View
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import JUMP_BACK_S

TOPIC_DETECTOR = 'topic'
LONGEST_LATENCY_S = 1.0
"""Maximum time over which people's motion is extrapolated."""
MAX_FRAME_ID_CHARS = 256
KEPT_INFO_ID = 'latched'
"""Tells the QoS overrides of the two subscriptions to camera_info apart."""

STILL = Motion(np.eye(3), np.zeros(3))


class Frame(NamedTuple):
    """
    An image with all that belongs to it, and its camera.

    Parameters
    ----------
    stream
        The camera.
    synchronised
        The messages.
    """

    stream: CameraStream
    synchronised: SynchronisedImage

    @property
    def image(self) -> Any:
        """The image's message."""
        return self.synchronised.image


class PreparedFrame(NamedTuple):
    """
    A frame that is prepared for detection and pose estimation.

    Parameters
    ----------
    stream
        Its camera.
    header
        Of the image.
    shot
        The image, its camera, its stamp, and the person boxes if they come from a topic.
    motion
        From the camera's frame to the frame of what is published.
    frame_id
        The name of the latter.
    """

    stream: CameraStream
    header: Header
    timed_view: TimedView
    motion: Motion
    frame_id: str


class CameraStream:
    """
    A camera of the node.

    Parameters
    ----------
    node
        The node that subscribes and publishes.
    name
        The camera's name, under which its topics are; empty if it is the only one.
    tracker
        Has this camera's tracks, which are deleted where time jumps back.
    frames
        What is known from TF.
    record
        Counts frames and measures latencies.
    """

    def __init__(
        self, node: Node, name: str, tracker: PersonTracker, frames: Frames, record: Record
    ) -> None:
        self.name = name
        self._tracker = tracker
        self.outputs = Outputs(node, name)
        self._node = node
        self._frames = frames
        self._record = record
        self._synchroniser: Synchroniser | None = None
        self._requirements_made: tuple[Settings, Requirements] | None = None
        self._subscribers: list[message_filters.Subscriber] = []
        self._last_stamp_s = -np.inf
        self._reset_requested = False
        self._world = ''
        self._extrinsics: FloatArray | None = None
        record.tally.add_cameras([name])

    def subscribe(
        self,
        receive: Callable[[Frame], None],
        is_enabled: Callable[[], bool],
        settings: Callable[[], Settings],
    ) -> str:
        """
        Subscribe to the camera's topics.

        Parameters
        ----------
        receive
            Called with every frame that is complete.
        is_enabled
            Tells whether frames are to be processed at present.
        settings
            Returns the present settings.

        Returns
        -------
        The names of the topics, in words.
        """
        current = settings()
        synchroniser = Synchroniser(
            self._node, lambda synchronised: receive(Frame(self, synchronised)), self._drop
        )
        self._synchroniser = synchroniser
        self._frames.add_callback(synchroniser.check)
        self._asked_for_kept_infos = False
        compressed = current.image_transport == 'compressed'
        try:
            image_topic = self._subscribe(
                CompressedImage if compressed else Image,
                'image/compressed' if compressed else 'image',
                functools.partial(self._take_image, synchroniser, is_enabled, settings),
            )
            self._info_topic = self._subscribe(CameraInfo, 'camera_info', synchroniser.add_info)
            if current.detector == TOPIC_DETECTOR:
                from vision_msgs.msg import Detection2DArray

                take_detections = size_limited(
                    Detection2DArray,
                    MAX_MESSAGE_BYTES,
                    synchroniser.add_detections,
                    functools.partial(self._take_oversized_detections, synchroniser),
                )
                self._subscribe(Detection2DArray, 'detections', take_detections, raw=True)
        except Exception:
            # For example if a QoS override has a value that does not exist.
            self.unsubscribe()
            raise
        self._is_rectified_topic = 'image_rect' in image_topic
        return f'{image_topic} and {self._info_topic}'

    def unsubscribe(self) -> None:
        """Unsubscribe, drop the images that wait, and delete the markers."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers = []
        if self._synchroniser is not None:
            self._frames.remove_callback(self._synchroniser.check)
            self._synchroniser.close()
            self._synchroniser = None
        self.outputs.clear_markers()

    def ask_for_kept_infos(self) -> None:
        """Ask for a camera_info that was published once and latched, before this node came up."""
        synchroniser = self._synchroniser
        if synchroniser is None or synchroniser.has_info or self._asked_for_kept_infos:
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = self._node.get_publishers_info_by_topic(self._info_topic)
        # Other publishers would warn of an incompatible subscription.
        if any(p.qos_profile.durability == latched.durability for p in publishers):
            self._subscribe(
                CameraInfo, 'camera_info', synchroniser.add_info, latched, KEPT_INFO_ID
            )
            self._asked_for_kept_infos = True

    def reset(self) -> None:
        """Delete all tracks with the next frame."""
        self._reset_requested = True

    def prepare(self, frame: Frame, current: Settings) -> PreparedFrame:
        """
        Decode a frame's image and gather what is known about it.

        Raises
        ------
        UnusableInput
            If it cannot be processed.
        """
        synchronised = frame.synchronised
        header = synchronised.image.header
        latencies = self._record.latencies
        latencies.add('synchronise', synchronised.completed_s - synchronised.received_s)
        latencies.add('wait', time.monotonic() - synchronised.completed_s)
        info = self._usable_info(synchronised.info, current)
        with latencies.of('decode'):
            image = _decoded(synchronised.image, info, current.max_image_pixels)
        with latencies.of('camera'):
            camera = self._in_world(self._camera(info, image.shape, current), header, current)
            motion, frame_id = self._motion(header, current)
        boxes = None
        if current.detector == TOPIC_DETECTOR:
            boxes = self._boxes(synchronised.detections, image.shape, current)
        stamp_s = header.stamp.sec + header.stamp.nanosec * 1e-9
        self._watch_time(stamp_s)
        if self._reset_requested:
            self._reset_requested = False
            self._tracker.reset(self.name)
            self.outputs.clear_markers()
        return PreparedFrame(
            self,
            header,
            TimedView(View(image, camera), stamp_s, boxes, self.name),
            motion,
            frame_id,
        )

    def publish(
        self, look: PreparedFrame, people: People, convention: Convention, current: Settings
    ) -> None:
        """Publish the people in a frame."""
        out = Header(stamp=look.header.stamp, frame_id=look.frame_id)
        image, camera = look.timed_view.view
        if current.predict_latency:
            now = self._node.get_clock().now()
            latency_s = age_s(look.header, now)
            # Stamps of another clock say nothing of latency.
            if 0 <= latency_s <= LONGEST_LATENCY_S:
                people, out.stamp = people.extrapolated(latency_s), now.to_msg()
        self.outputs.publish(image, people, look.motion, camera.up, out, convention, current)

    def _subscribe(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile = qos_profile_sensor_data,
        override_id: str | None = None,
        raw: bool = False,
    ) -> str:
        subscriber = message_filters.Subscriber(
            self._node,
            kind,
            f'{self.name}/{topic}' if self.name else topic,
            # A copy, as overrides are written into it.
            qos_profile=copy.copy(qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(
                entity_id=override_id
            ),
            raw=raw,
        )
        subscriber.registerCallback(callback)
        self._subscribers.append(subscriber)
        name: str = subscriber.sub.topic_name
        return name

    def _take_image(
        self,
        synchroniser: Synchroniser,
        is_enabled: Callable[[], bool],
        settings: Callable[[], Settings],
        image: Image | CompressedImage,
    ) -> None:
        self._record.tally.count_image(self.name)
        sec, frame_id = image.header.stamp.sec, image.header.frame_id
        if not is_enabled():
            self._drop(DISABLED, None)
        elif sec < 0:
            self._drop(
                'image stamp',
                f'the image has the stamp {sec} s, which is before 1970; does the camera driver '
                'set it?',
            )
        elif len(frame_id) > MAX_FRAME_ID_CHARS:
            self._drop(
                'image frame_id',
                f'the image has a frame_id of {len(frame_id)} characters ({printable(frame_id)}); '
                f'at most {MAX_FRAME_ID_CHARS} are allowed',
            )
        else:
            synchroniser.add_image(image, self._requirements(settings()))

    def _take_oversized_detections(
        self, synchroniser: Synchroniser, oversized: OversizedMessage
    ) -> None:
        # The image of its stamp is dropped with this sentence, but there may be none.
        self._record.tally.count_oversized_message()
        self._node.get_logger().warning(
            f'detections{f" of camera {self.name}" if self.name else ""} are refused: {oversized}',
            throttle_duration_sec=LOG_PERIOD_S,
        )
        synchroniser.add_detections(oversized)

    def _requirements(self, current: Settings) -> Requirements:
        """Return what images have to wait for, made once as long as the settings are the same."""
        if self._requirements_made is None or self._requirements_made[0] is not current:
            self._requirements_made = current, self._make_requirements(current)
        return self._requirements_made[1]

    def _make_requirements(self, current: Settings) -> Requirements:
        transforms: list[Callable[[Header], bool]] = []
        if current.world_frame:
            transforms.append(
                lambda header: self._can_transform(header.frame_id, current.world_frame, header)
            )
        if current.target_frame:
            transforms.append(
                lambda header: self._can_transform(current.target_frame, header.frame_id, header)
            )
        return Requirements(
            current.detector == TOPIC_DETECTOR, tuple(transforms), current.tf_timeout
        )

    def _can_transform(self, target: str, source: str, header: Header) -> bool:
        """Tell whether a transform is available, or whether none is needed."""
        is_needed = bool(target and source) and target != source
        return not is_needed or self._frames.can_transform(target, source, header.stamp)

    def _drop(self, cause: str, explanation: str | None) -> None:
        if explanation is None:
            self._record.drops.count(cause, self.name)
        else:
            self._record.drops.explain(cause, explanation, self.name)

    def _usable_info(self, info: CameraInfo | None, current: Settings) -> CameraInfo | None:
        """Return a calibration, or None if a field of view is to be taken in its place."""
        if current.default_fov_degrees and (info is None or not any(info.k)):
            return None
        if info is None:
            raise UnusableInput(
                'no camera_info',
                'there is no camera_info with the images; is it remapped to where the driver '
                'publishes it? (default_fov_degrees allows going on without)',
            )
        return info

    def _camera(
        self, info: CameraInfo | None, image_shape: tuple[int, ...], current: Settings
    ) -> Camera:
        if info is None:
            fov_degrees = current.default_fov_degrees
            self._fell_back(
                UNCALIBRATED,
                'there is no calibration; distances are a guess from a field of view of '
                f'{fov_degrees} degrees',
            )
            return Camera.from_fov(fov_degrees, image_shape)
        rectified = current.rectified == 'true' or (
            current.rectified == 'auto' and self._is_rectified_topic and any(info.p)
        )
        return to_camera(info, image_shape, rectified)

    def _boxes(self, detections: Any, image_shape: tuple[int, ...], current: Settings) -> Boxes:
        """Return the boxes of the detector's message whose people's poses are to be estimated."""
        boxes, left_out = select_detections(
            to_boxes(detections, current.detection_class, image_shape),
            current.detector_nms_iou_threshold,
            current.max_detections,
        )
        if left_out:
            self._fell_back(
                'many detections',
                f'a message has {len(boxes) + left_out} detections that do not overlap; the '
                f'{DEFAULT_MAX_PEOPLE} with the highest scores are processed (max_detections sets '
                'another limit)',
            )
        return boxes

    def _in_world(self, camera: Camera, header: Header, current: Settings) -> Camera:
        """Return the camera with its pose in the world frame, if one is set."""
        if current.world_frame != self._world:
            self._move_world(None)
            self._world = current.world_frame
        if current.world_frame:
            try:
                motion = self._frames.motion(header.frame_id, current.world_frame, header.stamp)
                self._move_world(motion.matrix)
            except UnusableInput as unusable:
                self._fall_back(unusable, current)
        # The last known pose is a better guess than none.
        if self._extrinsics is None:
            return camera
        return dataclasses.replace(
            camera, extrinsic_matrix=self._extrinsics, world_up_vector=WORLD_UP
        )

    def _move_world(self, extrinsics: FloatArray | None) -> None:
        """Set the camera's pose; tracks in another frame are deleted."""
        if (extrinsics is None) != (self._extrinsics is None):
            self._reset_requested = True
        self._extrinsics = extrinsics

    def _motion(self, header: Header, current: Settings) -> tuple[Motion, str]:
        """Return the motion from the camera's frame to the frame of what is published."""
        if not header.frame_id:
            self._fell_back(
                'image without frame_id',
                "the images' headers have no frame_id, so that nothing can be placed in TF or "
                'RViz; does the camera driver set it?',
            )
        if current.target_frame in ('', header.frame_id):
            return STILL, header.frame_id
        try:
            motion = self._frames.motion(current.target_frame, header.frame_id, header.stamp)
        except UnusableInput as unusable:
            self._fall_back(unusable, current)
            return STILL, header.frame_id
        return motion, current.target_frame

    def _fall_back(self, unusable: UnusableInput, current: Settings) -> None:
        if current.tf_fallback == 'drop':
            raise unusable
        self._fell_back(unusable.cause, str(unusable))

    def _fell_back(self, cause: str, explanation: str) -> None:
        self._record.fallbacks.explain(cause, explanation, self.name)

    def _watch_time(self, stamp_s: float) -> None:
        """Delete all tracks where time went back since the last image."""
        back_s = self._last_stamp_s - stamp_s
        self._last_stamp_s = stamp_s
        if back_s > JUMP_BACK_S:
            # TF is left alone: other cameras use it, too, and it has stamps of its own.
            self._reset_requested = True
            self._fell_back(
                'time went back',
                f"the images' stamps went back by {back_s:.1f} s, as when a recording begins "
                'again; all tracks are deleted',
            )


def _decoded(
    image: Image | CompressedImage, info: CameraInfo | None, max_pixels: int
) -> ImageArray:
    """
    Return an image as RGB, [H, W, 3], uint8, unless its size is not that of its camera_info.

    Raises
    ------
    UnusableInput
        If it cannot be decoded or has another size.
    """
    is_raw = isinstance(image, Image)
    shape = declared_shape(image, max_pixels) if is_raw else compressed_shape(image, max_pixels)
    if info is not None:
        check_size(info, *shape)
    return to_rgb(image, max_pixels) if is_raw else decompress(image, max_pixels)


def age_s(header: Header, now: Time) -> float:
    """Return the age of a stamp, in seconds."""
    age: float = (now - Time.from_msg(header.stamp)).nanoseconds * 1e-9
    return age
