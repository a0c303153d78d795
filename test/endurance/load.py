"""Load of the endurance test: a robot with a camera, and actions that disturb the pose node."""

from __future__ import annotations

import array
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import cv2
import malformed
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from checks import is_finite, unaccounted_frames
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import WITHOUT_SHARED_MEMORY, ObservedProcess
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy._rclpy_pybind11 import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from metrabs_ros.msg import SkeletonArray

RATE_HZ = 30.0
FOCAL_PX = 900.0
FRAME_ID = 'camera_optical_frame'
ANSWER_TIMEOUT_S = 120.0
"""Timeout of service calls, longer than the time to load a model on a busy machine."""
SETTLING_S = 10.0
"""Time after activation from which memory samples are comparable."""
MAX_UNACCOUNTED = 19
"""Maximum number of frames in flight: pending in the synchroniser and in the worker."""
MAX_SILENCE_S = 90.0
"""Maximum time between skeletons while the node is active, enabled and receives images."""

DEFAULTS: dict[str, Any] = {
    'num_aug': 1, 'max_detections': -1, 'smoothing': 0.5, 'max_lost': 1.0, 'min_hits': 3,
    'detect_interval': 0, 'tf': 'person', 'world_frame': '', 'target_frame': '',
    'tf_fallback': 'camera', 'predict_latency': False, 'default_fov_degrees': 60.0,
    'ground_frame': '', 'ground_height': 0.0, 'stature': 0.0,
}  # fmt: skip
CHANGES: dict[str, tuple[Any, ...]] = {
    'num_aug': (1, 2, 0, -5, 10**9, 'two'),
    'max_detections': (-1, 2, 0, -2),
    'smoothing': (0.0, 1.0, 2.0, float('nan'), 'much', 1),
    'max_lost': (0.0, 0.5, 2, float('inf'), -1.0),
    'min_hits': (1, 5, 0, 3.0),
    'detect_interval': (0, 1, 10, -1),
    'tf': ('none', 'person', 'joints', 'all', 3),
    'world_frame': ('', 'map', 'no/such frame', 'x' * 5000),
    'target_frame': ('', 'map', 'no_such_frame', '\n\x1b[2J'),
    'tf_fallback': ('camera', 'drop', 'neither'),
    'predict_latency': (True, False, 'yes'),
    'ground_frame': ('', 'map', 'no_such_frame', 'x' * 5000),
    'ground_height': (0.0, 0.1, float('nan'), 1e300),
    'stature': (0.0, 1.6, -1.0, float('inf')),
    'skeleton': ('', 'coco_17', 'octopus_8', 'x' * 5000),
    'model': ('metrabs_l',),
    'no_such_parameter': (1, 'x'),
    'use_sim_time': (False,),
}
TRANSITIONS = (
    *(('configure', 1), ('cleanup', 2), ('activate', 3), ('deactivate', 4)),
    *(('', 1), ('', 2), ('', 3), ('', 4), ('', 0), ('', 99), ('', 8), ('', 255)),
    *(('no such', 0), ('configure', 0), ('cleanup', 0), ('activate', 0), ('deactivate', 0)),
)


class Robot(Node):
    """
    Publishes images and transforms, and uses all topics and services of a pose node.

    Parameters
    ----------
    namespace
        Namespace of the pose node.
    image
        Image [H, W, 3], uint8, RGB, that the camera publishes.
    compressed
        Whether the camera publishes compressed images.
    random
        Random number generator.
    """

    def __init__(
        self, namespace: str, image: np.ndarray, compressed: bool, random: Random
    ) -> None:
        super().__init__('robot', namespace=namespace)
        self.random = random
        self.is_compressed = compressed
        self.failures: list[str] = []
        self.skeletons = 0
        self.diagnostics: dict[str, str] = {}
        self.max_unaccounted = 0
        self.max_silence_s = 0.0
        self.is_expected_to_publish = False
        self.active_since_s: float | None = None
        self._last_skeletons_s = time.monotonic()
        self._stamp_offset_s = 0.0
        self._last_stamp = Time()
        self._message = (_compressed if compressed else _raw)(image)
        self._info = CameraInfo(
            height=image.shape[0], width=image.shape[1], distortion_model='plumb_bob'
        )
        self._info.header.frame_id = FRAME_ID
        centre = image.shape[1] / 2, image.shape[0] / 2
        self._info.k = [FOCAL_PX, 0.0, centre[0], 0.0, FOCAL_PX, centre[1], 0.0, 0.0, 1.0]
        kind, topic = (CompressedImage, 'image/compressed') if compressed else (Image, 'image')
        self.images = self.create_publisher(kind, topic, qos_profile_sensor_data)
        self._infos = self.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data)
        self.boxes = self.create_publisher(Detection2DArray, 'detections', qos_profile_sensor_data)
        self._depths = self.create_publisher(Image, 'depth', qos_profile_sensor_data)
        self._depth = _depth(image.shape)
        self._transforms = self.create_publisher(TFMessage, '/tf', 100)
        self._subscribe(SkeletonArray, 'pose/skeletons', self._on_skeletons, 50)
        self._subscribe(MarkerArray, 'pose/markers', self._require_finite, 50)
        self._subscribe(TFMessage, '/tf', self._on_transforms, 100)
        self._subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 50)
        self._service_clients = {
            'change_state': self.create_client(ChangeState, 'pose/change_state'),
            'get_state': self.create_client(GetState, 'pose/get_state'),
            'set_parameters': self.create_client(SetParameters, 'pose/set_parameters'),
            'enable': self.create_client(SetBool, 'pose/enable'),
            'reset': self.create_client(Trigger, 'pose/reset'),
        }

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], depth: int
    ) -> Subscription:
        """
        Subscribe, and convert the messages here rather than in the middleware.

        Fast DDS repeats the conversion without end if it fails for a sample without content.
        """

        def receive(data: bytes) -> None:
            if data:
                callback(deserialize_message(data, kind))

        return self.create_subscription(kind, topic, receive, depth, raw=True)

    def fail(self, sentence: str) -> None:
        """Record a failure; only the first hundred are stored."""
        if len(self.failures) < 100:
            self.failures.append(f'{self.get_namespace()}: {sentence}')
            print(f'FAILURE {self.failures[-1]}', flush=True)

    def call(self, name: str, request: Any) -> Any:
        """Call a service of the node; return the response, or None after a timeout."""
        client = self._service_clients[name]
        if not client.wait_for_service(ANSWER_TIMEOUT_S):
            self.fail(f'the service {name} is not available')
            return None
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(ANSWER_TIMEOUT_S):
            client.remove_pending_request(future)
            self.fail(f'the service {name} did not respond to {str(request)[:200]}')
            return None
        return future.result()

    # Actions: each is repeated by a separate thread.

    def send_frame(self) -> None:
        """Publish an image, its calibration and detections."""
        if self.random.random() < 0.002:
            self._stamp_offset_s = self.random.choice((0.0, 3600.0, -3600.0, 0.3, -0.3))
        now_s = time.time() + self._stamp_offset_s
        at = Time(sec=int(now_s), nanosec=int(now_s % 1 * 1e9))
        if self.random.random() < 0.005:
            at = self._last_stamp
        self._last_stamp = at
        self.send_image(at)
        if self.random.random() < 0.95:
            self.boxes.publish(_boxes_at(at))

    def send_image(self, at: Time) -> None:
        """Publish an image with a stamp, and in most cases its calibration."""
        self._message.header.stamp = self._info.header.stamp = at
        if self.random.random() < 0.98:
            self._infos.publish(self._info)
        self.images.publish(self._message)

    def send_depth(self) -> None:
        """Publish a depth image with the stamp of the last image, or a malformed one."""
        kind = self.random.random()
        if kind < 0.8:
            self._depth.header.stamp = self._last_stamp
            self._depths.publish(self._depth)
        elif kind < 0.9:
            self._depths.publish(malformed.image(self.random))
        else:
            self._depths.publish(malformed.corrupted(self.random, self._depth))

    def send_malformed_message(self) -> None:
        """Publish a malformed message."""
        make_image = malformed.compressed_image if self.is_compressed else malformed.image
        kind = self.random.randrange(4)
        if kind == 0:
            self.images.publish(make_image(self.random))
        elif kind == 1:
            self._infos.publish(malformed.camera_info(self.random))
        elif kind == 2:
            self.boxes.publish(malformed.detections(self.random, self._last_stamp))
        else:
            self._send_corrupted_message()

    def send_transform(self) -> None:
        """Publish the camera pose in the map frame, sometimes with invalid values."""
        if int(time.monotonic()) % 20 < 5:
            return
        at = self._last_stamp
        moved = TransformStamped(child_frame_id=FRAME_ID)
        moved.header.frame_id = 'map'
        moved.header.stamp = at
        turn, move = moved.transform.rotation, moved.transform.translation
        turn.x, turn.y, turn.z, turn.w = -0.5, 0.5, -0.5, 0.5
        move.z = 1.0
        if self.random.random() < 0.01:
            moved = malformed.transform(self.random, 'map', FRAME_ID, at)
        self._transforms.publish(TFMessage(transforms=[moved]))

    def change_states(self) -> None:
        """Request transitions, valid and invalid, by label and by id; then activate the node."""
        self._expect_no_skeletons()
        for _ in range(self.random.randint(1, 10)):
            label, number = self.random.choice(TRANSITIONS)
            self.request_transition(label, number)
        self.activate()

    def activate(self) -> None:
        """Activate the node from any state."""
        for _ in range(10):
            state = self.call('get_state', GetState.Request())
            current = None if state is None else state.current_state.id
            if current == State.PRIMARY_STATE_ACTIVE:
                self._expect_skeletons()
                return
            if current == State.PRIMARY_STATE_UNCONFIGURED:
                # Without a model, the node accepts skeletons that the model does not provide.
                self._set('skeleton', '')
                self.request_transition('', Transition.TRANSITION_CONFIGURE)
            elif current == State.PRIMARY_STATE_INACTIVE:
                self.request_transition('', Transition.TRANSITION_ACTIVATE)
            else:
                time.sleep(1.0)
        self.fail('the node cannot be activated')

    def change_parameter(self) -> None:
        """Set a parameter to a valid or an invalid value, or to its default."""
        name = self.random.choice(sorted(CHANGES))
        value = self.random.choice(CHANGES[name])
        if self.random.random() < 0.4:
            name = self.random.choice(sorted(DEFAULTS))
            value = DEFAULTS[name]
        self._set(name, value)

    def call_services(self) -> None:
        """Disable the node for a short time, or reset its tracks."""
        if self.random.random() < 0.7:
            self.call('reset', Trigger.Request())
            return
        self.call('enable', SetBool.Request(data=False))
        time.sleep(self.random.uniform(0, 2))
        self.call('enable', SetBool.Request(data=True))

    def subscribe_for_a_while(self) -> None:
        """Subscribe in this process to a topic that is only computed for subscribers."""
        kind, topic = self.random.choice(
            ((Image, 'pose/image_annotated'), (MarkerArray, 'pose/markers'))
        )
        subscription = self._subscribe(kind, topic, lambda message: None, 10)
        time.sleep(self.random.uniform(0, 5))
        self.destroy_subscription(subscription)

    def watch_silence(self) -> None:
        """Record the time without skeletons while skeletons are expected."""
        if self.is_expected_to_publish:
            silence_s = time.monotonic() - self._last_skeletons_s
            self.max_silence_s = max(self.max_silence_s, silence_s)
            if silence_s > MAX_SILENCE_S:
                self.fail(f'no skeletons for {silence_s:.0f} s: {self.diagnostics}')
                self._last_skeletons_s = time.monotonic()

    def is_settled(self) -> bool:
        """Return whether the node has been active long enough for comparable samples."""
        since_s = self.active_since_s
        return since_s is not None and time.monotonic() - since_s > SETTLING_S

    # Callbacks of the topics of the node.

    def _on_skeletons(self, message: SkeletonArray) -> None:
        self.skeletons += 1
        self._last_skeletons_s = time.monotonic()
        self._require_finite(message)
        lengths = {
            len(getattr(skeleton, name))
            for skeleton in message.skeletons
            for name in ('positions', 'velocities', 'confidences', 'image_points', 'in_view')
        }
        if lengths - {len(message.joint_names)}:
            self.fail(f'arrays of {lengths} for {len(message.joint_names)} joints')

    def _on_transforms(self, message: TFMessage) -> None:
        person_transforms = [t for t in message.transforms if '_person_' in t.child_frame_id]
        self._require_finite(person_transforms)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if not status.name.startswith('pose') or not self._is_from_node(status):
                continue
            self.diagnostics = {value.key: value.value for value in status.values}
            if len(status.values) > 200:
                self.fail(f'diagnostics have {len(status.values)} entries')
            longest = max(len(value.key) + len(value.value) for value in status.values)
            if longest > 1000:
                self.fail(f'diagnostics have an entry of {longest} characters')
            unaccounted = unaccounted_frames(self.diagnostics)
            self.max_unaccounted = max(self.max_unaccounted, unaccounted)
            if not 0 <= unaccounted <= MAX_UNACCOUNTED:
                self.fail(f'{unaccounted} frames are not accounted for: {self.diagnostics}')

    def _is_from_node(self, status: DiagnosticStatus) -> bool:
        # Both nodes have the same name, but different models.
        return ('blazepose' in status.hardware_id) == ('blazepose' in self.get_namespace())

    def _require_finite(self, message: Any) -> None:
        if not is_finite(message):
            self.fail(f'a value is not finite: {str(message)[:500]}')

    # Parts of the actions.

    def _send_corrupted_message(self) -> None:
        publisher, message = self.random.choice(
            (
                (self.images, malformed.image(self.random)),
                (self._infos, malformed.camera_info(self.random)),
                (self.boxes, malformed.detections(self.random, self._last_stamp)),
            )
        )
        if publisher is self.images and self.is_compressed:
            message = malformed.compressed_image(self.random)
        publisher.publish(malformed.corrupted(self.random, message))

    def request_transition(self, label: str, number: int) -> None:
        """Request a transition by label, by id or by both."""
        transition = Transition(id=number, label=label)
        self.call('change_state', ChangeState.Request(transition=transition))

    def _expect_no_skeletons(self) -> None:
        self.is_expected_to_publish, self.active_since_s = False, None

    def _expect_skeletons(self) -> None:
        self._last_skeletons_s = self.active_since_s = time.monotonic()
        self.is_expected_to_publish = True

    def _set(self, name: str, value: Any) -> None:
        parameter = Parameter(name=name, value=_parameter_value(value))
        response = self.call('set_parameters', SetParameters.Request(parameters=[parameter]))
        if response is None:
            return
        result = response.results[0]
        is_default = name in DEFAULTS and repr(DEFAULTS[name]) == repr(value)
        if is_default and not result.successful:
            self.fail(f'{name} cannot be set to {value!r}: {result.reason}')
        if len(result.reason) > 1000:
            self.fail(f'the reason has {len(result.reason)} characters')


def run_subscriber_process(namespace: str, random: Random, log: pathlib.Path) -> None:
    """
    Start a subscriber process, optionally stop it for some time, and kill it.

    It receives without shared memory; see `WITHOUT_SHARED_MEMORY`.
    """
    process = ObservedProcess(
        [sys.executable, str(pathlib.Path(__file__).with_name('subscriber.py')), namespace],
        log,
        WITHOUT_SHARED_MEMORY,
    )
    try:
        time.sleep(random.uniform(2, 6))
        if random.random() < 0.5:
            process.send(signal.SIGSTOP)
            time.sleep(random.uniform(5, 30))
    finally:
        process.end(signal.SIGKILL)


def run_view(robot: Robot, log: pathlib.Path, port: int) -> None:
    """Run the browser view for some time."""
    remap = ['--ros-args', '-r', f'__ns:={robot.get_namespace()}']
    ports = ['--web-port', str(port), '--data-port', str(port + 1)]
    compressed = ['--compressed'] if robot.is_compressed else []
    process = ObservedProcess(
        [sys.executable, '-m', 'metrabs_ros.cli', 'view', *ports, *compressed, *remap], log
    )
    # Earlier, the interpreter itself may be starting, and a signal ends it with status 1.
    time.sleep(robot.random.uniform(3, 30))
    status = process.end()
    if status not in (0, 130, -signal.SIGINT):
        robot.fail(f'view ended with the exit status {status}; see {log}')


def run_annotate(robot: Robot, pictures: pathlib.Path, output: pathlib.Path) -> None:
    """Annotate a folder of images while the node is running."""
    log = output.with_suffix('.log')
    process = ObservedProcess(
        [
            *(sys.executable, '-m', 'metrabs_ros.cli', 'annotate', str(pictures)),
            *('-o', str(output), '--fov', '60', '--overwrite'),
        ],
        log,
    )
    status = process.wait(600)
    if status != 0:
        robot.fail(f'annotate ended with the exit status {status}; see {log}')


class Repeater(threading.Thread):
    """
    Thread that repeats an action.

    Parameters
    ----------
    name
        Name of the action.
    robot
        Records exceptions of the action.
    act
        Action.
    periods_s
        Minimum and maximum time between two executions, in seconds.
    ending
        Event that ends the thread.
    """

    def __init__(
        self,
        name: str,
        robot: Robot,
        act: Callable[[], None],
        periods_s: tuple[float, float],
        ending: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._robot, self._act, self._periods_s, self._ending = robot, act, periods_s, ending
        self.count = 0

    def run(self) -> None:
        """Run the action periodically until the event is set."""
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + self._robot.random.uniform(*self._periods_s), time.monotonic())
            if self._ending.wait(due_s - time.monotonic()):
                return
            try:
                self._act()
                self.count += 1
            except Exception:
                if not self._ending.is_set():
                    self._robot.fail(f'the load itself failed: {traceback.format_exc()[-800:]}')


def spin(nodes: Sequence[Node]) -> threading.Thread:
    """Spin nodes in a separate thread."""
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)

    def run() -> None:
        while rclpy.ok():
            try:
                executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return
            except InvalidHandle:
                # A subscription was destroyed by another thread.
                continue

    thread = threading.Thread(target=run, name='executor', daemon=True)
    thread.start()
    return thread


def _raw(image: np.ndarray) -> Image:
    message = Image(encoding='rgb8', height=image.shape[0], width=image.shape[1])
    message.header.frame_id = FRAME_ID
    message.step = 3 * message.width
    message.data = array.array('B', image.tobytes())
    return message


def _compressed(image: np.ndarray) -> CompressedImage:
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.header.frame_id = FRAME_ID
    message.data = array.array('B', cv2.imencode('.jpg', image[..., ::-1])[1].tobytes())
    return message


def _depth(shape: tuple[int, ...]) -> Image:
    """Return a depth image of people 5 m away in front of a wall."""
    depth_mm = np.full(shape[:2], 8000, np.uint16)
    depth_mm[:, shape[1] // 4 : 3 * shape[1] // 4] = 5000
    message = Image(encoding='16UC1', height=shape[0], width=shape[1], step=2 * shape[1])
    message.header.frame_id = FRAME_ID
    message.data = array.array('B', depth_mm.tobytes())
    return message


def _boxes_at(at: Time) -> Detection2DArray:
    message = Detection2DArray()
    message.header.stamp = at
    message.header.frame_id = FRAME_ID
    for left in (100.0, 300.0):
        detection = Detection2D()
        detection.bbox.center.position.x, detection.bbox.center.position.y = left, 250.0
        detection.bbox.size_x, detection.bbox.size_y = 60.0, 150.0
        message.detections.append(detection)
    return message


def _parameter_value(value: Any) -> ParameterValue:
    if isinstance(value, bool):
        return ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value)
    if isinstance(value, int):
        return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
    if isinstance(value, float):
        return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
