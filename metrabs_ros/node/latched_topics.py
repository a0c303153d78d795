"""Latched topics, whose last message was published before the node subscribed."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""QoS of publishers that keep their last message, and of subscriptions that receive it."""


def is_latched(node: Node, topic: str) -> bool:
    """
    Return whether a topic, given by its full name, has a publisher that keeps its last message.

    Other publishers would log warnings about a subscription to latched messages, which is
    incompatible with them.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    return any(own.qos_profile.durability == LATCHED.durability for own in publishers)
