"""Publishers of skeletons, markers, transforms and annotated images."""

from __future__ import annotations

import array
import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import MarkerArray

from metrabs_ros import drawing
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message
from metrabs_ros.conversions.transforms import frame_name, to_transforms
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.body_publishers import HriPublishers, PeopleInImage
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.managed_node import ManagedNode
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.transforms import RigidTransform
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Convention

QUEUE_SIZE = 10


class PeoplePublishers:
    """
    Publishers of people: skeletons, markers and transforms.

    Parameters
    ----------
    node
        Node that owns the publishers.
    topics
        Beginning of the topic names.
    frame_prefix
        Prefix of the TF frames, unless another one is given.
    """

    def __init__(self, node: ManagedNode, topics: str, frame_prefix: str) -> None:
        self._frame_prefix = frame_prefix
        self._write_markers = MarkerWriter(TYPES)
        with contextlib.ExitStack() as undo:

            def advertise(message_type: type, name: str) -> Any:
                topic = f'{topics}/{name}'
                publisher = node.create_lifecycle_publisher(message_type, topic, QUEUE_SIZE)
                undo.callback(node.destroy_lifecycle_publisher, publisher)
                return publisher

            self._skeletons = advertise(SkeletonArray, 'skeletons')
            self._markers = advertise(MarkerArray, 'markers')
            self._transforms = TransformBroadcaster(node)
            undo.callback(node.destroy_publisher, self._transforms.pub_tf)
            self._resources = undo.pop_all()

    def close(self) -> None:
        """Destroy the publishers."""
        self._resources.close()

    def clear_markers(self) -> None:
        """Delete all markers."""
        self._markers.publish(self._write_markers.clear())

    def has_marker_subscribers(self) -> bool:
        """Return whether markers are shown anywhere."""
        return bool(self._markers.get_subscription_count())

    def has_transform_subscribers(self) -> bool:
        """Return whether anything listens to /tf."""
        return bool(self._transforms.pub_tf.get_subscription_count())

    def publish(
        self,
        people: People,
        published: People,
        labels: Sequence[str],
        up: FloatArray,
        header: Header,
        tf: str,
        tf_prefix: str,
        more_markers: Sequence[Any] = (),
        more_transforms: Sequence[Any] = (),
    ) -> None:
        """
        Publish people.

        Parameters
        ----------
        people
            N people with all joints, in the frame of the header.
        published
            The same people with the published joints.
        labels
            [N], texts above the people.
        up
            Up direction [3] in the frame of the header.
        header
            Header of the published messages.
        tf
            Published frames: none, person or joints.
        tf_prefix
            Prefix of the frames; the default prefix if it is empty.
        more_markers
            Further markers.
        more_transforms
            Further transforms.
        """
        message = to_message(published, header, TYPES)
        if self.has_marker_subscribers():
            markers = self._write_markers(message, labels, up)
            markers.markers += more_markers
            self._markers.publish(markers)
        # A transform needs a parent frame.
        if header.frame_id and self.has_transform_subscribers():
            transforms = list(more_transforms)
            if tf != 'none':
                # The pelvis position is most accurate with all joints of the network.
                with_joints = tf == 'joints'
                selected = published if with_joints else people
                prefix = tf_prefix or self._frame_prefix
                transforms += to_transforms(selected, header, TYPES, prefix, with_joints)
            if tf != 'none' or transforms:
                self._transforms.sendTransform(transforms)
        # Published last, so that transforms are available when the skeletons arrive.
        self._skeletons.publish(message)


class CameraPublishers:
    """
    Publishers of the people of one camera, and of the annotated images.

    Parameters
    ----------
    node
        Node that owns the publishers.
    camera
        Camera name, used as a namespace of the topics; empty for a single camera.
    hri
        Publishers of ROS4HRI bodies; None if they are not published.
    """

    def __init__(
        self, node: ManagedNode, camera: str = '', hri: HriPublishers | None = None
    ) -> None:
        self._camera, self._hri = camera, hri
        # The same names as for a separate node in the namespace of the camera.
        topics = f'{camera}/{node.get_name()}' if camera else '~'
        # All cameras share one TF tree, so their frame names need different prefixes.
        namespace = frame_name(f'{node.get_namespace()}/{camera}'.strip('/'))
        prefix = f'{namespace}_' if namespace else ''
        self._camera_prefix = f'{frame_name(camera.strip("/"))}_' if camera else ''
        with contextlib.ExitStack() as undo:
            self._people = PeoplePublishers(node, topics, prefix)
            undo.callback(self._people.close)
            self._annotated = node.create_lifecycle_publisher(
                Image, f'{topics}/image_annotated', QUEUE_SIZE
            )
            undo.callback(node.destroy_lifecycle_publisher, self._annotated)
            self._resources = undo.pop_all()

    def close(self) -> None:
        """Destroy the publishers."""
        self._resources.close()

    def clear_people(self) -> None:
        """Delete all markers and bodies."""
        self._people.clear_markers()
        if self._hri is not None:
            self._hri.clear(self._camera)

    def publish(
        self,
        image: ImageArray,
        people: People,
        transform: RigidTransform,
        up: FloatArray,
        header: Header,
        image_header: Header,
        convention: Convention,
        settings: Settings,
    ) -> None:
        """
        Publish the people in an image.

        Parameters
        ----------
        image
            Image [H, W, 3], uint8, RGB.
        people
            People with all joints of the network, in the camera frame.
        transform
            Transform from the camera frame to the frame of the header.
        up
            Up direction [3] in the camera frame.
        header
            Header of the published messages.
        image_header
            Header of the image.
        convention
            Skeleton convention of the published joints.
        settings
            Settings, of which `tf`, `tf_prefix` and `hri_tf` are used.
        """
        published = people.in_convention(convention)
        if self._annotated.get_subscription_count():
            self._annotated.publish(draw_annotated_image(image, published, header))
        labels = drawing.short_labels(people)
        to_target = transform.rotation, transform.translation_mm
        people, published = people.transformed(*to_target), published.transformed(*to_target)
        up = transform.rotation @ up
        transforms = []
        if self._hri is not None:
            with_links = settings.hri_tf and self._people.has_transform_subscribers()
            shown = PeopleInImage(image, image_header)
            transforms = self._hri.publish(people, up, header, self._camera, shown, with_links)
        self._people.publish(
            people,
            published,
            labels,
            up,
            header,
            settings.tf,
            settings.tf_prefix and f'{settings.tf_prefix}{self._camera_prefix}',
            more_transforms=transforms,
        )


def draw_annotated_image(image: ImageArray, people: People, header: Header) -> Image:
    """Return a bgr8 message of an image [H, W, 3], uint8, RGB, with people drawn onto it."""
    image_bgr = np.ascontiguousarray(image[..., ::-1])
    if np.shares_memory(image_bgr, image):
        image_bgr = image_bgr.copy()
    drawing.draw_people(image_bgr, people)
    message = Image(header=header, encoding='bgr8')
    message.height, message.width = image_bgr.shape[:2]
    message.step = 3 * message.width
    message.data = array.array('B', image_bgr.tobytes())
    return message
