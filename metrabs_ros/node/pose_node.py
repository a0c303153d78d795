"""The node: cameras' images in, absolute 3D people out."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)

import contextlib
import dataclasses
import functools
import gc
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.people import MM_PER_M
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.node import diagnostics, heap, process, settings
from metrabs_ros.node.callback_failures import LONGEST_REASON, GuardedExecutor, described
from metrabs_ros.node.camera_stream import (
    TOPIC_DETECTOR,
    CameraStream,
    Frame,
    PreparedFrame,
    age_s,
)
from metrabs_ros.node.drops import (
    BATCH_FAILED,
    DEACTIVATED,
    DISABLED,
    FAILED,
    NEWER_FRAME,
)
from metrabs_ros.node.managed_node import ManagedNode, reported
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.transforms import Frames
from metrabs_ros.node.worker import Worker
from metrabs_ros.people import BEYOND_ALL_PLACES, People
from metrabs_ros.pose_estimator import Options, PoseEstimator
from metrabs_ros.tracking.box_following import BoxFinder
from metrabs_ros.tracking.person_tracker import (
    Outcome,
    PeopleFinder,
    PeopleStream,
    finder_for,
    outcomes_in_streams,
)
from metrabs_ros.tracking.tracker import Tracker

DIAGNOSTICS_PERIOD_S = 1.0
DIAGNOSTICS_DEPTH = 10
PUBLISHING_S = 0.2
"""Longer than it takes to publish a frame's people."""
PROCESSING_S = 2.0
"""Longer than it takes to process a frame, on most computers."""
WARM_UP_SHAPE = (240, 320, 3)
FAILURE, ERROR = TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR
SWITCH_INTERVAL_S = 0.0005
"""
How long the thread that receives may keep the one that works waiting for the interpreter.

That one asks for it a hundred times a frame, between calls that need none.
"""


class PoseNode(ManagedNode):
    """
    Publishes the people in one or several cameras' images.

    A managed node: configuring loads the model, activating subscribes, deactivating stops using
    the processor, cleaning up gives the memory back.  The network runs in a thread of its own.

    Parameters
    ----------
    load_model
        Loads the model of the settings.

    Raises
    ------
    ValueError
        If a parameter has a value that is not allowed.
    """

    def __init__(
        self, load_model: Callable[[Settings], PoseEstimator] | None = None, **kwargs: Any
    ) -> None:
        super().__init__('pose', **kwargs)
        self._load_model = load_model or _load_model
        self.settings = settings.declare(self)
        self.record = diagnostics.Record(self.get_logger())
        self._enabled = True
        self._model: PoseEstimator | None = None
        self._streams: list[CameraStream] = []
        self._worker: Worker[Frame] | None = None
        self._stopped_worker: Worker[Frame] | None = None
        self._frames = Frames(self)
        self._working = threading.Lock()
        self._told = diagnostics.Report()
        self.add_on_set_parameters_callback(self._check_settings)
        # Not in Humble, where parameters are applied as soon as this node accepts them.
        self._is_told_of_set_parameters = hasattr(self, 'add_post_set_parameters_callback')
        if self._is_told_of_set_parameters:
            self.add_post_set_parameters_callback(self._apply_settings)
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset', self._reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', DIAGNOSTICS_DEPTH
        )
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose)
        self.answer_all_requests()

    # The transitions of a managed node.

    @reported('cannot be configured', FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and offer the topics."""
        try:
            self._load()
        except Exception:
            self._undo(self._release)
            raise
        return super().on_configure(state)

    @reported('cannot be activated', FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start to work."""
        try:
            outcome = super().on_activate(state)
            self._worker = Worker(self._work, self._discard)
            self._listen_for_frames(self.settings)
            topics = [
                stream.subscribe(self._receive, lambda: self._enabled, lambda: self.settings)
                for stream in self._streams
            ]
        except Exception:
            self._undo(self._unsubscribe, functools.partial(super().on_deactivate, state))
            raise
        self.get_logger().info(f'{self.settings.model} is ready; waiting for {"; ".join(topics)}')
        return outcome

    @reported('cannot be deactivated', ERROR)
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working, and unsubscribe."""
        # Before the publishers stop: the markers are deleted last.
        self._unsubscribe()
        return super().on_deactivate(state)

    @reported('cannot be cleaned up', ERROR)
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model's memory."""
        self._release()
        return super().on_cleanup(state)

    @reported('cannot be shut down', ERROR)
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and free the memory, as far as there is something."""
        with contextlib.ExitStack() as steps:
            steps.callback(self._release)
            self._unsubscribe()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to the unconfigured state after an exception."""
        self._undo(self._unsubscribe, self._release)
        return TransitionCallbackReturn.SUCCESS

    def _undo(self, *steps: Callable[[], object]) -> None:
        """Do all steps, and log the exceptions of those that fail."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self.explain('not everything could be released', error)

    def is_configured(self) -> bool:
        """Tell whether there is a model to work with."""
        return self._model is not None

    def stop(self) -> None:
        """Want nothing more of the worker, and let it end what it is publishing."""
        if self._worker is not None:
            self._worker.stop()
            self._worker.join(PUBLISHING_S)

    def _listen_for_frames(self, current: Settings) -> None:
        # Subscribe to all of a robot's transforms only if a frame is configured.
        if current.world_frame or current.target_frame:
            self._frames.listen((current.world_frame, current.target_frame))

    def _load(self) -> None:
        model = self._load_model(self.settings)
        model.convention(self.settings.skeleton)
        finders = {name: _finder(model, self.settings) for name in self.settings.cameras}
        for name, finder in finders.items():
            people = PeopleStream(finder, Tracker())
            self._streams.append(CameraStream(self, name, people, self._frames, self.record))
        self._model = model

    def _unsubscribe(self) -> None:
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        self._stopped_worker = worker
        # All steps are done, even if one of them raises an exception, and the last one first.
        with contextlib.ExitStack() as steps:
            steps.callback(self._frames.close)
            for stream in self._streams:
                steps.callback(stream.unsubscribe)
            # Before the markers are deleted: what is being published may have some.
            steps.callback(worker.join, PUBLISHING_S)
            steps.callback(worker.stop)

    def _release(self) -> None:
        streams, self._streams, self._model = self._streams, [], None
        with contextlib.ExitStack() as steps:
            steps.callback(heap.return_free_memory)
            steps.callback(gc.collect)
            for stream in streams:
                steps.callback(stream.outputs.close)
            # The worker may still use the model, whose memory is to be given back.
            worker, self._stopped_worker = self._stopped_worker, None
            if worker is not None:
                steps.callback(worker.join, PROCESSING_S)

    # What comes in.

    def _receive(self, frame: Frame) -> None:
        name = frame.stream.name
        if not self._enabled:
            self.record.drops.count(DISABLED, name)
        elif self._worker is None:
            self.record.drops.count(DEACTIVATED, name)
        elif self._worker.put(name, frame) is not None:
            self.record.drops.count(NEWER_FRAME if self._worker.is_wanted else DEACTIVATED, name)

    def _discard(self, frames: Sequence[Frame | PreparedFrame]) -> None:
        """Count frames whose people are not wanted any more."""
        for frame in frames:
            self.record.drops.count(DEACTIVATED, frame.stream.name)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        # The worker's thread does it, between two frames.
        for stream in self._streams:
            stream.reset()
        response.success = True
        response.message = 'everybody is forgotten with the next frame'
        return response

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters all at once, with integers for floating-point ones, too."""
        return super().set_parameters_atomically(settings.as_declared(parameter_list))

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one after another, with integers for floating-point ones, too."""
        return super().set_parameters(settings.as_declared(parameter_list))

    def _check_settings(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            wanted = settings.changed(self.settings, parameters)
            if self._model is not None:
                self._model.convention(wanted.skeleton)
                self._model.check(_options(wanted))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=printable(error, LONGEST_REASON))
        if not self._is_told_of_set_parameters:
            self._apply_settings(parameters)
        return SetParametersResult(successful=True)

    def _apply_settings(self, parameters: list[Parameter]) -> None:
        wanted = settings.changed(self.settings, parameters)
        # Subscribing declares parameters for its QoS, and with them comes back to here.
        if wanted == self.settings:
            return
        self.settings = wanted
        if self._worker is not None:
            self._listen_for_frames(wanted)

    # What happens to frames, in the worker's thread.

    def _work(self, frames: list[Frame], worker: Worker[Frame]) -> None:
        # At most one frame of each camera.
        uncounted = {frame.stream.name for frame in frames}
        try:
            with self._working:
                self._process(frames, worker, uncounted)
        except Exception as error:
            # Otherwise the worker's thread would end, and with it all processing.
            self.failures.report('the worker', error)
            for camera in sorted(uncounted):
                self._explain_failure(error, worker, camera)

    def _process(self, frames: list[Frame], worker: Worker[Frame], uncounted: set[str]) -> None:
        """
        Process frames of different cameras.

        Parameters
        ----------
        frames
            At most one of each camera.
        worker
            Whose thread this is.
        uncounted
            The cameras whose frames are not counted yet as worked on or dropped.  Those that are
            counted are removed.
        """
        current, model = self.settings, self._model
        prepared_frames = []
        for frame in frames:
            prepared = self._prepared(frame, current, worker)
            if not prepared:
                uncounted.discard(frame.stream.name)
            prepared_frames += prepared
        if model is None:
            self._discard(prepared_frames)
            uncounted.clear()
        if model is None or not prepared_frames:
            return
        try:
            # Failures of single frames are among the outcomes.
            with self.record.latencies.of('find people'):
                outcomes = self._people(prepared_frames, current)
        except Exception as error:
            for item in prepared_frames:
                self._explain_failure(error, worker, item.stream.name)
            uncounted.clear()
            return
        if worker.is_wanted:
            worker.keep_next()
        for item, outcome in zip(prepared_frames, outcomes, strict=True):
            people = self._found(item, outcome, len(prepared_frames), worker)
            if people is not None:
                self._publish(item, people, model, current, worker)
            uncounted.discard(item.stream.name)

    def _prepared(
        self, frame: Frame, current: Settings, worker: Worker[Frame]
    ) -> list[PreparedFrame]:
        """Return what is known of a frame, or nothing if it cannot be worked on."""
        if not worker.is_wanted:
            self._discard([frame])
            return []
        try:
            return [frame.stream.prepare(frame, current)]
        except UnusableInput as unusable:
            self.record.drops.explain(unusable.cause, str(unusable), frame.stream.name)
        except Exception as error:
            self._explain_failure(error, worker, frame.stream.name)
        return []

    def _people(self, prepared_frames: list[PreparedFrame], current: Settings) -> list[Outcome]:
        """Find the people in frames of different cameras."""
        streams = [item.stream.people for item in prepared_frames]
        for stream in streams:
            _apply(current, stream)
        return outcomes_in_streams(streams, [item.timed_view for item in prepared_frames])

    def _found(
        self, item: PreparedFrame, outcome: Outcome, cameras: int, worker: Worker[Frame]
    ) -> People | None:
        """Return the people in a frame of a batch of so many cameras; None if it is dropped."""
        people, name, circumstances = outcome.people, item.stream.name, None
        if outcome.batch_error is not None:
            circumstances = (
                f'processed alone, as a batch of {cameras} cameras failed with '
                f'{type(outcome.batch_error).__name__}'
            )
        if isinstance(people, Exception):
            self._explain_failure(people, worker, name, circumstances)
            return None
        if circumstances is not None:
            self.record.fallbacks.explain(BATCH_FAILED, circumstances, name)
        return people

    def _publish(
        self,
        item: PreparedFrame,
        people: People,
        model: PoseEstimator,
        current: Settings,
        worker: Worker[Frame],
    ) -> None:
        if not worker.is_wanted:
            self._discard([item])
            return
        try:
            people = self._finite(people, item)
            with self.record.latencies.of('publish'):
                convention = model.convention(current.skeleton)
                item.stream.publish(item, people, convention, current)
            self._tell_age(item.header)
        except Exception as error:
            self._explain_failure(error, worker, item.stream.name)
        else:
            self.record.tally.count_worked_on(item.stream.name, len(people))

    def _explain_failure(
        self,
        error: Exception,
        worker: Worker[Frame],
        camera: str,
        circumstances: str | None = None,
    ) -> None:
        # When the node ends, whatever was being done may fail.
        if worker.is_wanted and rclpy.ok():
            explanation = f'{type(error).__name__}: {error}'
            if circumstances:
                # First, as the end of a long text is cut off.
                explanation = f'{circumstances}: {explanation}'
            self.record.drops.explain(FAILED, explanation, camera)
        else:
            self.record.drops.count(DEACTIVATED, camera)

    def _finite(self, people: People, item: PreparedFrame) -> People:
        """Leave out the people who are not finite in the camera's or in the published frame."""
        finite = people.finite()
        # Not only what is finite now: infinite ones would warn on the way to the other frame.
        people = people.select(finite)
        motion = item.motion
        published = people.moved(motion.rotation, motion.translation_mm).finite()
        left_out = np.count_nonzero(~finite) + np.count_nonzero(~published)
        if left_out:
            self.record.fallbacks.explain(
                'pose not finite',
                f'{left_out} people are left out, whose positions, velocities or standard '
                f'deviations are not finite or above {BEYOND_ALL_PLACES / MM_PER_M:g} m',
                item.stream.name,
            )
        return people.select(published)

    def _tell_age(self, header: Header) -> None:
        passed_s = age_s(header, self.get_clock().now())
        # Stamps of a recording, or of a clock of their own, say nothing of latency.
        if 0 <= passed_s < 60:
            self.record.latencies.add('stamp to publish', passed_s)

    def _about_engine(self) -> dict[str, str]:
        if self._model is None:
            return {'engine': 'none is loaded', 'device': 'none is loaded'}
        return dataclasses.asdict(self._model.choice)

    def _diagnose(self) -> None:
        if self._worker is not None:
            for stream in self._streams:
                stream.ask_for_kept_infos()
        now = self.record.report()
        about = {
            'model': self.settings.model,
            **self._about_engine(),
            **self.record.latencies.percentiles(),
            'refused transforms': str(self._frames.refused),
            'oversized messages': str(self.record.tally.oversized_messages),
            'failed callbacks': str(self.failures.count),
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
    empty = np.zeros(WARM_UP_SHAPE, np.uint8)
    model.find_people(empty, Camera.from_fov(60, WARM_UP_SHAPE), Options())
    return model


def _finder(model: PoseEstimator, current: Settings) -> PeopleFinder:
    if current.detector == TOPIC_DETECTOR:
        model.check(_options(current))
        return BoxFinder(model, _options(current))
    return finder_for(model, _options(current))


def _apply(current: Settings, stream: PeopleStream) -> None:
    finder, tracker = stream.finder, stream.tracker
    finder.options, finder.detect_interval = _options(current), current.detect_interval
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
    )


def _sentence(error: Exception) -> str:
    """Return the message of an exception on one line, or what else there is to say of it."""
    return printable(' '.join(str(error).split()), LONGEST_REASON) or described(error)


def run() -> int:
    """Run the node until it is told to end; return the exit status."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    heap.limit_arenas()
    with process.ros():
        # Before all else: an executor cannot be made once a signal has come.
        executor = GuardedExecutor()
        try:
            node = PoseNode()
        except Exception as error:
            if not rclpy.ok():
                raise
            get_logger('pose').fatal(f'the node cannot start: {_sentence(error)}')
            return 1
        with contextlib.ExitStack() as steps:
            steps.callback(node.destroy_node)
            steps.callback(node.stop)
            steps.enter_context(process.package_records(node.get_logger()))
            if node.settings.autostart:
                node.trigger_configure()
                if node.is_configured():
                    node.trigger_activate()
            process.spin(node, executor)
    return 0


def main() -> NoReturn:
    """Run the node, and end the process with it."""
    process.leave(run())


if __name__ == '__main__':
    main()
