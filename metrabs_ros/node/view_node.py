"""Node that shows the messages of the pose node in a web browser."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)

import argparse
import collections
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import rclpy.utilities
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import TransformListener

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.skeleton_validation import valid_people
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.foreign_text import printable
from metrabs_ros.image_header import check_image_size
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import fusion_diagnostics, heartbeat, process
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.guarded_node import GuardedNode
from metrabs_ros.node.image_conversion import to_rgb
from metrabs_ros.node.latched_topics import LATCHED, is_latched
from metrabs_ros.node.message_ages import age_s
from metrabs_ros.node.parameters import validate_camera_names
from metrabs_ros.node.size_limited_subscription import size_limited
from metrabs_ros.node.steady_timer import create_steady_timer
from metrabs_ros.node.synchronisation import StampKey, stamp_key
from metrabs_ros.node.transform_store import TransformStore
from metrabs_ros.people import MM_PER_M, People
from metrabs_ros.view.access import DEFAULT_HOST
from metrabs_ros.view.markdown import escape_markdown
from metrabs_ros.view.scene import FUSED, MEMORY_LIMIT, FramePose, Scene
from metrabs_ros.view.server import exposure_warning
from metrabs_ros.view.validation import MAX_PIXELS, validate_image_file

MAX_IMAGES = 20
"""Maximum number of buffered images per camera."""
MAX_BUFFERED_BYTES = 256 << 20
"""Maximum total size of the buffered images per camera; one image of any size is allowed."""
MIN_IMAGE_PERIOD_S = 0.08
"""Minimum time between two shown images, which limits the bandwidth, in seconds."""
PAIRING_TIMEOUT_S = 0.5
"""Time after which an image without matching skeletons is shown, in seconds."""
SKELETONS_TIMEOUT_S = 2.0
"""Time without skeletons after which images are shown without people, in seconds."""
MAX_SKELETONS_BYTES = 4 * 2**20
"""Maximum size of a SkeletonArray message: 500 people with 122 joints each."""
MAX_DIAGNOSTICS_BYTES = 2**20
"""Maximum size of a DiagnosticArray message; a robot with hundreds of components has 100 kB."""
MAX_TOPICS_CHARS = 500
MAX_STATUSES = 1000
"""Number of last statuses in a diagnostics message that are searched for the nodes."""
MAX_ROWS = 80
"""Maximum number of rows of the diagnostics table."""
RATE_WINDOW_S = 2.0
"""Time window of the displayed frame rate, in seconds."""
FRAMES_PERIOD_S = 0.2
CHECK_PERIOD_S = 0.5
MAX_PLOTTED_LATENCY_S = 60.0
LOG_PERIOD_S = 10.0
LEVELS = {
    DiagnosticStatus.OK: 'OK',
    DiagnosticStatus.WARN: 'warning',
    DiagnosticStatus.ERROR: 'error',
}


class _FusedView:
    """
    Shows the people of a fusion, which has no images.

    Parameters
    ----------
    node
        Node that subscribes.
    """

    def __init__(self, node: ViewNode) -> None:
        self._node = node
        self.topics = node.subscribe_to_skeletons('fusion/skeletons', self._on_skeletons)
        self._shown_s = -np.inf

    def check(self) -> str:
        """Return a message about missing topics."""
        if time.monotonic() - self._shown_s < SKELETONS_TIMEOUT_S:
            return ''
        return f'no messages received on {escape_markdown(self.topics, MAX_TOPICS_CHARS)}'

    def _on_skeletons(self, message: SkeletonArray) -> None:
        people = self._node.valid_people(message, self.topics)
        if people is None:
            return
        self._shown_s = time.monotonic()
        self._node.set_root(message.header.frame_id, z_up=True)
        self._node.stamp_s = to_seconds(message.header.stamp)
        scene = self._node.scene
        scene.show_people(self._node.stamp_s, FUSED, people)
        scene.plot(self._node.stamp_s, {f'people/{FUSED}': float(len(people))})


class _CameraView:
    """
    Shows the messages of one camera.

    Parameters
    ----------
    node
        Node that subscribes.
    name
        Camera name, used as a namespace of the topics; empty for a single camera.
    compressed
        Whether to subscribe to image/compressed.
    """

    def __init__(self, node: ViewNode, name: str, compressed: bool) -> None:
        self._node = node
        self._name = name
        self._images: collections.OrderedDict[StampKey, Any] = collections.OrderedDict()
        self._info: CameraInfo | None = None
        self._image_shown_s = self._people_shown_s = -np.inf
        self._times_s: collections.deque[float] = collections.deque()
        prefix = f'{name}/' if name else ''
        kind, topic = (CompressedImage, 'image/compressed') if compressed else (Image, 'image')
        sensor = qos_profile_sensor_data
        images = node.create_subscription(kind, prefix + topic, self._on_image, sensor)
        self._info_topic = node.create_subscription(
            CameraInfo, f'{prefix}camera_info', self._on_info, sensor
        ).topic_name
        self._has_latched_subscription = False
        skeletons = node.subscribe_to_skeletons(f'{prefix}pose/skeletons', self._on_skeletons)
        self.topics = f'{images.topic_name} and {skeletons}'

    def check(self) -> str:
        """Show the latest image if no skeletons arrive; return a message about missing topics."""
        self._subscribe_to_latched_info()
        now_s = time.monotonic()
        if now_s - self._people_shown_s < SKELETONS_TIMEOUT_S:
            return ''
        if not self._images:
            return f'no messages received on {escape_markdown(self.topics, MAX_TOPICS_CHARS)}'
        self._show_image(next(reversed(self._images.values())))
        return (
            f'images received, but no skeletons: {escape_markdown(self.topics, MAX_TOPICS_CHARS)}'
        )

    def _subscribe_to_latched_info(self) -> None:
        if self._info is not None or self._has_latched_subscription:
            return
        if is_latched(self._node, self._info_topic):
            self._has_latched_subscription = True
            self._node.create_subscription(CameraInfo, self._info_topic, self._on_info, LATCHED)

    def _on_info(self, info: CameraInfo) -> None:
        self._info = info

    def _on_image(self, image: Any) -> None:
        self._images[stamp_key(image.header.stamp)] = image
        while len(self._images) > MAX_IMAGES or (
            len(self._images) > 1 and self._buffered_bytes() > MAX_BUFFERED_BYTES
        ):
            self._images.popitem(last=False)

    def _buffered_bytes(self) -> int:
        return sum(len(image.data) for image in self._images.values())

    def _on_skeletons(self, message: SkeletonArray) -> None:
        people = self._node.valid_people(message, self.topics)
        if people is not None:
            self._show_people(message, people)

    def _show_people(self, message: SkeletonArray, people: People) -> None:
        now_s, stamp_s = time.monotonic(), to_seconds(message.header.stamp)
        self._people_shown_s = now_s
        image = self._images.get(stamp_key(message.header.stamp))
        newest = next(reversed(self._images.values()), None)
        if image is None and now_s - self._image_shown_s > PAIRING_TIMEOUT_S:
            image = newest
        # If people and images have different frames, the frame of the people has z up (REP 103).
        frame_id = message.header.frame_id
        if not self._node.is_fused:
            z_up = newest is not None and newest.header.frame_id != frame_id
            self._node.set_root(frame_id, z_up)
        if image is not None and now_s - self._image_shown_s > MIN_IMAGE_PERIOD_S:
            self._show_image(image)
        self._plot(message, len(people), now_s)
        if self._node.is_fused:
            self._node.scene.show_people_on_image(stamp_s, self._name, people)
            return
        pose = self._node.pose_of(frame_id)
        if pose is None:
            self._node.warn(
                f'people in frame {printable(frame_id)!r} are not shown: there is no transform '
                'from this frame to the frame of the view'
            )
            people = people.select(np.zeros(0, int))
        else:
            people = people.transformed(pose.rotation, MM_PER_M * pose.translation_m)
        self._node.scene.show_people(stamp_s, self._name, people)
        self._node.stamp_s = stamp_s

    def _plot(self, message: SkeletonArray, count: int, now_s: float) -> None:
        self._times_s.append(now_s)
        while self._times_s[0] < now_s - RATE_WINDOW_S:
            self._times_s.popleft()
        of_camera = f' of {self._name}' if self._name else ''
        values = {
            f'people/people{of_camera}': float(count),
            f'rate/frames per second{of_camera}': len(self._times_s) / RATE_WINDOW_S,
        }
        latency_s = age_s(message.header, self._node.get_clock().now())
        if 0 <= latency_s < MAX_PLOTTED_LATENCY_S:
            values[f'latency/image to view{of_camera}'] = 1000 * latency_s
        self._node.scene.plot(to_seconds(message.header.stamp), values)

    def _show_image(self, message: Any) -> None:
        scene, stamp_s = self._node.scene, to_seconds(message.header.stamp)
        image: ImageArray | bytes
        shape: tuple[int, ...]
        self._image_shown_s = time.monotonic()
        try:
            if isinstance(message, CompressedImage):
                image, shape = validate_image_file(message)
            else:
                check_image_size(message.width, message.height, MAX_PIXELS)
                pixels = to_rgb(message)
                image, shape = pixels, pixels.shape[:2]
            scene.show_image(stamp_s, self._name, image)
            if self._info is not None:
                pose = self._node.pose_of(message.header.frame_id)
                scene.show_camera(stamp_s, self._name, to_camera(self._info, shape), shape, pose)
        except ValueError as error:
            self._node.warn(f'an image or its camera_info is not shown: {printable(error, 300)}')


class ViewNode(GuardedNode):
    """
    Shows the topics of the pose node; spin it with a `GuardedExecutor`.

    Parameters
    ----------
    scene
        Scene in which people, images and frames are shown.
    cameras
        Camera names; [''] for a single camera without a namespace.
    compressed
        Whether to subscribe to image/compressed.
    is_fused
        Whether to show the people of the fusion node instead of those of each camera, which are
        then shown on the images only.
    """

    def __init__(
        self, scene: Scene, cameras: Sequence[str], compressed: bool, is_fused: bool = False
    ) -> None:
        super().__init__('view')
        self.scene = scene
        self.is_fused = is_fused
        self._root = ''
        self.stamp_s = 0.0
        """Stamp of the people shown last, in seconds."""
        self._buffer = TransformStore()
        self._listener = TransformListener(self._buffer, self)
        self._views: list[_CameraView | _FusedView] = [
            _CameraView(self, name, compressed) for name in cameras
        ]
        if is_fused:
            self._views.append(_FusedView(self))
        self._suffixes = [heartbeat.STATUS_SUFFIX]
        if is_fused:
            self._suffixes.insert(0, fusion_diagnostics.STATUS_SUFFIX)
        self._statuses: dict[str, str] = {}
        self._newest_statuses: dict[str, DiagnosticStatus] = {}
        """Latest status of each node by the end of its name, not yet converted to `_statuses`."""
        on_diagnostics = size_limited(
            DiagnosticArray,
            MAX_DIAGNOSTICS_BYTES,
            self._on_diagnostics,
            lambda oversized: self.warn(f'diagnostics are not shown: {oversized}'),
        )
        self.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 10, raw=True)
        create_steady_timer(self, FRAMES_PERIOD_S, self._show_frames)
        create_steady_timer(self, CHECK_PERIOD_S, self._check)

    @property
    def topics(self) -> str:
        """Names of the subscribed topics, for log messages."""
        return '; '.join(view.topics for view in self._views)

    def warn(self, text: str) -> None:
        """Log a warning, at most once per `LOG_PERIOD_S`."""
        self.get_logger().warning(text, throttle_duration_sec=LOG_PERIOD_S)

    def subscribe_to_skeletons(self, topic: str, callback: Callable[[SkeletonArray], None]) -> str:
        """Subscribe to skeletons of limited size; return the full name of the topic."""
        on_skeletons = size_limited(
            SkeletonArray,
            MAX_SKELETONS_BYTES,
            callback,
            lambda oversized: self.warn(f'skeletons are not shown: {oversized}'),
        )
        name: str = self.create_subscription(
            SkeletonArray, topic, on_skeletons, 10, raw=True
        ).topic_name
        return name

    def valid_people(self, message: SkeletonArray, topics: str) -> People | None:
        """Return the valid people of a message; None, with a warning, if it is malformed."""
        try:
            people, invalid = valid_people(message)
        # The nodes do not publish such messages.
        except ValueError as error:
            self.warn(f'the skeletons on {topics} are malformed: {printable(error, 200)}')
            return None
        for reason, count in invalid.items():
            self.warn(f'{count} of the people on {topics} are not shown: {printable(reason, 200)}')
        return people

    def set_root(self, frame_id: str, z_up: bool) -> None:
        """
        Set the frame of the scene.

        A single camera may change it; with several cameras, the first message determines it.

        Parameters
        ----------
        frame_id
            Frame of the people.
        z_up
            Whether the z axis of the frame points up.
        """
        if not self._root or len(self._views) == 1:
            self._root = frame_id
            self.scene.set_z_up(z_up)

    def pose_of(self, frame_id: str) -> FramePose | None:
        """Return the pose of a frame in the frame of the scene, or None if it is unknown."""
        if not self._root or frame_id == self._root:
            return FramePose(frame_id, np.eye(3), np.zeros(3))
        pose = self._buffer.pose(frame_id, self._root)
        return None if pose is None else FramePose(frame_id, pose.rotation, pose.translation_m)

    def _show_frames(self) -> None:
        if not self._root:
            return
        names = {self._root, *self._buffer.names()} - {''}
        placed = [pose for name in sorted(names) if (pose := self.pose_of(name)) is not None]
        self.scene.show_frames(self.stamp_s, placed)

    def _check(self) -> None:
        for suffix, status in self._newest_statuses.items():
            self._statuses[suffix] = _to_markdown(status)
        self._newest_statuses.clear()
        texts = [message for view in self._views if (message := view.check())]
        texts += [self._statuses[suffix] for suffix in self._suffixes if suffix in self._statuses]
        if texts:
            self.scene.show_status('\n\n'.join(texts))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        # Only the last statuses are shown, and not before the next check: escaping their text
        # takes milliseconds, and messages may arrive at any rate and with any number of statuses.
        for status in message.status[-MAX_STATUSES:]:
            for suffix in self._suffixes:
                if status.name.endswith(suffix):
                    self._newest_statuses[suffix] = status


def _to_markdown(status: DiagnosticStatus) -> str:
    """Format a status as Markdown with a table of its values."""
    rows = [
        f'| {escape_markdown(value.key)} | {escape_markdown(value.value)} |'
        for value in status.values[:MAX_ROWS]
    ]
    left_out = len(status.values) - len(rows)
    if left_out:
        rows.append(f'| and {left_out} more | |')
    level, name = LEVELS.get(status.level, 'stale'), escape_markdown(status.name, 200)
    title = f'**{level}: {escape_markdown(status.message, 200)}** ({name})'
    return '\n'.join([title, '', '| | |', '|---|---|', *rows])


def run(arguments: list[str] | None = None) -> int:
    """Run the node; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--host',
        default=DEFAULT_HOST,
        help='address to listen on; 0.0.0.0 allows access from other machines',
    )
    parser.add_argument('--web-port', type=int, default=9090, help='port of the web page')
    parser.add_argument('--data-port', type=int, default=9876, help='port of the data connection')
    parser.add_argument(
        '--memory', default=MEMORY_LIMIT, help='memory limit of the data kept for new browsers'
    )
    parser.add_argument('--cameras', nargs='*', default=[], help='namespaces of the cameras')
    parser.add_argument('--compressed', action='store_true', help='subscribe to image/compressed')
    parser.add_argument(
        '--fused', action='store_true', help='show the people of fusion/skeletons, each once'
    )
    args = parser.parse_args(rclpy.utilities.remove_ros_args(arguments or sys.argv)[1:])
    cameras = args.cameras or ['']
    with process.ros_context():
        # Created first, because an executor cannot be created after a signal.
        executor = GuardedExecutor()
        try:
            validate_camera_names('--cameras', cameras)
            names = [*cameras, FUSED] if args.fused else cameras
            scene = Scene(names, is_live=True, without_images=[FUSED])
            address = scene.serve(args.web_port, args.data_port, args.memory, args.host)
        except (OSError, ValueError) as error:
            print(f'view: {error}', file=sys.stderr)
            return 1
        warning = exposure_warning(args.host)
        if warning:
            print(f'view: {warning}', file=sys.stderr, flush=True)
        node = ViewNode(scene, cameras, args.compressed, args.fused)
        print(f'view: open {address} in a browser (waiting for {node.topics})', flush=True)
        process.spin(node, executor)
    return 0


def main() -> NoReturn:
    """Run the node and exit the process."""
    process.exit_process(run())


if __name__ == '__main__':
    main()
