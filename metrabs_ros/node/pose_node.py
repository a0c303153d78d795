"""The node: a camera's images in, absolute 3D people out."""

from __future__ import annotations

import copy
import sys
import threading
from typing import NamedTuple, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from message_filters import Subscriber, TimeSynchronizer
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import MarkerArray

import metrabs_ros
from metrabs_ros.estimator import Options
from metrabs_ros.models.store import WeightsError
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import diagnostics, lifetime, messages, transforms
from metrabs_ros.node.cameras import to_camera
from metrabs_ros.node.drops import Drops, UnusableInput
from metrabs_ros.node.images import to_rgb
from metrabs_ros.node.markers import MarkerWriter
from metrabs_ros.node.newest import NewestFrame
from metrabs_ros.tracking.stream import people_in_stream

SYNCHRONIZER_DEPTH = 5
OUTPUT_DEPTH = 10
DIAGNOSTICS_PERIOD_S = 1.0

T = TypeVar('T', str, int)


class Frame(NamedTuple):
    """An image and the camera that took it, as they came."""

    image: Image
    info: CameraInfo


class PoseNode(Node):
    """
    Subscribes to ``image`` and ``camera_info``, and publishes the people in them.

    One thread receives, another works on the newest frame; frames that come meanwhile give way
    to newer ones and are counted.

    Raises
    ------
    ValueError
        If a parameter names what there is not.
    WeightsError
        If the model's weights cannot be had.
    """

    def __init__(self) -> None:
        super().__init__('pose')
        model_name = self._parameter(
            'model',
            'blazepose',
            'The pose network to run: blazepose, metrabs_s, metrabs_l or a folder.',
        )
        skeleton_name = self._parameter(
            'skeleton', '', "The convention of the joints; '' for the model's own."
        )
        detector_name = self._parameter(
            'detector',
            'auto',
            'What finds people for it: auto, blazepose, onnx:FILE or ultralytics:NAME.',
        )
        num_aug = self._parameter(
            'num_aug', 1, 'How many crops of each person MeTRAbs looks at, to average over.'
        )
        self._model_name = model_name
        model = metrabs_ros.load_model(model_name, detector=detector_name)
        self._convention = model.convention(skeleton_name)
        self._find_people = people_in_stream(model, Options(num_aug=num_aug))

        self._skeletons = self.create_publisher(SkeletonArray, '~/skeletons', OUTPUT_DEPTH)
        self._markers = self.create_publisher(MarkerArray, '~/markers', OUTPUT_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', OUTPUT_DEPTH)
        self._transforms = TransformBroadcaster(self)
        self._write_markers = MarkerWriter()

        self.drops = Drops(self.get_logger())
        self.tally = diagnostics.Tally()
        self._tally_before = copy.copy(self.tally)
        self._newest: NewestFrame[Frame] = NewestFrame()
        self._worker = threading.Thread(target=self._work, name='pose worker', daemon=True)
        self._worker.start()

        images = Subscriber(self, Image, 'image', qos_profile=qos_profile_sensor_data)
        infos = Subscriber(self, CameraInfo, 'camera_info', qos_profile=qos_profile_sensor_data)
        images.registerCallback(self._count_image)
        self._pairs = TimeSynchronizer([images, infos], SYNCHRONIZER_DEPTH)
        self._pairs.registerCallback(self._receive)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose)
        self.get_logger().info(
            f'{model_name} is ready; waiting for {images.sub.topic_name} and '
            f'{infos.sub.topic_name}'
        )

    def stop(self) -> None:
        """Let the worker end its frame, and end it."""
        self._newest.close()
        self._worker.join(timeout=1.0)

    def _parameter(self, name: str, default: T, description: str) -> T:
        descriptor = ParameterDescriptor(description=description, read_only=True)
        value: T = self.declare_parameter(name, default, descriptor).value
        return value

    def _count_image(self, image: Image) -> None:
        self.tally.images += 1

    def _receive(self, image: Image, info: CameraInfo) -> None:
        self.tally.frames += 1
        if self._newest.put(Frame(image, info)):
            self.drops.count('newer frame')

    def _work(self) -> None:
        while (frame := self._newest.take()) is not None:
            try:
                self._work_on(frame)
            except UnusableInput as unusable:
                self.drops.explain(unusable.cause, str(unusable))
            except Exception as error:
                if not rclpy.ok():
                    return
                self.drops.explain(type(error).__name__, f'{type(error).__name__}: {error}')

    def _work_on(self, frame: Frame) -> None:
        image = to_rgb(frame.image)
        camera = to_camera(frame.info, image.shape)
        people = self._find_people(image, camera)
        header = frame.image.header
        message = messages.to_message(people.in_convention(self._convention), header)
        if self._markers.get_subscription_count():
            self._markers.publish(self._write_markers(message))
        self._transforms.sendTransform(transforms.to_transforms(people, header))
        # Last, so that who has the skeletons can look up the transforms.
        self._skeletons.publish(message)
        self.tally.worked_on += 1
        self.tally.people = len(people)

    def _diagnose(self) -> None:
        now = copy.copy(self.tally)
        self._diagnostics.publish(
            diagnostics.to_message(
                self.get_name(),
                self._model_name,
                self.get_clock().now().to_msg(),
                self._tally_before,
                now,
                self.drops.counts(),
            )
        )
        self._tally_before = now


def main() -> int:
    """Run the node until it is told to end; return the exit status."""
    with lifetime.ros():
        try:
            node = PoseNode()
        except (WeightsError, ValueError, ImportError) as error:
            rclpy.logging.get_logger('pose').fatal(str(error))
            return 1
        try:
            rclpy.spin(node)
        finally:
            node.stop()
            node.destroy_node()
    return 0


if __name__ == '__main__':
    sys.exit(main())
