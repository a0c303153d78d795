"""Input and output of one camera: subscriptions, synchronised frames, published people."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import message_filters
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from metrabs_ros.conversions.detections import MAX_MESSAGE_BYTES
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.body_publishers import HriPublishers
from metrabs_ros.node.depth_input import DepthInput
from metrabs_ros.node.diagnostics import Statistics
from metrabs_ros.node.drops import DISABLED, LOG_PERIOD_S
from metrabs_ros.node.frame_preparation import (
    TOPIC_DETECTOR,
    Frame,
    FramePreparation,
    PreparedFrame,
)
from metrabs_ros.node.ground_lookup import GroundLookup
from metrabs_ros.node.latched_topics import LATCHED, is_latched
from metrabs_ros.node.message_ages import age_s
from metrabs_ros.node.publishers import CameraPublishers
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.size_limited_subscription import OversizedMessage, size_limited
from metrabs_ros.node.synchronisation import Requirements, SynchronisedImage, Synchroniser
from metrabs_ros.node.transforms import TransformLookup
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.tracking.person_tracker import PersonTracker

MAX_COMPENSATED_LATENCY_S = 1.0
"""Maximum extrapolation time to compensate for the latency, in seconds."""
MAX_FRAME_ID_CHARS = 256
LATCHED_INFO_ID = 'latched'
"""Identifier of the QoS overrides of the latched subscription to camera_info."""


class CameraStream:
    """
    Subscribes to the topics of one camera, prepares its frames and publishes its people.

    Parameters
    ----------
    node
        Node that subscribes and publishes.
    name
        Camera name, used as a namespace of the topics; empty for a single camera.
    tracker
        Person tracker; the tracks of this camera are deleted after a jump back in time.
    transforms
        Looks up transforms.
    statistics
        Counts frames and measures latencies.
    hri
        Publishers of ROS4HRI bodies; None if they are not published.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        tracker: PersonTracker,
        transforms: TransformLookup,
        statistics: Statistics,
        hri: HriPublishers | None = None,
    ) -> None:
        self.name = name
        self._tracker = tracker
        self.publishers = CameraPublishers(node, name, hri)
        self._node = node
        self._transforms = transforms
        self._statistics = statistics
        self._synchroniser: Synchroniser | None = None
        self._cached_requirements: tuple[Settings, Requirements] | None = None
        self._subscribers: list[message_filters.Subscriber] = []
        self._reset_requested = False
        self._ground = GroundLookup(transforms, self._report_fallback)
        self._preparation = FramePreparation(name, transforms, self._ground, statistics)
        self._depth: DepthInput | None = None
        self._latched_topics: set[str] = set()
        """Topics with a subscription to latched messages."""
        statistics.counters.add_cameras([name])

    def subscribe(
        self,
        receive: Callable[[Frame], None],
        is_enabled: Callable[[], bool],
        settings: Callable[[], Settings],
    ) -> str:
        """
        Subscribe to the topics of the camera.

        Parameters
        ----------
        receive
            Called with each synchronised frame.
        is_enabled
            Returns whether frames are processed at present.
        settings
            Returns the current settings.

        Returns
        -------
        Names of the subscribed topics, for log messages.
        """
        current = settings()
        self._depth = None

        def deliver(synchronised: SynchronisedImage) -> None:
            depth = self._depth
            nearest = None if depth is None else depth.take_for(synchronised.image.header)
            receive(Frame(self.name, synchronised, nearest))

        synchroniser = Synchroniser(self._node, deliver, self._drop)
        self._synchroniser = synchroniser
        self._cached_requirements = None
        self._transforms.add_callback(synchroniser.check)
        self._latched_topics.clear()
        compressed = current.image_transport == 'compressed'
        try:
            image_topic = self._subscribe(
                CompressedImage if compressed else Image,
                'image/compressed' if compressed else 'image',
                functools.partial(self._on_image, synchroniser, is_enabled, settings),
            )
            self._info_topic = self._subscribe(CameraInfo, 'camera_info', synchroniser.add_info)
            if current.depth_transport:
                self._subscribe_to_depth(current.depth_transport, synchroniser)
            if current.detector == TOPIC_DETECTOR:
                from vision_msgs.msg import Detection2DArray

                on_detections = size_limited(
                    Detection2DArray,
                    MAX_MESSAGE_BYTES,
                    synchroniser.add_detections,
                    functools.partial(self._on_oversized_detections, synchroniser),
                )
                self._subscribe(Detection2DArray, 'detections', on_detections, raw=True)
        except Exception:
            # For example an invalid value of a QoS override.
            self.unsubscribe()
            raise
        self._preparation.is_rectified_topic = 'image_rect' in image_topic
        return f'{image_topic} and {self._info_topic}'

    def unsubscribe(self) -> None:
        """Unsubscribe, drop pending images, and delete the markers and bodies."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers = []
        if self._synchroniser is not None:
            self._transforms.remove_callback(self._synchroniser.check)
            self._synchroniser.close()
            self._synchroniser = None
        # Both refer to stored depth images.
        self._depth = self._cached_requirements = None
        self.publishers.clear_people()

    def subscribe_to_latched_info(self) -> None:
        """Subscribe to a latched camera_info that was published before this node started."""
        synchroniser, depth = self._synchroniser, self._depth
        if synchroniser is not None and not synchroniser.has_info:
            self._subscribe_if_latched('camera_info', self._info_topic, synchroniser.add_info)
        if depth is not None and not depth.has_info:
            self._subscribe_if_latched('depth/camera_info', depth.info_topic, depth.add_info)

    def _subscribe_if_latched(
        self, topic: str, full_name: str, callback: Callable[[CameraInfo], None]
    ) -> None:
        if topic not in self._latched_topics and is_latched(self._node, full_name):
            self._subscribe(CameraInfo, topic, callback, LATCHED, LATCHED_INFO_ID)
            self._latched_topics.add(topic)

    def _subscribe_to_depth(self, transport: str, synchroniser: Synchroniser) -> None:
        is_raw = transport == 'raw'
        message_type = Image if is_raw else CompressedImage
        depth = DepthInput(message_type, self._report_fallback)

        def receive(serialised: bytes) -> None:
            depth.buffer.add(serialised)
            synchroniser.check()

        topic = 'depth' if is_raw else 'depth/compressedDepth'
        depth.topic = self._subscribe(message_type, topic, receive, raw=True)
        depth.info_topic = self._subscribe(CameraInfo, 'depth/camera_info', depth.add_info)
        self._depth = depth

    def reset(self) -> None:
        """Delete all tracks before the next frame is processed."""
        self._reset_requested = True

    def prepare(self, frame: Frame, current: Settings) -> PreparedFrame:
        """
        Prepare a frame, and delete earlier tracks if they do not continue in it.

        Raises
        ------
        UnusableInput
            If the frame cannot be processed.
        """
        # `self._depth` is None without depth images, or if the camera was unsubscribed meanwhile.
        prepared = self._preparation.prepare(frame, self._depth, current)
        if prepared.restarts_tracks or self._reset_requested:
            self._reset_requested = False
            self._tracker.reset(self.name)
            self.publishers.clear_people()
        return prepared

    def publish(
        self, frame: PreparedFrame, people: People, convention: Convention, current: Settings
    ) -> None:
        """Publish the people in a frame."""
        header = Header(stamp=frame.header.stamp, frame_id=frame.output_frame)
        image, camera = frame.timed_view.view
        if current.predict_latency:
            now = self._node.get_clock().now()
            latency_s = age_s(frame.header, now)
            # Stamps of another clock do not give a latency.
            if 0 <= latency_s <= MAX_COMPENSATED_LATENCY_S:
                people, header.stamp = people.extrapolated(latency_s), now.to_msg()
        self.publishers.publish(
            image,
            people,
            frame.output_transform,
            camera.up,
            header,
            frame.header,
            convention,
            current,
        )

    def _subscribe(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile = qos_profile_sensor_data,
        override_id: str | None = None,
        raw: bool = False,
    ) -> str:
        subscriber = message_filters.Subscriber(
            self._node,
            message_type,
            f'{self.name}/{topic}' if self.name else topic,
            # Copied, because rclpy writes the overrides into the profile.
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

    def _on_image(
        self,
        synchroniser: Synchroniser,
        is_enabled: Callable[[], bool],
        settings: Callable[[], Settings],
        image: Image | CompressedImage,
    ) -> None:
        self._statistics.counters.count_image(self.name)
        sec, frame_id = image.header.stamp.sec, image.header.frame_id
        if not is_enabled():
            self._drop(DISABLED, None)
        elif sec < 0:
            self._drop(
                'image stamp',
                f'the image has the stamp {sec} s, which is before 1970; check that the camera '
                'driver sets the stamp',
            )
        elif len(frame_id) > MAX_FRAME_ID_CHARS:
            self._drop(
                'image frame_id',
                f'the image has a frame_id of {len(frame_id)} characters ({printable(frame_id)}); '
                f'at most {MAX_FRAME_ID_CHARS} are allowed',
            )
        else:
            synchroniser.add_image(image, self._requirements(settings()))

    def _on_oversized_detections(
        self, synchroniser: Synchroniser, oversized: OversizedMessage
    ) -> None:
        # Logged here as well, because there may be no image with this stamp to be dropped.
        self._statistics.counters.count_oversized_message()
        source = f' of camera {self.name}' if self.name else ''
        self._node.get_logger().warning(
            f'detections{source} are rejected: {oversized}',
            throttle_duration_sec=LOG_PERIOD_S,
        )
        synchroniser.add_detections(oversized)

    def _requirements(self, current: Settings) -> Requirements:
        """Return the required inputs of images, cached as long as the settings are unchanged."""
        if self._cached_requirements is None or self._cached_requirements[0] is not current:
            self._cached_requirements = current, self._make_requirements(current)
        return self._cached_requirements[1]

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
        # Depth first, because it must be asked about each image.
        depth = self._depth
        optional = [] if depth is None else [depth.is_worth_waiting]
        if current.ground_frame:
            optional.append(
                lambda header: self._ground.is_worth_waiting(header, current.ground_frame)
            )
        return Requirements(
            current.detector == TOPIC_DETECTOR,
            tuple(transforms),
            current.tf_timeout,
            tuple(optional),
        )

    def _can_transform(self, target: str, source: str, header: Header) -> bool:
        """Return whether a transform is available or not needed."""
        is_needed = bool(target and source) and target != source
        return not is_needed or self._transforms.can_transform(target, source, header.stamp)

    def _drop(self, cause: str, explanation: str | None) -> None:
        if explanation is None:
            self._statistics.drops.count(cause, self.name)
        else:
            self._statistics.drops.report(cause, explanation, self.name)

    def _report_fallback(self, cause: str, explanation: str) -> None:
        self._statistics.fallbacks.report(cause, explanation, self.name)
