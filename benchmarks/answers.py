"""
Measure the response time of services and parameters under load, and the shutdown time.

A camera in this process publishes a photograph at 1080p with 15 Hz.

    python benchmarks/answers.py [MODEL]
"""

from __future__ import annotations

import array
import os
import pathlib
import signal
import subprocess
import sys
import time

os.environ.setdefault('ROS_DOMAIN_ID', '96')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

import cv2
import machine
import numpy as np
import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool

from metrabs_ros import demo

IMAGE_FILE = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'street.png'
WARM_UP_S = 8.0
ROUNDS = 60
PAUSE_S = 0.12


class Camera(Node):
    """Publishes a photograph and calls services of the node."""

    def __init__(self) -> None:
        super().__init__('camera')
        self._images = self.create_publisher(Image, 'image', 5)
        self._infos = self.create_publisher(CameraInfo, 'camera_info', 5)
        image = cv2.resize(cv2.imread(str(IMAGE_FILE)), (1920, 1080))
        self._image = Image(height=1080, width=1920, step=5760, encoding='bgr8')
        self._image.data = array.array('B', image.tobytes())
        self._image.header.frame_id = 'camera'
        self._info = CameraInfo(height=1080, width=1920, distortion_model='plumb_bob')
        self._info.k = [1500.0, 0.0, 960.0, 0.0, 1500.0, 540.0, 0.0, 0.0, 1.0]
        self.create_timer(1 / 15, self._publish)

    def _publish(self) -> None:
        stamp = self.get_clock().now().to_msg()
        self._image.header.stamp = self._info.header.stamp = stamp
        self._images.publish(self._image)
        self._infos.publish(self._info)

    def spin_for(self, seconds: float) -> None:
        """Publish images for a given time."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            rclpy.spin_once(self, timeout_sec=0.02)

    def call(self, client: object, request: object) -> float:
        """Call a service and return the response time in milliseconds."""
        start_s = time.perf_counter()
        response = client.call_async(request)
        while not response.done():
            rclpy.spin_once(self, timeout_sec=1.0)
        return 1e3 * (time.perf_counter() - start_s)


def main() -> None:
    """Measure and print."""
    for variable in demo.PROFILES_VARIABLES:
        os.environ.setdefault(variable, str(demo.FASTDDS_PROFILES_FILE))
    model = sys.argv[1] if len(sys.argv) > 1 else 'blazepose'
    command = [sys.executable, '-m', 'metrabs_ros.node.pose_node']
    node = subprocess.Popen([*command, '--ros-args', '-p', f'model:={model}'])
    rclpy.init()
    camera = Camera()
    threshold = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.4)
    change = [Parameter(name='detector_threshold', value=threshold)]
    requests = {
        'enable': (SetBool, '/pose/enable', SetBool.Request(data=True)),
        'change a parameter': (
            SetParameters,
            '/pose/set_parameters',
            SetParameters.Request(parameters=change),
        ),
        'get the state': (GetState, '/pose/get_state', GetState.Request()),
    }
    clients = {
        name: camera.create_client(kind, topic) for name, (kind, topic, _) in requests.items()
    }
    for client in clients.values():
        client.wait_for_service(60.0)
    camera.spin_for(WARM_UP_S)
    response_times_ms: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(ROUNDS):
        for name, (_, _, request) in requests.items():
            response_times_ms[name].append(camera.call(clients[name], request))
        camera.spin_for(PAUSE_S)
    print(machine.describe())
    for name, values in response_times_ms.items():
        print(
            f'{model}, {name}: median {np.median(values):.1f} ms, 95th percentile '
            f'{np.percentile(values, 95):.1f} ms, maximum {max(values):.1f} ms'
        )
    start_s = time.perf_counter()
    node.send_signal(signal.SIGINT)
    status = node.wait()
    print(
        f'{model}: ended with status {status}, {time.perf_counter() - start_s:.2f} s after SIGINT'
    )


if __name__ == '__main__':
    main()
