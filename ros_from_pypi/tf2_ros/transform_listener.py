"""Subscriber of transforms."""

from __future__ import annotations

import threading

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .buffer import Buffer

AUTHORITY = 'default_authority'


class TransformListener:
    """
    Stores the transforms of ``/tf`` and ``/tf_static`` in a buffer.

    Parameters
    ----------
    buffer
        Buffer that stores the transforms.
    node
        Node that subscribes.
    spin_thread
        Whether to spin the node in a separate thread.
    qos, static_qos
        QoS profiles or queue sizes of the subscriptions.
    """

    def __init__(
        self,
        buffer: Buffer,
        node: Node,
        *,
        spin_thread: bool = False,
        qos: QoSProfile | int | None = None,
        static_qos: QoSProfile | int | None = None,
    ) -> None:
        self.buffer = buffer
        self.node = node
        # Reentrant, so that transforms are received while another callback waits for them.
        self.group = ReentrantCallbackGroup()
        self.tf_sub = node.create_subscription(
            TFMessage,
            '/tf',
            self.callback,
            _profile(DurabilityPolicy.VOLATILE) if qos is None else qos,
            callback_group=self.group,
        )
        self.tf_static_sub = node.create_subscription(
            TFMessage,
            '/tf_static',
            self.static_callback,
            _profile(DurabilityPolicy.TRANSIENT_LOCAL) if static_qos is None else static_qos,
            callback_group=self.group,
        )
        if spin_thread:
            self.executor = SingleThreadedExecutor()
            self.dedicated_listener_thread = threading.Thread(target=self._spin)
            self.dedicated_listener_thread.start()

    def __del__(self) -> None:
        """End the thread and destroy the subscriptions."""
        if hasattr(self, 'dedicated_listener_thread'):
            self.executor.shutdown()
            self.dedicated_listener_thread.join()
        self.unregister()

    def unregister(self) -> None:
        """Destroy the subscriptions."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)

    def callback(self, data: TFMessage) -> None:
        """Store transforms of moving frames."""
        for transform in data.transforms:
            self.buffer.set_transform(transform, AUTHORITY)

    def static_callback(self, data: TFMessage) -> None:
        """Store transforms of static frames."""
        for transform in data.transforms:
            self.buffer.set_transform_static(transform, AUTHORITY)

    def _spin(self) -> None:
        self.executor.add_node(self.node)
        self.executor.spin()
        self.executor.remove_node(self.node)


def _profile(durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=100, durability=durability, history=HistoryPolicy.KEEP_LAST)
