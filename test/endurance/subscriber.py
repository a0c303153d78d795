"""Subscribe to the topics of a pose node until the process is killed."""

from __future__ import annotations

import sys

import rclpy
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from metrabs_ros.msg import SkeletonArray

rclpy.init()
node = rclpy.create_node('subscriber', namespace=sys.argv[1])
for kind, topic in (
    (SkeletonArray, 'pose/skeletons'),
    (MarkerArray, 'pose/markers'),
    (Image, 'pose/image_annotated'),
):
    node.create_subscription(kind, topic, lambda message: None, 10)
rclpy.spin(node)
