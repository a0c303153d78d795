"""Lifecycle node that fuses the people of several cameras into one set in a fixed frame."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds and start threads.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)
    from metrabs_ros.node import heap

    heap.limit_arenas()

import collections
import contextlib
import functools
import time
from typing import Any, NoReturn

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from metrabs_ros.conversions.camera_markers import frustum_marker, ray_marker
from metrabs_ros.conversions.transforms import frame_name
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.camera_clocks import MAX_OFFSET_S
from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.node import process
from metrabs_ros.node.body_publishers import HriPublishers, check_hri_packages
from metrabs_ros.node.configured_node import ConfiguredNode, run_node
from metrabs_ros.node.diagnostics import Latencies
from metrabs_ros.node.drops import DEACTIVATED, FAILED, CauseCounter
from metrabs_ros.node.fusion_diagnostics import CameraCounts, to_message
from metrabs_ros.node.fusion_settings import LONGEST_CAMERA_TOPIC, FusionSettings
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.managed_node import log_exceptions
from metrabs_ros.node.message_ages import MessageAges, age_s
from metrabs_ros.node.parameters import check_topics
from metrabs_ros.node.publishers import PeoplePublishers
from metrabs_ros.node.skeleton_input import SkeletonInput
from metrabs_ros.node.steady_timer import create_steady_timer
from metrabs_ros.node.transforms import WORLD_UP, TransformLookup
from metrabs_ros.skeletons.conventions import Convention

DIAGNOSTICS_PERIOD_S = 1.0
DIAGNOSTICS_QUEUE_SIZE = 10
FLUSH_PERIOD_S = 0.02
MAX_SET_WAIT_S = 0.06
"""Time after its first frame at which a frame set is fused without the missing cameras."""
MAX_LATENCIES = 300
SKELETON_MEMORY_S = 1.0
"""Cameras with older stamps do not determine the skeleton of the fused people."""
TRACK_SETTINGS = ('max_lost', 'min_hits', 'smoothing')
"""Parameters of `PeopleFusion`."""
FAILURE = TransitionCallbackReturn.FAILURE
CLOCK, INCONSISTENT, OTHER_SKELETON = 'clock', 'inconsistent camera', 'other skeleton'
"""Causes of messages that are not used."""


class SkeletonDrops(CauseCounter):
    """Counts skeleton messages that are not used."""

    ONE_FRAME = 'a message of skeletons was not used'
    SEVERAL_FRAMES = '{} messages of skeletons were not used'


class FusionNode(ConfiguredNode[FusionSettings]):
    """
    Fuses the people that pose nodes publish for several cameras.

    All work is done in the executor thread, because fusing a frame set takes milliseconds.

    Raises
    ------
    ValueError
        If a parameter has an invalid value.
    ImportError
        If the parameter hri is set and a package is missing.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('fusion', FusionSettings, **kwargs)
        names = self.settings.cameras
        if not self.settings.fixed_frame:
            raise ValueError(
                "invalid parameter: fixed_frame is ''; it must be a TF frame with the z axis "
                'pointing up'
            )
        check_topics(self, names, LONGEST_CAMERA_TOPIC)
        if self.settings.hri:
            check_hri_packages()
        self._drops = SkeletonDrops(self.get_logger())
        self._latencies = Latencies()
        self._ages_s = {name: collections.deque[float](maxlen=MAX_LATENCIES) for name in names}
        self._messages = dict.fromkeys(names, 0)
        self._fused = dict.fromkeys(names, 0)
        self._previous: dict[str, CameraCounts] = {}
        self._previous_s = time.monotonic()
        self._transforms = TransformLookup(self)
        self._transforms.add_callback(self._process_pending)
        self._inputs: list[SkeletonInput] = []
        self._outputs: PeoplePublishers | None = None
        self._hri: HriPublishers | None = None
        self._fusion: PeopleFusion | None = None
        self._sets = FrameSets()
        self._convention: Convention | None = None
        self._start_fusion()
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', DIAGNOSTICS_QUEUE_SIZE
        )
        create_steady_timer(self, DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        create_steady_timer(self, FLUSH_PERIOD_S, self._flush)
        self.guard_all_services()

    # Lifecycle transitions.

    @log_exceptions('cannot be configured', FAILURE)
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Create the publishers."""
        namespace = frame_name(self.get_namespace().strip('/'))
        self._outputs = PeoplePublishers(self, '~', f'{namespace}_' if namespace else '')
        if self.settings.hri:
            self._hri = HriPublishers(self)
        return super().on_configure(state)

    @log_exceptions('cannot be activated', FAILURE)
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the skeletons of all cameras."""
        result = super().on_activate(state)
        self._start_fusion()
        discard = functools.partial(self._drops.count, DEACTIVATED)
        try:
            self._transforms.listen([self.settings.fixed_frame])
            for name in self.settings.cameras:
                self._inputs.append(
                    SkeletonInput(
                        self, name, self._transforms, self._fuse, self._drop, self._count, discard
                    )
                )
        except Exception:
            self.unsubscribe()
            LifecycleNode.on_deactivate(self, state)
            raise
        topics = ', '.join(own.topic for own in self._inputs)
        self.get_logger().info(f'waiting for {topics}')
        return result

    def apply_settings(self) -> None:
        """Apply the parameters of the tracks."""
        if self._fusion is not None:
            for name, value in self._track_settings().items():
                setattr(self._fusion, name, value)

    def _start_fusion(self) -> None:
        """Start without people and without knowledge of the cameras."""
        self._restart(DEACTIVATED)
        self._message_ages = MessageAges(self.settings.cameras)
        self._problems = dict.fromkeys(self.settings.cameras, '')
        self._latest: dict[str, CameraPeople] = {}
        self._people = 0

    def _restart(self, cause: str) -> None:
        """Delete all people and the waiting frames, which are counted as dropped."""
        for frame in self._sets.waiting:
            self._drops.count(cause, frame.camera_name)
        self._sets = FrameSets()
        self._stamps: dict[float, Time] = {}
        """Exact stamps of the waiting frames, by their stamps in seconds."""
        self._set_since_s = np.inf
        self._published_s = -np.inf
        if self._fusion is not None:
            # A new fusion would use the same ids again.
            self._fusion.reset()

    def unsubscribe(self) -> None:
        """Unsubscribe and delete the markers and bodies."""
        inputs, self._inputs = self._inputs, []
        with contextlib.ExitStack() as steps:
            if self._outputs is not None:
                steps.callback(self._outputs.clear_markers)
            if self._hri is not None:
                steps.callback(self._hri.clear)
            steps.callback(self._transforms.close)
            # Otherwise the timer would fuse and publish them.
            steps.callback(self._restart, DEACTIVATED)
            for own in inputs:
                steps.callback(own.unsubscribe)

    def release(self) -> None:
        """Destroy the publishers."""
        publishers, self._outputs = self._outputs, None
        hri, self._hri = self._hri, None
        with contextlib.ExitStack() as steps:
            for own in (publishers, hri):
                if own is not None:
                    steps.callback(own.close)

    # Callbacks of messages and timers.

    def _count(self, camera: str) -> None:
        self._messages[camera] += 1

    def _drop(self, cause: str, explanation: str, camera: str) -> None:
        self._problems[camera] = explanation
        self._drops.report(cause, explanation, camera)

    def _process_pending(self) -> None:
        for own in self._inputs:
            own.process_pending()

    def _flush(self) -> None:
        """Fuse the present frame set if it has waited for other cameras long enough."""
        self._process_pending()
        if time.monotonic() - self._set_since_s > MAX_SET_WAIT_S:
            self._set_since_s = np.inf
            for frames in self._sets.flush():
                self._update(frames)

    def _fuse(self, header: Header, frame: CameraPeople) -> None:
        """Add the people of a camera, and fuse the frame sets that are complete."""
        camera = frame.camera_name
        latency_s = age_s(header, self.get_clock().now())
        self._ages_s[camera].append(latency_s)
        now_s = time.monotonic()
        self._message_ages.add(camera, latency_s, now_s)
        offset_s = self._message_ages.offset_s(camera, now_s)
        if offset_s:
            self._drop(
                CLOCK,
                f'its stamps are {abs(offset_s):.1f} s {"behind" if offset_s > 0 else "ahead of"} '
                f'those of the other cameras, more than {MAX_OFFSET_S:g} s; synchronise the '
                'clocks of the machines',
                camera,
            )
            if self._latest.pop(camera, None) is not None and len(self._latest) <= 1:
                # Of two clocks, the fusion takes the first one as right, even if it gets no more
                # frames of its camera.
                self._restart(CLOCK)
            return
        self._latest[camera] = frame
        self._choose_skeleton(frame.stamp_s)
        assert self._fusion is not None
        if not set(frame.skeleton.joint_names) & set(self._fusion.skeleton.joint_names):
            self._drop(
                OTHER_SKELETON,
                f'its skeleton {printable(frame.skeleton.name)} has no joint of the skeleton '
                f'{printable(self._fusion.skeleton.name)} of the other cameras; set the parameter '
                'skeleton of all pose nodes to the same value',
                camera,
            )
            return
        self._stamps[frame.stamp_s] = header.stamp
        complete, waiting = self._sets.add(frame), self._sets.waiting
        if not waiting:
            self._set_since_s = np.inf
        elif waiting[0] is frame:
            self._set_since_s = time.monotonic()
        for frames in complete:
            self._update(frames)

    def _choose_skeleton(self, stamp_s: float) -> None:
        """Use the skeleton of most cameras; if it changes, all people are deleted."""
        votes = collections.Counter(
            frame.skeleton
            for frame in self._latest.values()
            if abs(frame.stamp_s - stamp_s) <= SKELETON_MEMORY_S
        )
        skeleton, count = votes.most_common(1)[0]
        if self._fusion is not None and votes[self._fusion.skeleton] == count:
            return
        for frames in self._sets.flush():
            self._update(frames)
        self._sets = FrameSets()
        next_id = 1 if self._fusion is None else self._fusion.next_id
        self._fusion = PeopleFusion(skeleton, **self._track_settings(), first_id=next_id)
        self._convention = Convention(skeleton, np.arange(len(skeleton)))

    def _update(self, frames: list[CameraPeople]) -> None:
        assert self._fusion is not None
        try:
            with self._latencies.measure('fuse'):
                fused = self._fusion.update(frames)
            with self._latencies.measure('publish'):
                self._publish(fused)
        except Exception as error:
            for frame in frames:
                self._drop(FAILED, f'{type(error).__name__}: {error}', frame.camera_name)
            self._fusion.reset()
        else:
            self._count_fused(frames)
        for frame in frames:
            self._stamps.pop(frame.stamp_s, None)

    def _count_fused(self, frames: list[CameraPeople]) -> None:
        """Count the frames of a set that were used, and report the other ones."""
        assert self._fusion is not None
        statuses = {own.name: own for own in self._fusion.camera_statuses()}
        for camera in (frame.camera_name for frame in frames):
            status = statuses[camera]
            if status.excluded_because:
                cause = CLOCK if status.clock_offset_s else INCONSISTENT
                self._drop(cause, status.excluded_because, camera)
            else:
                self._problems[camera] = ''
                self._fused[camera] += 1

    def _track_settings(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in TRACK_SETTINGS}

    def _publish(self, fused: FusedPeople) -> None:
        publishers, convention = self._outputs, self._convention
        if publishers is None or convention is None:
            return
        stamp = self._stamps.get(fused.stamp_s)
        if stamp is None or fused.stamp_s == self._published_s:
            # Late frames change the people, but not their time.
            return
        self._published_s = fused.stamp_s
        header = Header(stamp=stamp, frame_id=self.settings.fixed_frame)
        people = fused.to_people()
        people = people.select(people.finite())
        self._people = len(people)
        transforms = []
        if self._hri is not None:
            with_links = self.settings.hri_tf and publishers.has_transform_subscribers()
            transforms = self._hri.publish(people, WORLD_UP, header, with_links=with_links)
        publishers.publish(
            people,
            people.in_convention(convention),
            [str(person) for person in people.ids.tolist()],
            WORLD_UP,
            header,
            self.settings.tf,
            self.settings.tf_prefix,
            self._camera_markers(fused, header) if publishers.has_marker_subscribers() else (),
            transforms,
        )

    def _camera_markers(self, fused: FusedPeople, header: Header) -> list[Any]:
        cameras = {
            name: (frame.camera, frame.image_shape)
            for name, frame in self._latest.items()
            if frame.image_shape is not None
        }
        markers = [frustum_marker(cameras, header, TYPES)]
        if self.settings.rays:
            # Cameras whose clock went wrong are no longer in the latest frames.
            unknown_mm = np.full(3, np.nan)
            centres_mm = [
                self._latest[name].camera.position_mm if name in self._latest else unknown_mm
                for name in fused.camera_names
            ]
            markers.append(
                ray_marker(
                    np.array(centres_mm).reshape(-1, 3),
                    fused.to_people().positions_mm,
                    fused.seen_by,
                    header,
                    TYPES,
                )
            )
        return markers

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._fusion is not None:
            self._fusion.reset()
        if self._hri is not None:
            self._hri.clear()
        response.success, response.message = True, 'all people were deleted'
        return response

    def _publish_diagnostics(self) -> None:
        for own in self._inputs:
            own.subscribe_to_latched_info()
        if self._hri is not None:
            self._hri.clear_stopped()
        now_s = time.monotonic()
        reprojections_px = {
            status.name: status.reprojection_px
            for status in (self._fusion.camera_statuses() if self._fusion is not None else ())
        }
        drops = self._drops.counts_by_camera()
        current = {
            name: CameraCounts(
                self._messages[name],
                self._fused[name],
                {cause: count for (cause, camera), count in drops.items() if camera == name},
                len(self._latest[name]) if name in self._latest else 0,
                float(np.median(self._ages_s[name])) if self._ages_s[name] else 0.0,
                reprojections_px.get(name, 0.0),
                self._problems[name],
            )
            for name in self.settings.cameras
        }
        explanations = self._drops.explanations().items()
        about = {
            'people': str(self._people),
            'fixed_frame': self.settings.fixed_frame,
            **self._latencies.percentiles(),
            'rejected transforms': str(self._transforms.rejected),
            'failed callbacks': str(self.failures.count),
            **({} if self._hri is None else self._hri.residuals()),
            **{f'explanation: {cause}': text for cause, text in explanations},
        }
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(
            to_message(
                self.get_name(), stamp, about, self._previous, current, now_s - self._previous_s
            )
        )
        self._previous, self._previous_s = current, now_s


def run() -> int:
    """Run the node until it is shut down; return the exit status."""
    return run_node(FusionNode, 'fusion')


def main() -> NoReturn:
    """Run the node and exit the process."""
    process.exit_process(run())


if __name__ == '__main__':
    main()
