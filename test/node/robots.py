"""Test fixtures: a robot that publishes images and subscribes to the topics of the pose node."""

from __future__ import annotations

import array
import contextlib
import gc
import threading
import time

import numpy as np
import rclpy
import tf2_ros
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray

from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.pose_node import PoseNode

TIMEOUT_S = 120.0
"""Timeout of all conditions, in seconds; large because a machine under load is slow."""
FOCAL_PX = 900.0
INFO_FIELDS = ('k', 'd', 'p', 'distortion_model', 'roi', 'binning_x', 'binning_y')
BLACK = np.zeros((120, 160, 3), np.uint8)


class Robot(Node):
    """Publishes images and camera_info, and stores the messages of the pose node."""

    def __init__(self, namespace=''):
        super().__init__('robot', namespace=namespace)
        self.images = self.create_publisher(Image, 'image', qos_profile_sensor_data)
        self.infos = self.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data)
        self.skeletons, self.markers, self.diagnostics = [], [], []
        self.create_subscription(SkeletonArray, 'pose/skeletons', self.skeletons.append, 50)
        self.create_subscription(MarkerArray, 'pose/markers', self.markers.append, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 50)
        self.transforms = tf2_ros.Buffer()
        self.listener = tf2_ros.TransformListener(self.transforms, self)
        self.sent = 0
        self.service_clients = {}

    def send(self, image, **changes):
        """Publish an image and its camera_info; return the stamp."""
        self.sent += 1
        message, info = Image(), CameraInfo()
        message.header.stamp.sec = self.sent
        message.header.frame_id = info.header.frame_id = 'camera_optical_frame'
        message.height, message.width = info.height, info.width = image.shape[:2]
        message.encoding, message.step = 'rgb8', 3 * image.shape[1]
        message.data = array.array('B', image.tobytes())
        info.k = [FOCAL_PX, 0, image.shape[1] / 2, 0, FOCAL_PX, image.shape[0] / 2, 0, 0, 1]
        info.distortion_model, info.d = 'plumb_bob', [0.0] * 5
        for name, value in changes.items():
            setattr(info if name in INFO_FIELDS else message, name, value)
        info.header.stamp = message.header.stamp
        self.images.publish(message)
        self.infos.publish(info)
        return message.header.stamp

    def receive(self, stamp):
        """Wait for the skeletons of an image."""
        return wait_for(lambda: [s for s in self.skeletons if s.header.stamp == stamp])[0]

    def wait_for_node(self, compressed=False):
        """Wait until the node and this robot have discovered each other."""
        wait_for(lambda: compressed or self.images.get_subscription_count())
        wait_for(lambda: self.count_publishers('pose/skeletons'))
        wait_for(lambda: self.infos.get_subscription_count())

    def dropped(self):
        """Return the numbers of dropped frames in the latest diagnostics, by cause."""
        values = self.diagnostics[-1].status[0].values if self.diagnostics else []
        return {v.key: int(v.value) for v in values if v.key.startswith('dropped: ')}


def wait_for(condition):
    """Wait until a condition is true, and return its value."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f'the condition does not hold after {TIMEOUT_S} s'
        time.sleep(0.01)
    return result


def call(robot, kind, service, **request):
    """Call a service; return the response and the duration in seconds."""
    # Clients are reused, because the discovery of a new client takes longer than a request.
    if service not in robot.service_clients:
        robot.service_clients[service] = robot.create_client(kind, service)
    client = robot.service_clients[service]
    wait_for(client.service_is_ready)
    start_s = time.monotonic()
    future = client.call_async(kind.Request(**request))
    wait_for(future.done)
    return future.result(), time.monotonic() - start_s


def set_parameters(robot, **values):
    parameters = [
        Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
    ]
    answer, _ = call(robot, SetParameters, 'pose/set_parameters', parameters=parameters)
    return answer.results


@contextlib.contextmanager
def spinning(*nodes):
    """Spin each node in a separate thread with a `GuardedExecutor`."""
    executors = [GuardedExecutor() for _ in nodes]
    for executor, node in zip(executors, nodes):
        executor.add_node(node)
    done = threading.Event()

    def spin(executor):
        while not done.is_set():
            executor.spin_once(timeout_sec=0.1)

    threads = [threading.Thread(target=spin, args=(executor,)) for executor in executors]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        # Executors of rclpy must not be shut down while they are spinning.
        done.set()
        for executor, thread in zip(executors, threads):
            executor.wake()
            thread.join()
            executor.shutdown()


@contextlib.contextmanager
def pose_node(model=None, active=True, namespace='', robots=None, **parameters):
    """
    Run the node and one robot, or one robot per namespace in `robots`.

    Without a model, the node loads its default model.
    """
    # The services of a destroyed lifecycle node exist, without responding, until it is collected.
    gc.collect()
    rclpy.init()
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    load = None if model is None else (lambda settings: model)
    node = PoseNode(load, parameter_overrides=overrides, namespace=namespace)
    around = [Robot(name) for name in robots or [namespace]]
    try:
        if active:
            node.trigger_configure()
            node.trigger_activate()
        with spinning(node, *around):
            for robot in around if active else ():
                robot.wait_for_node(parameters.get('image_transport') == 'compressed')
            yield node, *around
    finally:
        node.stop()
        for robot in around:
            robot.listener.unregister()
        for spun in (node, *around):
            spun.destroy_node()
        rclpy.shutdown()


def transform(parent, child, rotation=(0.0, 0.0, 0.0, 1.0), place=(0.0, 0.0, 0.0)):
    """Return a transform message from a quaternion (x, y, z, w) and a translation in metres."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    turn, move = message.transform.rotation, message.transform.translation
    turn.x, turn.y, turn.z, turn.w = rotation
    move.x, move.y, move.z = place
    return message
