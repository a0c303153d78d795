"""One of the node's cameras: what comes from it, whom it has seen, and where that is published."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.estimator import View
from metrabs_ros.messages.cameras import to_camera
from metrabs_ros.messages.images import decompressed, to_rgb
from metrabs_ros.messages.unusable import UnusableInput
from metrabs_ros.node import diagnostics
from metrabs_ros.node.calibrations import Calibrations
from metrabs_ros.node.detections import DetectionBook, to_boxes
from metrabs_ros.node.diagnostics import Record
from metrabs_ros.node.frames import WORLD_UP, Frames, Motion
from metrabs_ros.node.outputs import Outputs
from metrabs_ros.node.settings import Settings
from metrabs_ros.people import People
from metrabs_ros.skeleton import Convention
from metrabs_ros.tracking.shot import Shot
from metrabs_ros.tracking.stream import PeopleStream
from metrabs_ros.tracking.tracker import JUMP_BACK_S

TOPIC_DETECTOR = 'topic'
LONGEST_LATENCY_S = 1.0
"""Nobody knows where people are after more than that."""

STILL = Motion(np.eye(3), np.zeros(3))


class Frame(NamedTuple):
    """An image as it came, from which camera, and when."""

    stream: CameraStream
    image: Image | CompressedImage
    received_s: float


class Look(NamedTuple):
    """
    All that is known of a frame before people are looked for.

    Parameters
    ----------
    stream
        Its camera.
    header
        Of the image.
    shot
        The image, its camera, when it was taken, and where people are if somebody else says so.
    motion
        From the camera's frame to that of what is published.
    frame_id
        The name of that.
    """

    stream: CameraStream
    header: Header
    shot: Shot
    motion: Motion
    frame_id: str


class CameraStream:
    """
    A camera of the node.

    Parameters
    ----------
    node
        Which subscribes and publishes.
    name
        Of the camera, under which its topics are; empty if it is the only one.
    people
        Knows who was seen by this camera.
    frames
        What TF knows.
    record
        Where fallbacks and latencies are noted.
    """

    def __init__(
        self, node: Node, name: str, people: PeopleStream, frames: Frames, record: Record
    ) -> None:
        self.name = name
        self.people = people
        self.outputs = Outputs(node, name)
        self._node = node
        self._frames = frames
        self._record = record
        self._last_stamp_s = -np.inf
        self._is_to_forget = False
        self._world = ''
        self._extrinsics: FloatArray | None = None

    def subscribe(self, receive: Callable[[Frame], None], current: Settings) -> str:
        """Subscribe; return the names of the topics, in words."""
        self._calibrations = Calibrations()
        self._detections = DetectionBook()
        self._subscriptions: list[Any] = []
        self._asked_for_kept_infos = False
        compressed = current.image_transport == 'compressed'
        image_topic = self._subscribe(
            CompressedImage if compressed else Image,
            'image/compressed' if compressed else 'image',
            lambda image: receive(Frame(self, image, time.perf_counter())),
        )
        self._info_topic = self._subscribe(CameraInfo, 'camera_info', self._calibrations.put)
        if current.detector == TOPIC_DETECTOR:
            from vision_msgs.msg import Detection2DArray

            self._subscribe(Detection2DArray, 'detections', self._detections.put)
        self._is_rectified_topic = 'image_rect' in image_topic
        return f'{image_topic} and {self._info_topic}'

    def unsubscribe(self) -> None:
        """Unsubscribe, and take the markers away."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.outputs.clear_markers()

    def ask_for_kept_infos(self) -> None:
        """Have a calibration sent that was sent once and for all, before this node was there."""
        if self._asked_for_kept_infos or not self._calibrations.is_empty():
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = self._node.get_publishers_info_by_topic(self._info_topic)
        # Who keeps none would only complain that this asks for it.
        if any(p.qos_profile.durability == latched.durability for p in publishers):
            self._subscribe(CameraInfo, 'camera_info', self._calibrations.put, latched)
            self._asked_for_kept_infos = True

    def forget(self) -> None:
        """Forget everybody with the next frame."""
        self._is_to_forget = True

    def prepare(self, frame: Frame, current: Settings) -> Look:
        """
        Find out all that there is to know of a frame before people are looked for.

        Raises
        ------
        UnusableInput
            If it cannot be worked on.
        """
        header = frame.image.header
        if header.stamp.sec < 0:
            raise UnusableInput(
                'image stamp',
                f'the image has the stamp {header.stamp.sec} s, before all time; does the camera '
                'driver set it?',
            )
        latencies = self._record.latencies
        latencies.add('wait', time.perf_counter() - frame.received_s)
        with latencies.of('decode'):
            is_raw = isinstance(frame.image, Image)
            image = to_rgb(frame.image) if is_raw else decompressed(frame.image)
        with latencies.of('camera'):
            camera = self._camera(header, image.shape, current)
            motion, frame_id = self._motion(header, current)
        boxes = None
        if current.detector == TOPIC_DETECTOR:
            with latencies.of('wait for detections'):
                detections = self._detections.wait_for(header.stamp)
            boxes = to_boxes(detections, current.detection_class, image.shape)
        stamp_s = header.stamp.sec + header.stamp.nanosec * 1e-9
        self._watch_time(stamp_s)
        if self._is_to_forget:
            self._is_to_forget = False
            self.people.forget()
            self.outputs.clear_markers()
        return Look(self, header, Shot(View(image, camera), stamp_s, boxes), motion, frame_id)

    def publish(
        self, look: Look, people: People, convention: Convention, current: Settings
    ) -> None:
        """Publish the people in a frame."""
        out = Header(stamp=look.header.stamp, frame_id=look.frame_id)
        image, camera = look.shot.view
        if current.predict_latency:
            now = self._node.get_clock().now()
            latency_s = age_s(look.header, now)
            # Stamps of another clock say nothing of latency.
            if 0 <= latency_s <= LONGEST_LATENCY_S:
                people, out.stamp = people.after(latency_s), now.to_msg()
        self.outputs.publish(image, people, look.motion, camera.up, out, convention, current)

    def _subscribe(
        self,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile = qos_profile_sensor_data,
    ) -> str:
        full = f'{self.name}/{topic}' if self.name else topic
        subscription = self._node.create_subscription(kind, full, callback, qos)
        self._subscriptions.append(subscription)
        name: str = subscription.topic_name
        return name

    def _camera(self, header: Header, image_shape: tuple[int, ...], current: Settings) -> Camera:
        info = self._calibrations.wait_for(header.stamp)
        fov_degrees = current.default_fov_degrees
        if fov_degrees and (info is None or not any(info.k)):
            self._record.fallbacks.explain(
                diagnostics.UNCALIBRATED,
                f'there is no calibration; distances are a guess from a field of view of '
                f'{fov_degrees} degrees',
            )
            camera = Camera.from_fov(fov_degrees, image_shape)
        elif info is None:
            raise UnusableInput(
                'no camera_info',
                'there is no camera_info with the images; is it remapped to where the driver '
                'publishes it? (default_fov_degrees allows going on without)',
            )
        else:
            rectified = current.rectified == 'true' or (
                current.rectified == 'auto' and self._is_rectified_topic and any(info.p)
            )
            camera = to_camera(info, image_shape, rectified)
        return self._in_world(camera, header, current)

    def _in_world(self, camera: Camera, header: Header, current: Settings) -> Camera:
        """Return the camera with its pose in the world frame, if there is to be one."""
        if current.world_frame != self._world:
            self._move_world(None)
            self._world = current.world_frame
        if current.world_frame:
            try:
                motion = self._frames.motion(
                    header.frame_id, current.world_frame, header.stamp, current.tf_timeout
                )
                self._move_world(motion.matrix)
            except UnusableInput as unusable:
                self._fall_back(unusable, current)
        # Where the camera was last is nearer to the truth than somewhere else.
        if self._extrinsics is None:
            return camera
        return dataclasses.replace(
            camera, extrinsic_matrix=self._extrinsics, world_up_vector=WORLD_UP
        )

    def _move_world(self, extrinsics: FloatArray | None) -> None:
        """Take up where the camera is; who is known in another frame is known no more."""
        if (extrinsics is None) != (self._extrinsics is None):
            self._is_to_forget = True
        self._extrinsics = extrinsics

    def _motion(self, header: Header, current: Settings) -> tuple[Motion, str]:
        """Return what takes points of the camera's frame to that of what is published."""
        if not header.frame_id:
            self._record.fallbacks.explain(
                'image without frame_id',
                "the images' headers have no frame_id, so nothing can be placed in TF or RViz; "
                'does the camera driver set it?',
            )
        if current.target_frame in ('', header.frame_id):
            return STILL, header.frame_id
        try:
            motion = self._frames.motion(
                current.target_frame, header.frame_id, header.stamp, current.tf_timeout
            )
        except UnusableInput as unusable:
            self._fall_back(unusable, current)
            return STILL, header.frame_id
        return motion, current.target_frame

    def _fall_back(self, unusable: UnusableInput, current: Settings) -> None:
        if current.tf_fallback == 'drop':
            raise unusable
        self._record.fallbacks.explain(unusable.cause, str(unusable))

    def _watch_time(self, stamp_s: float) -> None:
        """Forget everybody where time went back since the last image."""
        back_s = self._last_stamp_s - stamp_s
        self._last_stamp_s = stamp_s
        if back_s > JUMP_BACK_S:
            self._is_to_forget = True
            self._record.fallbacks.explain(
                'time went back',
                f"the images' stamps went back by {back_s:.1f} s, as when a recording begins "
                'again; everybody is forgotten',
            )


def age_s(header: Header, now: Time) -> float:
    """Return how long ago something was stamped."""
    age: float = (now - Time.from_msg(header.stamp)).nanoseconds * 1e-9
    return age
