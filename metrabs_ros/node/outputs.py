"""All that is published of the people in a frame."""

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
from metrabs_ros.node.managed_node import ManagedNode
from metrabs_ros.node.message_types import TYPES
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.transforms import Motion
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import Convention

DEPTH = 10


class Outputs:
    """
    The topics that people are published on.

    Parameters
    ----------
    node
        Which publishes.
    camera
        The name of a camera, under which its topics are; empty if it is the only one.
    """

    def __init__(self, node: ManagedNode, camera: str = '') -> None:
        self._node = node
        self._write_markers = MarkerWriter(TYPES)
        # As from a node of its own in the camera's namespace.
        topics = f'{camera}/{node.get_name()}' if camera else '~'
        with contextlib.ExitStack() as undo:

            def offer(kind: type, name: str) -> Any:
                publisher = node.create_lifecycle_publisher(kind, f'{topics}/{name}', DEPTH)
                undo.callback(node.destroy_lifecycle_publisher, publisher)
                return publisher

            self._skeletons = offer(SkeletonArray, 'skeletons')
            self._markers = offer(MarkerArray, 'markers')
            self._annotated = offer(Image, 'image_annotated')
            self._transforms = TransformBroadcaster(node)
            undo.callback(node.destroy_publisher, self._transforms.pub_tf)
            self._withdraw = undo.pop_all()
        # Two cameras on one robot have different namespaces, and all frames are in one tree.
        namespace = frame_name(f'{node.get_namespace()}/{camera}'.strip('/'))
        self._namespace_prefix = f'{namespace}_' if namespace else ''

    def close(self) -> None:
        """Destroy the publishers."""
        self._withdraw.close()

    def clear_markers(self) -> None:
        """Delete all markers."""
        self._markers.publish(self._write_markers.clear())

    def publish(
        self,
        image: ImageArray,
        people: People,
        motion: Motion,
        up: FloatArray,
        header: Header,
        convention: Convention,
        settings: Settings,
    ) -> None:
        """
        Publish the people in a frame.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        people
            With all joints of the network, in the camera's frame.
        motion
            From there to the frame of the header.
        up
            [3], the up direction in the camera's frame.
        header
            Of what is published.
        convention
            Of the joints that are published.
        settings
            Of these, what is said about transforms.
        """
        moved = people.transformed(motion.rotation, motion.translation_mm)
        message = to_message(moved.in_convention(convention), header, TYPES)
        if self._markers.get_subscription_count():
            distances_m = to_metres(people.distances_mm).tolist()
            self._markers.publish(self._write_markers(message, distances_m, motion.rotation @ up))
        # TF has no place for what is in no frame.
        wanted = settings.tf != 'none' and header.frame_id
        if wanted and self._transforms.pub_tf.get_subscription_count():
            self._send_transforms(moved, header, convention, settings)
        if self._annotated.get_subscription_count():
            self._annotated.publish(
                annotated_image(image, people.in_convention(convention), header)
            )
        # Last, so that who has the skeletons can look up the transforms.
        self._skeletons.publish(message)

    def _send_transforms(
        self, people: People, header: Header, convention: Convention, settings: Settings
    ) -> None:
        # All joints say best where the pelvis is; frames are for those that were asked for.
        with_joints = settings.tf == 'joints'
        chosen = people.in_convention(convention) if with_joints else people
        self._transforms.sendTransform(
            to_transforms(
                chosen, header, TYPES, settings.tf_prefix or self._namespace_prefix, with_joints
            )
        )


def annotated_image(image: ImageArray, people: People, header: Header) -> Image:
    """Return an image [H, W, 3], uint8, RGB, with people drawn onto it."""
    picture = np.ascontiguousarray(image[..., ::-1])
    if np.shares_memory(picture, image):
        picture = picture.copy()
    drawing.draw_people(picture, people)
    message = Image(header=header, encoding='bgr8')
    message.height, message.width = picture.shape[:2]
    message.step = 3 * message.width
    message.data = array.array('B', picture.tobytes())
    return message
