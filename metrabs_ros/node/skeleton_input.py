"""Skeletons of one camera as input of the fusion: subscriptions, calibration and camera pose."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import image_shape_of, to_camera
from metrabs_ros.conversions.skeleton_validation import valid_people
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.configured_node import ConfiguredNode
from metrabs_ros.node.fusion_settings import FusionSettings
from metrabs_ros.node.latched_topics import LATCHED, is_latched
from metrabs_ros.node.size_limited_subscription import OversizedMessage, size_limited
from metrabs_ros.node.synchronisation import is_oversized
from metrabs_ros.node.transforms import WORLD_UP, TransformLookup
from metrabs_ros.people import People

QUEUE_SIZE = 10
MAX_MESSAGE_BYTES = 4 * 2**20
"""Maximum size of a SkeletonArray message: 500 people with 122 joints each."""
MAX_PEOPLE, MAX_JOINTS = 100, 5000
"""
Maximum number of people, and of joints of all people, in a message.

Time and memory of the fusion grow with the square of the number of people.
"""
MAX_PENDING = 20
"""Maximum number of messages that wait for a transform."""
MALFORMED, NO_CAMERA_INFO, NO_FRAME_ID = 'malformed skeletons', 'no camera_info', 'no frame_id'
"""Drop causes."""


class StampedSkeletons(NamedTuple):
    """
    Validated skeletons of a camera.

    Parameters
    ----------
    header
        Header of the message.
    people
        The people, in the frame of the header.
    received_s
        Time of reception on the monotonic clock, in seconds.
    """

    header: Header
    people: People
    received_s: float


class SkeletonInput:
    """
    Receives the skeletons of one camera.

    Parameters
    ----------
    node
        Node that subscribes.
    name
        Camera name, used as a namespace of the topics; empty for the namespace of the node.
    transforms
        Looks up transforms.
    deliver
        Called with the header and the people of each message that can be used.
    drop
        Called with cause and explanation for each message that cannot be used.
    count
        Called for each received message.
    discard
        Called for each message that waits for a transform when the input is unsubscribed.
    """

    def __init__(
        self,
        node: ConfiguredNode[FusionSettings],
        name: str,
        transforms: TransformLookup,
        deliver: Callable[[Header, CameraPeople], None],
        drop: Callable[[str, str, str], None],
        count: Callable[[str], None],
        discard: Callable[[str], None],
    ) -> None:
        self.name = name
        self._node = node
        self._transforms = transforms
        self._deliver, self._drop, self._count = deliver, drop, count
        self._discard = discard
        self._info: CameraInfo | None = None
        self._has_latched_subscription = False
        self._pending: collections.deque[StampedSkeletons] = collections.deque()
        prefix = f'{name}/' if name else ''
        on_skeletons = size_limited(
            SkeletonArray, MAX_MESSAGE_BYTES, self._on_skeletons, self._on_oversized
        )
        skeletons = node.create_subscription(
            SkeletonArray, f'{prefix}pose/skeletons', on_skeletons, QUEUE_SIZE, raw=True
        )
        info = node.create_subscription(
            CameraInfo, f'{prefix}camera_info', self._on_info, qos_profile_sensor_data
        )
        self._subscriptions = [skeletons, info]
        self.topic = skeletons.topic_name
        self._info_topic = info.topic_name

    def unsubscribe(self) -> None:
        """Unsubscribe, and discard the messages that wait."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        for _ in self._pending:
            self._discard(self.name)
        self._pending.clear()

    def subscribe_to_latched_info(self) -> None:
        """Subscribe to a latched camera_info that was published before, if there is one."""
        if self._info is not None or self._has_latched_subscription:
            return
        if is_latched(self._node, self._info_topic):
            self._has_latched_subscription = True
            self._subscriptions.append(
                self._node.create_subscription(
                    CameraInfo, self._info_topic, self._on_info, LATCHED
                )
            )

    def process_pending(self) -> None:
        """Deliver the messages whose transforms have arrived, and drop those that waited."""
        settings = self._node.settings
        while self._pending:
            oldest = self._pending[0]
            waited_s = time.monotonic() - oldest.received_s
            is_due = waited_s >= settings.tf_timeout or len(self._pending) > MAX_PENDING
            if not is_due and not self._has_transforms(oldest.header, settings):
                return
            self._pending.popleft()
            try:
                people = self._to_camera_people(oldest, settings)
            except UnusableInput as error:
                self._drop(error.cause, str(error), self.name)
            else:
                self._deliver(oldest.header, people)

    def _on_info(self, info: CameraInfo) -> None:
        if not is_oversized(info):
            self._info = info

    def _on_oversized(self, oversized: OversizedMessage) -> None:
        self._count(self.name)
        self._drop(MALFORMED, str(oversized), self.name)

    def _on_skeletons(self, message: Any) -> None:
        self._count(self.name)
        try:
            people, invalid = valid_people(message)
            _check_invalid(invalid)
            _check_amount(people)
        except ValueError as error:
            self._drop(MALFORMED, f'{self.topic}: {printable(error, 200)}', self.name)
            return
        self._pending.append(StampedSkeletons(message.header, people, time.monotonic()))
        self.process_pending()

    def _has_transforms(self, header: Header, settings: FusionSettings) -> bool:
        frames = {header.frame_id, self._camera_frame(header)} - {settings.fixed_frame, ''}
        return all(
            self._transforms.can_transform(frame, settings.fixed_frame, header.stamp)
            for frame in frames
        )

    def _camera_frame(self, header: Header) -> str:
        """Return the optical frame, which is by default that of the skeletons."""
        own = '' if self._info is None else self._info.header.frame_id.lstrip('/')
        frame: str = own or header.frame_id
        return frame

    def _to_camera_people(
        self, skeletons: StampedSkeletons, settings: FusionSettings
    ) -> CameraPeople:
        """
        Return the people with the calibration and the pose of their camera.

        Raises
        ------
        UnusableInput
            If the camera has no valid calibration, or no pose in the fixed frame.
        """
        header, info = skeletons.header, self._info
        if info is None:
            raise UnusableInput(
                NO_CAMERA_INFO,
                f'no camera_info was received on {self._info_topic}; check that the camera '
                'publishes it, and remap it if it has another name',
            )
        frame = self._camera_frame(header)
        if not frame or not header.frame_id:
            raise UnusableInput(
                NO_FRAME_ID,
                f'the header of {self.topic} or {self._info_topic} has no frame_id, so that the '
                'pose of the camera cannot be looked up in TF',
            )
        shape = image_shape_of(info)
        camera = self._placed(to_camera(info, shape, settings.rectified), frame, header, settings)
        people = skeletons.people
        if header.frame_id.lstrip('/') != frame:
            moved = self._transforms.lookup(frame, header.frame_id, header.stamp)
            centre_mm = -moved.translation_mm @ moved.rotation
            people = people.transformed(moved.rotation, moved.translation_mm, centre_mm)
        name, stamp_s = self.name, to_seconds(header.stamp)
        return CameraPeople.from_people(name, camera, stamp_s, people, shape)

    def _placed(
        self, camera: Camera, frame: str, header: Header, settings: FusionSettings
    ) -> Camera:
        """Return a camera with its pose in the fixed frame."""
        extrinsics: FloatArray = np.eye(4)
        if frame != settings.fixed_frame:
            transform = self._transforms.lookup(frame, settings.fixed_frame, header.stamp)
            extrinsics = transform.matrix
        return dataclasses.replace(camera, extrinsic_matrix=extrinsics, world_up_vector=WORLD_UP)


def _check_invalid(people: collections.Counter[str]) -> None:
    """Raise a `ValueError` if there are invalid people, given by reason."""
    for reason, count in people.items():
        raise ValueError(f'{count} of the people are not valid: {reason}')


def _check_amount(people: People) -> None:
    """Raise a `ValueError` if there are more people or joints than can be fused."""
    for count, limit, what in (
        (len(people), MAX_PEOPLE, 'people'),
        (people.joint_confidence.size, MAX_JOINTS, 'joints of all people'),
    ):
        if count > limit:
            raise ValueError(f'the message has {count} {what}; at most {limit} are fused')
