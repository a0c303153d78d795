"""Publishers of skeletons, markers, transforms and annotated images of one camera."""

from __future__ import annotations

import array
import contextlib
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import MarkerArray

from metrabs_ros import drawing
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message, to_metres
from metrabs_ros.conversions.transforms import frame_name, to_transforms
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.managed_node import ManagedNode
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.transforms import RigidTransform
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Convention

QUEUE_SIZE = 10


class Publishers:
    """
    Publishers of the people of one camera.

    Parameters
    ----------
    node
        Node that owns the publishers.
    camera
        Camera name, used as a namespace of the topics; empty for a single camera.
    """

    def __init__(self, node: ManagedNode, camera: str = '') -> None:
        self._node = node
        self._write_markers = MarkerWriter(TYPES)
        # The same names as for a separate node in the namespace of the camera.
        topics = f'{camera}/{node.get_name()}' if camera else '~'
        with contextlib.ExitStack() as undo:

            def advertise(message_type: type, name: str) -> Any:
                topic = f'{topics}/{name}'
                publisher = node.create_lifecycle_publisher(message_type, topic, QUEUE_SIZE)
                undo.callback(node.destroy_lifecycle_publisher, publisher)
                return publisher

            self._skeletons = advertise(SkeletonArray, 'skeletons')
            self._markers = advertise(MarkerArray, 'markers')
            self._annotated = advertise(Image, 'image_annotated')
            self._transforms = TransformBroadcaster(node)
            undo.callback(node.destroy_publisher, self._transforms.pub_tf)
            self._resources = undo.pop_all()
        # All cameras share one TF tree, so their frame names need different prefixes.
        namespace = frame_name(f'{node.get_namespace()}/{camera}'.strip('/'))
        self._namespace_prefix = f'{namespace}_' if namespace else ''

    def close(self) -> None:
        """Destroy the publishers."""
        self._resources.close()

    def clear_markers(self) -> None:
        """Delete all markers."""
        self._markers.publish(self._write_markers.clear())

    def publish(
        self,
        image: ImageArray,
        people: People,
        transform: RigidTransform,
        up: FloatArray,
        header: Header,
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
        convention
            Skeleton convention of the published joints.
        settings
            Settings, of which `tf` and `tf_prefix` are used.
        """
        moved = people.transformed(transform.rotation, transform.translation_mm)
        message = to_message(moved.in_convention(convention), header, TYPES)
        if self._markers.get_subscription_count():
            distances_m = to_metres(people.distances_mm).tolist()
            markers = self._write_markers(message, distances_m, transform.rotation @ up)
            self._markers.publish(markers)
        # A transform needs a parent frame.
        has_transforms = settings.tf != 'none' and header.frame_id
        if has_transforms and self._transforms.pub_tf.get_subscription_count():
            self._send_transforms(moved, header, convention, settings)
        if self._annotated.get_subscription_count():
            self._annotated.publish(
                draw_annotated_image(image, people.in_convention(convention), header)
            )
        # Published last, so that transforms are available when the skeletons arrive.
        self._skeletons.publish(message)

    def _send_transforms(
        self, people: People, header: Header, convention: Convention, settings: Settings
    ) -> None:
        # The pelvis position is most accurate with all joints of the network.
        with_joints = settings.tf == 'joints'
        selected = people.in_convention(convention) if with_joints else people
        self._transforms.sendTransform(
            to_transforms(
                selected, header, TYPES, settings.tf_prefix or self._namespace_prefix, with_joints
            )
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
