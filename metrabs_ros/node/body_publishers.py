"""Publishers of ROS4HRI bodies (REP 155): one set of topics for each tracked person."""

from __future__ import annotations

import array
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions import bodies as conversions
from metrabs_ros.conversions.message_types import HriMessageTypes
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.kinematics.body_tracks import Bodies, BodyTracks, residuals_mm
from metrabs_ros.kinematics.human_model import HumanModel, human_model
from metrabs_ros.kinematics.human_urdf import urdf_text
from metrabs_ros.kinematics.landmarks import (
    ANKLES,
    HIPS,
    WRISTS,
    landmark_confidence,
    landmark_weights,
)
from metrabs_ros.node.hri_messages import load_hri_types
from metrabs_ros.node.latched_topics import LATCHED
from metrabs_ros.node.managed_node import ManagedNode
from metrabs_ros.people import People

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

NAMESPACE = '/humans/bodies'
QUEUE_SIZE = 10
STREAM_TIMEOUT_S = 5.0
"""Time after which the bodies of a camera are removed if no images are processed."""
CHECK_PERIOD_S = 10.0
"""Period of the check for other publishers of bodies, in seconds."""
LIMB_ENDS = np.r_[WRISTS, ANKLES]


@dataclasses.dataclass(frozen=True)
class PeopleInImage:
    """
    The image that people were detected in.

    Parameters
    ----------
    image
        Image [H, W, 3], uint8, RGB.
    header
        Header of the image.
    """

    image: ImageArray
    header: Header


def check_hri_packages() -> None:
    """
    Check that the packages for ROS4HRI are installed.

    Raises
    ------
    ImportError
        If one is missing; the message names it.
    """
    load_hri_types()
    human_model()


class HriPublishers:
    """
    Publishers of the bodies of all cameras of a node, and of the list of their ids.

    Parameters
    ----------
    node
        Node that owns the publishers.
    cameras
        Namespaces of the cameras, which have separate tracks.

    Raises
    ------
    ImportError
        If an optional package is missing; the message names it.
    """

    def __init__(self, node: ManagedNode, cameras: Sequence[str] = ('',)) -> None:
        self._node = node
        self._types = load_hri_types()
        self._model = human_model()
        # The thread that publishes, and the executor thread that removes bodies.
        self._lock = threading.Lock()
        self._checked_s = time.monotonic()
        prefixes = conversions.id_prefixes(cameras)
        self._streams = {
            camera: _Stream(node, prefixes[camera], self._types, self._model) for camera in cameras
        }
        self._tracked = node.create_lifecycle_publisher(
            self._types.IdsList, f'{NAMESPACE}/tracked', QUEUE_SIZE
        )

    def close(self) -> None:
        """Destroy all publishers."""
        with self._lock:
            for stream in self._streams.values():
                stream.clear()
        self._node.destroy_lifecycle_publisher(self._tracked)

    def clear(self, camera: str = '') -> None:
        """Remove all bodies of a camera."""
        self._clear([self._streams[camera]])

    def clear_stopped(self) -> None:
        """Remove the bodies of cameras whose images stopped; to be called regularly."""
        with self._lock:
            stopped = [stream for stream in self._streams.values() if stream.has_stopped()]
        if stopped:
            self._clear(stopped)

    def publish(
        self,
        people: People,
        up: FloatArray,
        header: Header,
        camera: str = '',
        shown: PeopleInImage | None = None,
        with_links: bool = False,
    ) -> list[Any]:
        """
        Publish people as bodies.

        Parameters
        ----------
        people
            N people with all joints, in the frame of the header.
        up
            [3], up direction in this frame.
        header
            Header of the people.
        camera
            Namespace of their camera.
        shown
            The image that they are in; without it, no topics that refer to an image.
        with_links
            Whether to return the transforms of all links.

        Returns
        -------
        Transforms of the bodies, TransformStamped.
        """
        with self._lock:
            transforms = self._streams[camera].publish(people, up, header, shown, with_links)
            self._publish_ids(header)
        self._warn_of_others()
        return transforms

    def residuals(self) -> dict[str, str]:
        """Return distances of the ends of limbs of the URDF from the joints, for diagnostics."""
        with self._lock:
            solved = [s.solved for s in self._streams.values() if s.solved is not None]
        ends_mm = [residuals_mm(bodies, self._model)[:, LIMB_ENDS].ravel() for bodies in solved]
        known_mm = np.concatenate([np.zeros(0), *ends_mm])
        known_mm = known_mm[np.isfinite(known_mm)]
        if not len(known_mm):
            return {}
        return {f'body residual p{q} mm': f'{np.percentile(known_mm, q):.0f}' for q in (50, 95)}

    def _clear(self, streams: Sequence[_Stream]) -> None:
        with self._lock:
            for stream in streams:
                stream.clear()
            self._publish_ids(Header(stamp=self._node.get_clock().now().to_msg()))

    def _publish_ids(self, header: Header) -> None:
        own = Header(stamp=header.stamp)
        ids = [body for stream in self._streams.values() for body in stream.present]
        self._tracked.publish(self._types.IdsList(header=own, ids=ids))

    def _warn_of_others(self) -> None:
        now_s = time.monotonic()
        if now_s - self._checked_s < CHECK_PERIOD_S:
            return
        self._checked_s = now_s
        count = self._node.count_publishers(self._tracked.topic_name)
        if count > 1:
            self._node.get_logger().warning(
                f'{count} nodes publish {self._tracked.topic_name}, so that subscribers see the '
                'bodies of one node after the other; set hri for one of them, for example for the '
                'fusion node',
                once=True,
            )


class _Stream:
    """Bodies of one camera: their kinematics and their publishers."""

    def __init__(
        self, node: ManagedNode, prefix: str, types: HriMessageTypes, model: HumanModel
    ) -> None:
        self._node, self._prefix, self._types, self._model = node, prefix, types, model
        self._tracks = BodyTracks(model)
        self._publishers: dict[str, _BodyPublishers] = {}
        self.present: list[str] = []
        """Ids of the people of the last image."""
        self._published_s = 0.0
        self.solved: Bodies | None = None
        """Bodies of the last image, if their angles were computed."""

    def clear(self) -> None:
        """Forget all people and destroy their publishers."""
        self._tracks, self.present, self.solved = BodyTracks(self._model), [], None
        for body in list(self._publishers):
            self._publishers.pop(body).close()

    def has_stopped(self) -> bool:
        """Return whether there are bodies, although their last image is long ago."""
        age_s = time.monotonic() - self._published_s
        return bool(self._publishers) and age_s > STREAM_TIMEOUT_S

    def publish(
        self,
        people: People,
        up: FloatArray,
        header: Header,
        shown: PeopleInImage | None,
        with_links: bool,
    ) -> list[Any]:
        """Publish the people of an image; return their transforms."""
        ids = conversions.body_ids(self._prefix, people.ids)
        self.present, self._published_s = ids, time.monotonic()
        self.solved = None
        if not (ids or self._publishers):
            return []
        bodies = self._tracks.update(people, up, to_seconds(header.stamp))
        self._destroy_expired()
        for body in ids:
            if body not in self._publishers:
                self._publishers[body] = _BodyPublishers(self._node, body, shown is not None)
        publishers = [self._publishers[body] for body in ids]
        # Transforms first, so that they are available when the other messages arrive.
        if with_links or any(own.is_needed('joint_states') for own in publishers):
            self.solved = bodies = self._tracks.solve(bodies)
        transforms = conversions.to_body_transforms(bodies, ids, header, self._types)
        if with_links:
            # Links have the lengths of the published URDF.
            stable = np.flatnonzero(bodies.versions > 0)
            transforms += conversions.to_link_transforms(
                bodies.select(stable),
                [ids[i] for i in stable.tolist()],
                self._model,
                header,
                self._types,
            )
        self._publish_bodies(publishers, ids, bodies, people, up, header)
        if shown is not None:
            self._publish_in_image(publishers, people, shown)
        return transforms

    def _destroy_expired(self) -> None:
        # They exist as long as the angles and lengths.
        kept = conversions.body_ids(self._prefix, self._tracks.ids)
        for body in self._publishers.keys() - set(kept):
            self._publishers.pop(body).close()

    def _publish_bodies(
        self,
        publishers: Sequence[_BodyPublishers],
        ids: Sequence[str],
        bodies: Bodies,
        people: People,
        up: FloatArray,
        header: Header,
    ) -> None:
        """Publish what refers to the world, as far as it has subscribers."""
        types = self._types
        for i in _needed(publishers, 'joint_states'):
            names = [f'{name}_{ids[i]}' for name in self._model.tree.angle_names]
            publishers[i].publish(
                'joint_states',
                conversions.to_joint_state(names, bodies.angles[i], header, types),
            )
        for i in _needed(publishers, 'position'):
            publishers[i].publish(
                'position', conversions.to_position(bodies.origins_mm[i], header, types)
            )
        needed = _needed(publishers, 'velocity')
        if needed:
            weights, _ = landmark_weights(people.skeleton)
            hips_mm_s = weights[HIPS].mean(axis=0) @ people.velocities_mm_s
            for i in needed:
                publishers[i].publish(
                    'velocity',
                    conversions.to_velocity(
                        hips_mm_s[i], bodies.rotations[i], ids[i], header, types
                    ),
                )
        needed = _needed(publishers, 'posture')
        if needed:
            postures = self._tracks.postures(bodies, up).tolist()
            for i in needed:
                publishers[i].publish(
                    'posture', types.BodyPosture(header=header, posture=postures[i])
                )
        for i in _needed(publishers, 'urdf'):
            version = int(bodies.versions[i])
            if version != publishers[i].urdf_version:
                text = urdf_text(ids[i], bodies.lengths_mm[i])
                publishers[i].publish('urdf', types.String(data=text))
                publishers[i].urdf_version = version

    def _publish_in_image(
        self, publishers: Sequence[_BodyPublishers], people: People, shown: PeopleInImage
    ) -> None:
        """Publish what refers to the image, as far as it has subscribers."""
        types, shape = self._types, shown.image.shape
        needed = _needed(publishers, 'roi')
        if needed:
            boxes_px, confidence = people.boxes_px[needed], people.confidence[needed]
            regions = conversions.to_regions(boxes_px, confidence, shape, shown.header, types)
            for i, region in zip(needed, regions):
                publishers[i].publish('roi', region)
        for i in _needed(publishers, 'cropped'):
            cropped = to_cropped(shown, people.boxes_px[i])
            if cropped is not None:
                publishers[i].publish('cropped', cropped)
        needed = _needed(publishers, 'skeleton2d')
        if needed:
            weights, _ = landmark_weights(people.skeleton)
            points_px = weights @ people.poses2d_px[needed]
            confidence = landmark_confidence(people.joint_confidence[needed], people.skeleton)
            skeletons = conversions.to_skeletons2d(
                points_px, confidence, shape, shown.header, types
            )
            for i, skeleton in zip(needed, skeletons):
                publishers[i].publish('skeleton2d', skeleton)


class _BodyPublishers:
    """Publishers of one body."""

    def __init__(self, node: ManagedNode, body: str, in_image: bool) -> None:
        types = load_hri_types()
        topics: dict[str, tuple[Callable[..., Any], QoSProfile | int]] = {
            'joint_states': (types.JointState, QUEUE_SIZE),
            'position': (types.PointStamped, QUEUE_SIZE),
            'velocity': (types.TwistStamped, QUEUE_SIZE),
            'posture': (types.BodyPosture, QUEUE_SIZE),
            'urdf': (types.String, LATCHED),
        }
        if in_image:
            topics |= {
                'roi': (types.NormalizedRegionOfInterest2D, QUEUE_SIZE),
                'cropped': (Image, QUEUE_SIZE),
                'skeleton2d': (types.Skeleton2D, QUEUE_SIZE),
            }
        self._node = node
        self.urdf_version = 0
        """Version of the lengths in the published URDF."""
        # Parameters for the QoS, which cannot be removed, would accumulate.
        self._publishers = {
            name: node.create_publisher(
                kind,
                f'{NAMESPACE}/{body}/{name}',
                qos,
                qos_overriding_options=None,
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
            for name, (kind, qos) in topics.items()
        }

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def is_needed(self, name: str) -> bool:
        """Return whether a topic has subscribers."""
        return bool(self._publishers[name].get_subscription_count())

    def publish(self, name: str, message: Any) -> None:
        """Publish a message on one of the topics."""
        self._publishers[name].publish(message)


def _needed(publishers: Sequence[_BodyPublishers], name: str) -> list[int]:
    """Return the indices of the bodies of which a topic has subscribers."""
    return [i for i, own in enumerate(publishers) if own.is_needed(name)]


def to_cropped(shown: PeopleInImage, box_px: FloatArray) -> Image | None:
    """Return the part of an image in a box [4] as a bgr8 message; None if it is outside."""
    height, width = shown.image.shape[:2]
    left, top = np.floor(np.clip(box_px[:2], 0, (width, height))).astype(int).tolist()
    right, bottom = np.ceil(np.clip(box_px[:2] + box_px[2:4], 0, (width, height))).astype(int)
    cropped = np.ascontiguousarray(shown.image[top:bottom, left:right, ::-1])
    if not cropped.size:
        return None
    message = Image(header=shown.header, encoding='bgr8')
    message.height, message.width = cropped.shape[:2]
    message.step = 3 * message.width
    message.data = array.array('B', cropped.tobytes())
    return message
