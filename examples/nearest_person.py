#!/usr/bin/env python3
"""
Publish the position of the nearest person, and whether this person raises a hand.

    python3 examples/nearest_person.py --ros-args -r skeletons:=/pose/skeletons

Works with the skeletons blazepose_33 and coco_17.
"""

import contextlib

import numpy as np
import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool

from metrabs_ros.msg import SkeletonArray


class NearestPerson(Node):
    """Subscribe to `skeletons`; publish `nearest_person` and `hand_raised`."""

    def __init__(self):
        super().__init__('nearest_person')
        self.position = self.create_publisher(PointStamped, 'nearest_person', 10)
        self.hand_raised = self.create_publisher(Bool, 'hand_raised', 10)
        self.create_subscription(SkeletonArray, 'skeletons', self.on_skeletons, 10)

    def on_skeletons(self, message):
        """Publish both results; without people, only that no hand is raised."""
        names = list(message.joint_names)
        # [N, J, 3], metres, in the frame of the message.
        poses = np.array([[(p.x, p.y, p.z) for p in s.positions] for s in message.skeletons])
        if not len(poses):
            self.hand_raised.publish(Bool(data=False))
            return
        hips = poses[:, [names.index('left_hip'), names.index('right_hip')]].mean(axis=1)
        nearest = np.linalg.norm(hips, axis=-1).argmin()
        point = PointStamped(header=message.header)
        point.point.x, point.point.y, point.point.z = hips[nearest].tolist()
        self.position.publish(point)
        self.hand_raised.publish(Bool(data=is_hand_raised(poses[nearest], names)))


def is_hand_raised(pose, names):
    """Return whether a wrist is above the shoulders, along the axis of the trunk."""
    joints = {name: pose[index] for index, name in enumerate(names)}
    shoulders = (joints['left_shoulder'] + joints['right_shoulder']) / 2
    # The direction from the hips to the shoulders is "up" in every frame, also a camera's.
    up = shoulders - (joints['left_hip'] + joints['right_hip']) / 2
    return any(float((joints[f'{s}_wrist'] - shoulders) @ up) > 0 for s in ('left', 'right'))


if __name__ == '__main__':
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(NearestPerson())
