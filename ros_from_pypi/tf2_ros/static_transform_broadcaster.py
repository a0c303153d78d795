"""Publisher of static transforms."""

from __future__ import annotations

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .transform_broadcaster import as_list


class StaticTransformBroadcaster:
    """
    Publishes latched transforms on ``/tf_static``.

    Parameters
    ----------
    node
        Node that publishes.
    qos
        QoS profile or queue size; by default a queue size of 1, transient local.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(
                depth=1,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
                history=HistoryPolicy.KEEP_LAST,
            )
        self.pub_tf = node.create_publisher(TFMessage, '/tf_static', qos)
        self.net_message = TFMessage()
        self._child_frame_ids: set[str] = set()

    def sendTransform(  # noqa: N802
        self, transform: TransformStamped | Iterable[TransformStamped]
    ) -> None:
        """Publish one or several transforms, together with all previous ones."""
        for one in as_list(transform):
            if one.child_frame_id not in self._child_frame_ids:
                self._child_frame_ids.add(one.child_frame_id)
                self.net_message.transforms.append(one)
        self.pub_tf.publish(self.net_message)
