"""Lifecycle node that publishes absolute 3D people from the images of one or several cameras."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds and start threads.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)
    from metrabs_ros.node import heap

    heap.limit_arenas()

import contextlib
import dataclasses
import functools
import gc
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node import diagnostics, heap, process
from metrabs_ros.node.body_publishers import HriPublishers, check_hri_packages
from metrabs_ros.node.camera_stream import CameraStream
from metrabs_ros.node.configured_node import ConfiguredNode, run_node
from metrabs_ros.node.drops import (
    BATCH_FAILED,
    DEACTIVATED,
    DISABLED,
    FAILED,
    NEWER_FRAME,
)
from metrabs_ros.node.frame_preparation import TOPIC_DETECTOR, Frame, PreparedFrame
from metrabs_ros.node.managed_node import log_exceptions
from metrabs_ros.node.message_ages import age_s
from metrabs_ros.node.parameters import check_topics
from metrabs_ros.node.settings import LONGEST_CAMERA_TOPIC, Settings
from metrabs_ros.node.steady_timer import create_steady_timer
from metrabs_ros.node.transforms import TransformLookup
from metrabs_ros.node.worker import Worker
from metrabs_ros.options import Options, View
from metrabs_ros.people import MAX_MAGNITUDE, MM_PER_M, People
from metrabs_ros.placement.person_scale import Cue
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.tracking.person_tracker import PersonTracker, Result

DIAGNOSTICS_PERIOD_S = 1.0
DIAGNOSTICS_QUEUE_SIZE = 10
PUBLISH_TIMEOUT_S = 0.2
"""Timeout for the worker to finish publishing, in seconds."""
PROCESS_TIMEOUT_S = 2.0
"""Timeout for the worker to finish processing a frame, in seconds."""
MAX_AGE_S = 60.0
"""Greater ages of published frames are not recorded as latencies."""
WARM_UP_SHAPE = (240, 320, 3)
"""Shape of the image that is processed once after loading the model."""
FAILURE = TransitionCallbackReturn.FAILURE
SWITCH_INTERVAL_S = 0.0005
"""
Thread switch interval of the interpreter, in seconds.

The worker thread acquires the interpreter lock about a hundred times per frame.  With the default
interval of 5 ms, it would wait too long for the executor thread.
"""


class PoseNode(ConfiguredNode[Settings]):
    """
    Publishes the people in the images of one or several cameras.

    Lifecycle: configure loads the model and creates the publishers, activate subscribes,
    deactivate unsubscribes and stops the worker, cleanup frees the memory.

    Pipeline: the executor thread synchronises messages (`CameraStream.subscribe`); the worker
    thread prepares (`CameraStream.prepare`), processes (detection, pose estimation, tracking) and
    publishes (`CameraStream.publish`) the frames.

    Parameters
    ----------
    load_model
        Function that loads the model for given settings.

    Raises
    ------
    ValueError
        If a parameter has an invalid value.
    ImportError
        If the parameter hri is set and a package is missing.
    """

    def __init__(
        self, load_model: Callable[[Settings], PoseEstimator] | None = None, **kwargs: Any
    ) -> None:
        super().__init__('pose', Settings, **kwargs)
        check_topics(self, self.settings.cameras, LONGEST_CAMERA_TOPIC)
        if self.settings.hri:
            check_hri_packages()
        self._load_model = load_model or _load_model
        self.statistics = diagnostics.Statistics(self.get_logger())
        self._enabled = True
        self._model: PoseEstimator | None = None
        self._tracker: PersonTracker | None = None
        self._streams: dict[str, CameraStream] = {}
        self._hri: HriPublishers | None = None
        self._worker: Worker[Frame] | None = None
        self._stopped_worker: Worker[Frame] | None = None
        self._transforms = TransformLookup(self)
        self._processing_lock = threading.Lock()
        self._last_snapshot = diagnostics.Snapshot()
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset', self._reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', DIAGNOSTICS_QUEUE_SIZE
        )
        create_steady_timer(self, DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        self.guard_all_services()

    # Lifecycle transitions.

    @log_exceptions('cannot be configured', FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the publishers."""
        try:
            self._load()
        except Exception:
            self.run_all(self.release)
            raise
        # Reading and compiling a network needs memory that is free afterwards.
        gc.collect()
        heap.return_free_memory()
        return super().on_configure(state)

    @log_exceptions('cannot be activated', FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        try:
            result = super().on_activate(state)
            self._worker = Worker(self._work, self._discard)
            self._subscribe_to_transforms(self.settings)
            topics = [
                stream.subscribe(self._receive, lambda: self._enabled, lambda: self.settings)
                for stream in self._streams.values()
            ]
        except Exception:
            self.run_all(
                self.unsubscribe, functools.partial(LifecycleNode.on_deactivate, self, state)
            )
            raise
        self.get_logger().info(f'{self.settings.model} is ready; waiting for {"; ".join(topics)}')
        return result

    def is_configured(self) -> bool:
        """Return whether the model is loaded."""
        return self._model is not None

    def stop(self) -> None:
        """Stop the worker and wait until it has finished publishing."""
        if self._worker is not None:
            self._worker.stop()
            self._worker.join(PUBLISH_TIMEOUT_S)

    def _subscribe_to_transforms(self, current: Settings) -> None:
        # Subscribe to /tf only when a frame is configured.
        frames = (current.world_frame, current.target_frame, current.ground_frame)
        if any(frames):
            self._transforms.listen(frames)

    def _load(self) -> None:
        model = self._load_model(self.settings)
        model.convention(self.settings.skeleton)
        tracker = PersonTracker(model, _options(self.settings))
        if self.settings.hri:
            self._hri = HriPublishers(self, self.settings.cameras)
        for name in self.settings.cameras:
            self._streams[name] = CameraStream(
                self, name, tracker, self._transforms, self.statistics, self._hri
            )
        self._model, self._tracker = model, tracker

    def unsubscribe(self) -> None:
        """Stop the worker, unsubscribe and delete the markers."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        self._stopped_worker = worker
        # The steps run in reverse order, and all of them run even if one raises an exception.
        with contextlib.ExitStack() as steps:
            steps.callback(self._transforms.close)
            for stream in self._streams.values():
                steps.callback(stream.unsubscribe)
            # Before the markers are deleted, because the worker may be publishing markers.
            steps.callback(worker.join, PUBLISH_TIMEOUT_S)
            steps.callback(worker.stop)

    def release(self) -> None:
        """Free the memory of the model."""
        try:
            self._close_streams()
        finally:
            # Streams are part of reference cycles.  The local variables of the call above must be
            # gone by now, as they would keep the streams, and with them the model, alive.
            gc.collect()
            heap.return_free_memory()

    def _close_streams(self) -> None:
        streams, self._streams = self._streams, {}
        hri, self._hri = self._hri, None
        self._model = self._tracker = None
        with contextlib.ExitStack() as steps:
            if hri is not None:
                steps.callback(hri.close)
            for stream in streams.values():
                steps.callback(stream.publishers.close)
            # The worker may still use the model, and its memory can only be freed afterwards.
            worker, self._stopped_worker = self._stopped_worker, None
            if worker is not None:
                steps.callback(worker.join, PROCESS_TIMEOUT_S)

    # Callbacks of the executor thread.

    def _receive(self, frame: Frame) -> None:
        camera, drops = frame.camera, self.statistics.drops
        if not self._enabled:
            drops.count(DISABLED, camera)
        elif self._worker is None:
            drops.count(DEACTIVATED, camera)
        elif self._worker.put(camera, frame) is not None:
            drops.count(NEWER_FRAME if self._worker.is_running else DEACTIVATED, camera)

    def _discard(self, frames: Sequence[Frame | PreparedFrame]) -> None:
        """Count frames that are dropped because the worker was stopped."""
        for frame in frames:
            self.statistics.drops.count(DEACTIVATED, frame.camera)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        # The worker thread deletes the tracks, between two frames.
        for stream in self._streams.values():
            stream.reset()
        response.success = True
        response.message = 'all tracks will be deleted before the next frame'
        return response

    def check_settings(self, changed: Settings) -> None:
        """Check that the model supports the settings; raise a ValueError if it does not."""
        if self._model is not None:
            self._model.convention(changed.skeleton)
            self._model.check(_options(changed))

    def apply_settings(self) -> None:
        """Subscribe to transforms if they are needed now; frames read the other settings."""
        if self._worker is not None:
            self._subscribe_to_transforms(self.settings)

    # Processing of frames in the worker thread: prepare, process, publish.

    def _work(self, frames: list[Frame], worker: Worker[Frame]) -> None:
        # At most one frame per camera.
        uncounted = {frame.camera for frame in frames}
        try:
            with self._processing_lock:
                self._process(frames, worker, uncounted)
        except Exception as error:
            # Otherwise the exception would end the worker thread.
            self.failures.report('the worker', error)
            for camera in sorted(uncounted):
                self._report_failure(error, worker, camera)

    def _process(self, frames: list[Frame], worker: Worker[Frame], uncounted: set[str]) -> None:
        """
        Prepare, process and publish frames of different cameras.

        Parameters
        ----------
        frames
            At most one frame per camera.
        worker
            Worker that calls this method.
        uncounted
            Cameras with a frame that is not yet counted as processed or dropped.  A camera is
            removed when its frame is counted.
        """
        current, model, tracker = self.settings, self._model, self._tracker
        streams = self._streams
        prepared_frames = []
        for frame in frames:
            prepared = self._prepare(frame, streams, current, worker)
            if prepared is None:
                uncounted.discard(frame.camera)
            else:
                prepared_frames.append(prepared)
        if model is None or tracker is None:
            self._discard(prepared_frames)
            uncounted.clear()
            return
        if not prepared_frames:
            return
        try:
            # Failures of single frames are part of the results.
            with self.statistics.latencies.measure('process'):
                _apply(current, tracker)
                results = tracker.process_each([item.timed_view for item in prepared_frames])
        except Exception as error:
            for item in prepared_frames:
                self._report_failure(error, worker, item.camera)
            uncounted.clear()
            return
        if worker.is_running:
            worker.hold_pending()
        for item, result in zip(prepared_frames, results, strict=True):
            people = self._get_people(item, result, len(prepared_frames), worker)
            if people is not None:
                self._publish(item, streams[item.camera], people, model, current, worker)
            uncounted.discard(item.camera)

    def _prepare(
        self,
        frame: Frame,
        streams: Mapping[str, CameraStream],
        current: Settings,
        worker: Worker[Frame],
    ) -> PreparedFrame | None:
        """Return the prepared frame, or None if the frame is dropped."""
        if not worker.is_running:
            self._discard([frame])
            return None
        try:
            return streams[frame.camera].prepare(frame, current)
        except UnusableInput as error:
            self.statistics.drops.report(error.cause, str(error), frame.camera)
        except Exception as error:
            self._report_failure(error, worker, frame.camera)
        return None

    def _get_people(
        self, item: PreparedFrame, result: Result, cameras: int, worker: Worker[Frame]
    ) -> People | None:
        """Return the people of a result, or None if the frame failed; report failures."""
        people, batch_failure = result.people, None
        if result.batch_error is not None:
            batch_failure = (
                f'processed separately because a batch of {cameras} cameras failed with '
                f'{type(result.batch_error).__name__}'
            )
        if isinstance(people, Exception):
            self._report_failure(people, worker, item.camera, batch_failure)
            return None
        if batch_failure is not None:
            self.statistics.fallbacks.report(BATCH_FAILED, batch_failure, item.camera)
        return people

    def _publish(
        self,
        item: PreparedFrame,
        stream: CameraStream,
        people: People,
        model: PoseEstimator,
        current: Settings,
        worker: Worker[Frame],
    ) -> None:
        if not worker.is_running:
            self._discard([item])
            return
        try:
            people = self._select_finite(people, item)
            with self.statistics.latencies.measure('publish'):
                convention = model.convention(current.skeleton)
                stream.publish(item, people, convention, current)
            if current.stature:
                self._report_without_stature(people, item.camera)
            self._record_age(item.header)
        except Exception as error:
            self._report_failure(error, worker, item.camera)
        else:
            self.statistics.counters.count_processed(item.camera, people.scale_cues)

    def _report_failure(
        self,
        error: Exception,
        worker: Worker[Frame],
        camera: str,
        batch_failure: str | None = None,
    ) -> None:
        # Exceptions during the shutdown are expected.
        if worker.is_running and rclpy.ok():
            explanation = f'{type(error).__name__}: {error}'
            if batch_failure:
                # Placed first, because the end of a long text is truncated.
                explanation = f'{batch_failure}: {explanation}'
            self.statistics.drops.report(FAILED, explanation, camera)
        else:
            self.statistics.drops.count(DEACTIVATED, camera)

    def _select_finite(self, people: People, item: PreparedFrame) -> People:
        """Return the people with finite values in both the camera frame and the output frame."""
        finite = people.finite()
        # Selected before the transform, which would raise warnings for infinite values.
        people = people.select(finite)
        transform = item.output_transform
        finite_in_output = people.transformed(
            transform.rotation, transform.translation_mm
        ).finite()
        left_out = np.count_nonzero(~finite) + np.count_nonzero(~finite_in_output)
        if left_out:
            self.statistics.fallbacks.report(
                'pose not finite',
                f'{left_out} people are left out because positions, velocities or standard '
                f'deviations are not finite or above {MAX_MAGNITUDE / MM_PER_M:g} m',
                item.camera,
            )
        return people.select(finite_in_output)

    def _report_without_stature(self, people: People, camera: str) -> None:
        count = np.count_nonzero(people.scale_cues & Cue.STATURE == 0)
        if count:
            self.statistics.fallbacks.report(
                'stature not used',
                f'{count} people are not scaled to the parameter stature, because their whole '
                'body from nose to ankles was not in view yet',
                camera,
            )

    def _record_age(self, header: Header) -> None:
        latency_s = age_s(header, self.get_clock().now())
        # Stamps of a recording or of another clock do not give a latency.
        if 0 <= latency_s < MAX_AGE_S:
            self.statistics.latencies.add('stamp to publish', latency_s)

    def _engine_values(self) -> dict[str, str]:
        if self._model is None:
            return {'engine': 'none is loaded', 'device': 'none is loaded'}
        return dataclasses.asdict(self._model.choice)

    def _publish_diagnostics(self) -> None:
        if self._worker is not None:
            for stream in self._streams.values():
                stream.subscribe_to_latched_info()
        if self._hri is not None:
            self._hri.clear_stopped()
        snapshot = self.statistics.snapshot()
        about = {
            'model': self.settings.model,
            **self._engine_values(),
            **self.statistics.latencies.percentiles(),
            'rejected transforms': str(self._transforms.rejected),
            'oversized messages': str(self.statistics.counters.oversized_messages),
            'failed callbacks': str(self.failures.count),
            **({} if self._hri is None else self._hri.residuals()),
        }
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(
            diagnostics.to_message(self.get_name(), about, stamp, self._last_snapshot, snapshot)
        )
        self._last_snapshot = snapshot


def _load_model(current: Settings) -> PoseEstimator:
    # No detector is needed if the boxes come from a topic.
    detector = 'auto' if current.detector == TOPIC_DETECTOR else current.detector
    model = metrabs_ros.load_model(
        current.model,
        current.engine,
        current.precision,
        current.device,
        detector,
        current.threads,
        current.engine_file,
        current.skeleton_file,
    )
    # Warm up: the first call is slow because of lazy initialisation.
    empty = np.zeros(WARM_UP_SHAPE, np.uint8)
    model.find_people([View(empty, Camera.from_fov(60, WARM_UP_SHAPE))], Options())
    return model


def _apply(current: Settings, tracker: PersonTracker) -> None:
    tracker.options, tracker.detect_interval = _options(current), current.detect_interval
    tracker.max_lost, tracker.min_hits = current.max_lost, current.min_hits
    tracker.smoothing = current.smoothing


def _options(current: Settings) -> Options:
    return Options(
        internal_batch_size=current.internal_batch_size,
        antialias_factor=current.antialias_factor,
        num_aug=current.num_aug,
        detector_threshold=current.detector_threshold or None,
        detector_nms_iou_threshold=current.detector_nms_iou_threshold,
        max_detections=current.max_detections,
        suppress_implausible_poses=current.suppress_implausible_poses,
        stature=MM_PER_M * current.stature or None,
    )


def run() -> int:
    """Run the node until it is shut down; return the exit status."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return run_node(PoseNode, 'pose')


def main() -> NoReturn:
    """Run the node and exit the process."""
    process.exit_process(run())


if __name__ == '__main__':
    main()
