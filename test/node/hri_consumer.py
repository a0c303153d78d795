"""A subscriber to ROS4HRI bodies, for tests."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import PointStamped, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from robots import wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

hri_msgs = pytest.importorskip('hri_msgs.msg')
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TYPES = {
    'roi': hri_msgs.NormalizedRegionOfInterest2D,
    'cropped': Image,
    'skeleton2d': hri_msgs.Skeleton2D,
    'joint_states': JointState,
    'position': PointStamped,
    'velocity': TwistStamped,
    'posture': hri_msgs.BodyPosture,
    'urdf': String,
}
IMAGE = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
OTHER_MM = (900.0, 0.0, 5000.0)


class Consumer:
    """Subscribes to the bodies, and stores their messages by id and topic."""

    def __init__(self, robot, topics=tuple(TYPES)):
        self.robot, self.topics = robot, topics
        self.tracked, self.messages, self.subscriptions = [], {}, {}
        robot.create_subscription(
            hri_msgs.IdsList, '/humans/bodies/tracked', self.tracked.append, 10
        )
        wait_for(lambda: robot.count_publishers('/humans/bodies/tracked'))

    def follow(self, body):
        """Subscribe to the topics of a body, and wait for their discovery."""
        self.messages[body] = {topic: [] for topic in self.topics}
        self.subscriptions[body] = [
            self.robot.create_subscription(
                TYPES[topic],
                f'/humans/bodies/{body}/{topic}',
                self.messages[body][topic].append,
                LATCHED if topic == 'urdf' else 10,
            )
            for topic in self.topics
        ]

    def send(self, image=IMAGE):
        """Send an image; return the ids that the node lists for it."""
        stamp = self.robot.send(image)
        return wait_for(lambda: [m for m in self.tracked if m.header.stamp == stamp])[0].ids

    def receive(self, body):
        """Send images until all topics of a body have messages; return the latest ones."""
        self.follow(body)
        own = self.messages[body]

        def all_there():
            self.send()
            return all(own.values())

        wait_for(all_there)
        for messages in own.values():
            messages.clear()
        ids = self.send()
        assert body in ids
        wait_for(lambda: all(own[topic] for topic in self.topics if topic != 'urdf'))
        return {topic: messages[-1] if messages else None for topic, messages in own.items()}


def publishers_of(node):
    """Return the topics below /humans/bodies that a node publishes."""
    return {p.topic_name for p in node.publishers if p.topic_name.startswith('/humans/')}
