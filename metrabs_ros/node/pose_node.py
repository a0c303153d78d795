"""The node: a camera's images in, absolute 3D people out."""

from __future__ import annotations

import copy
import dataclasses
import gc
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.time import Time as RclpyTime
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

import metrabs_ros
from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.estimator import Options, PoseEstimator
from metrabs_ros.models.store import WeightsError
from metrabs_ros.node import diagnostics, lifetime, settings
from metrabs_ros.node.cameras import Calibrations, to_camera
from metrabs_ros.node.detections import DetectionBook, to_boxes
from metrabs_ros.node.drops import Drops, UnusableInput
from metrabs_ros.node.frames import Frames, Motion
from metrabs_ros.node.images import decompressed, to_rgb
from metrabs_ros.node.outputs import Outputs
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.worker import Worker
from metrabs_ros.people import People
from metrabs_ros.tracking.each_frame import EachFrame
from metrabs_ros.tracking.stream import PeopleFinder, people_in_stream

DIAGNOSTICS_PERIOD_S = 1.0
DIAGNOSTICS_DEPTH = 10
TOPIC_DETECTOR = 'topic'
SOONEST_JUMP_S = 0.5
"""Stamps that go back by more are of another time: a recording that begins again."""

PUBLISHING_S = 0.2
"""Longer than it takes to publish a frame's people."""
WARM_UP_SHAPE = (240, 320, 3)
STILL = Motion(np.eye(3), np.zeros(3))
IN_VAIN = (WeightsError, ValueError, ImportError, OSError)
"""What loading a model may end with."""


class Frame(NamedTuple):
    """An image as it came, and when."""

    image: Image | CompressedImage
    received_s: float


class PoseNode(LifecycleNode):
    """
    Publishes the people in a camera's images.

    A managed node: configuring loads the model, activating subscribes, deactivating stops using
    the processor, cleaning up gives the memory back.  The network runs in a thread of its own.

    Parameters
    ----------
    load_model
        Loads the model of the settings.

    Raises
    ------
    ValueError
        If a parameter was given a value that it cannot have.
    """

    def __init__(
        self, load_model: Callable[[Settings], PoseEstimator] | None = None, **kwargs: Any
    ) -> None:
        super().__init__('pose', **kwargs)
        self._load_model = load_model or _load_model
        self.settings = settings.declare(self)
        self.drops = Drops(self.get_logger())
        self.fallbacks = Drops(self.get_logger())
        self.tally = diagnostics.Tally()
        self.latencies = diagnostics.Latencies()
        self._enabled = True
        self._model: PoseEstimator | None = None
        self._find_people: PeopleFinder | None = None
        self._outputs: Outputs | None = None
        self._worker: Worker[Frame] | None = None
        self._frames = Frames(self)
        self._working = threading.Lock()
        self._last_stamp_s = -np.inf
        self._told = diagnostics.Report()
        self._entities: list[Callable[[], object]] = []
        self.add_on_set_parameters_callback(self._change_settings)
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset', self._reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', DIAGNOSTICS_DEPTH
        )
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose)

    # The transitions of a managed node.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics."""
        try:
            model = self._load_model(self.settings)
            model.convention(self.settings.skeleton)
            finder = _finder(model, self.settings)
        except IN_VAIN as error:
            self.get_logger().error(f'cannot be configured: {error}')
            return TransitionCallbackReturn.FAILURE
        self._model, self._find_people = model, finder
        self._outputs = Outputs(self)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start to work."""
        self._worker = Worker(self._work)
        self._calibrations = Calibrations()
        self._detections = DetectionBook()
        self._entities.append(self._frames.close)
        self._listen_for_frames(self.settings)
        compressed = self.settings.image_transport == 'compressed'
        topic = 'image/compressed' if compressed else 'image'
        kind = CompressedImage if compressed else Image
        image_topic = self._subscribe(kind, topic, self._receive, qos_profile_sensor_data)
        info_topic = self._subscribe(
            CameraInfo, 'camera_info', self._calibrations.put, qos_profile_sensor_data
        )
        self._info_topic = info_topic
        self._asked_for_kept_infos = False
        if self.settings.detector == TOPIC_DETECTOR:
            from vision_msgs.msg import Detection2DArray

            self._subscribe(
                Detection2DArray, 'detections', self._detections.put, qos_profile_sensor_data
            )
        self._is_rectified_topic = 'image_rect' in image_topic
        self.get_logger().info(
            f'{self.settings.model} is ready; waiting for {image_topic} and {info_topic}'
        )
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working, and unsubscribe."""
        self._unsubscribe()
        if self._outputs is not None:
            self._outputs.clear_markers()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End whatever there is."""
        self._unsubscribe()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to where nothing was configured."""
        return self.on_shutdown(state)

    def is_configured(self) -> bool:
        """Tell whether there is a model to work with."""
        return self._model is not None

    def stop(self) -> None:
        """Want nothing more of the worker, and let it end what it is publishing."""
        if self._worker is not None:
            self._worker.stop()
            self._worker.join(PUBLISHING_S)

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> str:
        subscription = self.create_subscription(kind, topic, callback, qos)
        self._entities.append(lambda: self.destroy_subscription(subscription))
        name: str = subscription.topic_name
        return name

    def _listen_for_frames(self, current: Settings) -> None:
        # All of a robot's transforms are a stream of their own; who needs none is spared it.
        if current.world_frame or current.target_frame:
            self._frames.listen()

    def _unsubscribe(self) -> None:
        while self._entities:
            self._entities.pop()()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.close()
        self._outputs = self._model = self._find_people = None
        gc.collect()

    # What comes in.

    def _receive(self, image: Image | CompressedImage) -> None:
        self.tally.images += 1
        if not self._enabled:
            self.drops.count('disabled')
        elif self._worker is not None and self._worker.put(Frame(image, time.perf_counter())):
            self.drops.count('newer frame')

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        # The worker's thread does it, between two frames.
        self._last_stamp_s = np.inf
        response.success = True
        response.message = 'everybody is forgotten with the next frame'
        return response

    def _change_settings(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            wanted = settings.changed(self.settings, parameters)
            if self._model is not None:
                self._model.convention(wanted.skeleton)
                self._model.check(_options(wanted))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.settings = wanted
        if self._worker is not None:
            self._listen_for_frames(wanted)
        return SetParametersResult(successful=True)

    # What happens to a frame, in the worker's thread.

    def _work(self, frame: Frame, worker: Worker[Frame]) -> None:
        with self._working:
            try:
                if worker.is_wanted:
                    self._work_on(frame, worker)
            except UnusableInput as unusable:
                self.drops.explain(unusable.cause, str(unusable))
            except Exception as error:
                if worker.is_wanted and rclpy.ok():
                    cause = f'{diagnostics.FAILED}{type(error).__name__}'
                    self.drops.explain(cause, f'{type(error).__name__}: {error}')

    def _work_on(self, frame: Frame, worker: Worker[Frame]) -> None:
        current, model, outputs = self.settings, self._model, self._outputs
        if model is None or outputs is None:
            return
        header = frame.image.header
        if header.stamp.sec < 0:
            raise UnusableInput(
                'image stamp',
                f'the image has the stamp {header.stamp.sec} s, before all time; does the camera '
                'driver set it?',
            )
        self.latencies.add('wait', time.perf_counter() - frame.received_s)
        with self.latencies.of('decode'):
            is_raw = isinstance(frame.image, Image)
            image = to_rgb(frame.image) if is_raw else decompressed(frame.image)
        with self.latencies.of('camera'):
            camera = self._camera(header, image.shape, current)
            motion, frame_id = self._motion(header, current)
        if self._has_jumped(header) and self._find_people is not None:
            self._find_people.forget()
            outputs.clear_markers()
        with self.latencies.of('find people'):
            people = self._finite(self._people(header, image, camera, current))
        if not worker.is_wanted:
            return
        worker.keep_next()
        with self.latencies.of('publish'):
            out = Header(stamp=header.stamp, frame_id=frame_id)
            convention = model.convention(current.skeleton)
            outputs.publish(image, people, motion, camera.up, out, convention, current)
        self._tell_age(header)
        self.tally.worked_on += 1
        self.tally.people = len(people)

    def _camera(self, header: Header, image_shape: tuple[int, ...], current: Settings) -> Camera:
        info = self._calibrations.wait_for(header.stamp)
        fov_degrees = current.default_fov_degrees
        if fov_degrees and (info is None or not any(info.k)):
            self.fallbacks.explain(
                diagnostics.UNCALIBRATED,
                f'there is no calibration; distances are a guess from a field of view of '
                f'{fov_degrees} degrees',
            )
            camera = Camera.from_fov(fov_degrees, image_shape)
        elif info is None:
            raise UnusableInput(
                'no camera_info',
                'there is no camera_info with the images; is it remapped to where the driver '
                'publishes it? (default_fov_degrees allows going on without)',
            )
        else:
            rectified = current.rectified == 'true' or (
                current.rectified == 'auto' and self._is_rectified_topic and any(info.p)
            )
            camera = to_camera(info, image_shape, rectified)
        if current.world_frame:
            try:
                up = self._frames.up(
                    current.world_frame, header.frame_id, header.stamp, current.tf_timeout
                )
                camera = dataclasses.replace(camera, world_up_vector=up)
            except UnusableInput as unusable:
                self._fall_back(unusable, current)
        return camera

    def _motion(self, header: Header, current: Settings) -> tuple[Motion, str]:
        """Return what takes points of the camera's frame to that of what is published."""
        if not header.frame_id:
            self.fallbacks.explain(
                'image without frame_id',
                "the images' headers have no frame_id, so nothing can be placed in TF or RViz; "
                'does the camera driver set it?',
            )
        if current.target_frame in ('', header.frame_id):
            return STILL, header.frame_id
        try:
            motion = self._frames.motion(
                current.target_frame, header.frame_id, header.stamp, current.tf_timeout
            )
        except UnusableInput as unusable:
            self._fall_back(unusable, current)
            return STILL, header.frame_id
        return motion, current.target_frame

    def _fall_back(self, unusable: UnusableInput, current: Settings) -> None:
        if current.tf_fallback == 'drop':
            raise unusable
        self.fallbacks.explain(unusable.cause, str(unusable))

    def _has_jumped(self, header: Header) -> bool:
        """Tell whether time went back since the last image."""
        stamp_s = header.stamp.sec + header.stamp.nanosec * 1e-9
        has_jumped: bool = stamp_s < self._last_stamp_s - SOONEST_JUMP_S
        self._last_stamp_s = stamp_s
        return has_jumped

    def _people(
        self, header: Header, image: ImageArray, camera: Camera, current: Settings
    ) -> People:
        finder = self._find_people
        assert finder is not None
        finder.options = _options(current)
        if isinstance(finder, EachFrame) and current.detector == TOPIC_DETECTOR:
            detections = self._detections.wait_for(header.stamp)
            boxes = to_boxes(detections, current.detection_class, image.shape)
            return finder.at_boxes(image, camera, boxes)
        return finder(image, camera)

    def _finite(self, people: People) -> People:
        finite = people.finite()
        if not finite.all():
            self.fallbacks.explain(
                'pose not finite',
                f'{np.count_nonzero(~finite)} people are left out, whose poses are not finite',
            )
        return people.select(finite)

    def _tell_age(self, header: Header) -> None:
        age_s = (self.get_clock().now() - RclpyTime.from_msg(header.stamp)).nanoseconds * 1e-9
        # Stamps of a recording, or of a clock of their own, say nothing of latency.
        if 0 <= age_s < 60:
            self.latencies.add('stamp to publish', age_s)

    def _ask_for_kept_infos(self) -> None:
        """Have a calibration sent that was sent once and for all, before this node was there."""
        if self._worker is None or self._asked_for_kept_infos or not self._calibrations.is_empty():
            return
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers = self.get_publishers_info_by_topic(self._info_topic)
        # Who keeps none would only complain that this asks for it.
        if any(p.qos_profile.durability == latched.durability for p in publishers):
            self._subscribe(CameraInfo, 'camera_info', self._calibrations.put, latched)
            self._asked_for_kept_infos = True

    def _about_engine(self) -> dict[str, str]:
        if self._model is None:
            return {'engine': 'none is loaded', 'device': 'none is loaded'}
        return dataclasses.asdict(self._model.choice)

    def _diagnose(self) -> None:
        self._ask_for_kept_infos()
        now = diagnostics.Report(
            copy.copy(self.tally), self.drops.counts(), self.fallbacks.counts()
        )
        about = {
            'model': self.settings.model,
            **self._about_engine(),
            **self.latencies.percentiles(),
        }
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(
            diagnostics.to_message(self.get_name(), about, stamp, self._told, now)
        )
        self._told = now


def _load_model(current: Settings) -> PoseEstimator:
    # With boxes from a topic, none need be found.
    detector = 'auto' if current.detector == TOPIC_DETECTOR else current.detector
    model = metrabs_ros.load_model(
        current.model,
        current.engine,
        current.precision,
        current.device,
        detector,
        current.threads,
    )
    # The first look at people loads what is loaded late, and takes longer than all others.
    nobody = np.zeros(WARM_UP_SHAPE, np.uint8)
    model.find_people(nobody, Camera.from_fov(60, WARM_UP_SHAPE), Options())
    return model


def _finder(model: PoseEstimator, current: Settings) -> PeopleFinder:
    if current.detector == TOPIC_DETECTOR:
        model.check(_options(current))
        return EachFrame(model, _options(current))
    return people_in_stream(model, _options(current))


def _options(current: Settings) -> Options:
    return Options(
        internal_batch_size=current.internal_batch_size,
        antialias_factor=current.antialias_factor,
        num_aug=current.num_aug,
        detector_threshold=current.detector_threshold or None,
        detector_nms_iou_threshold=current.detector_nms_iou_threshold,
        max_detections=current.max_detections,
        suppress_implausible_poses=current.suppress_implausible_poses,
    )


def run() -> int:
    """Run the node until it is told to end; return the exit status."""
    with lifetime.ros():
        # Before all else: an executor cannot be made once a signal has come.
        executor = SingleThreadedExecutor()
        try:
            node = PoseNode()
        except ValueError as error:
            rclpy.logging.get_logger('pose').fatal(str(error))
            return 1
        try:
            if node.settings.autostart:
                node.trigger_configure()
                if node.is_configured():
                    node.trigger_activate()
            executor.add_node(node)
            executor.spin()
        finally:
            node.stop()
            node.destroy_node()
    return 0


def main() -> NoReturn:
    """Run the node, and end the process with it."""
    lifetime.leave(run())


if __name__ == '__main__':
    main()
