"""Display of the results of annotate."""

from __future__ import annotations

import collections
import contextlib
import heapq
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.skeleton_validation import valid_people
from metrabs_ros.conversions.stamps import NS_PER_S, to_seconds
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import DEFAULT_FOV_DEGREES
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.recording import RecordedFrame
from metrabs_ros.recordings.scale_cues import CueOptions
from metrabs_ros.recordings.topic_selection import FUSED_TOPIC
from metrabs_ros.recordings.typestore import COMPRESSED_IMAGE, SKELETONS, deserialize, typestore
from metrabs_ros.view.markdown import escape_markdown
from metrabs_ros.view.scene import FUSED, FramePose, Scene
from metrabs_ros.view.validation import validate_image_file

MAX_CAMERAS = 16
SUFFIX, FUSED_SUFFIX = '/pose/skeletons', '/fusion/skeletons'
RATE_FRAMES = 20
"""Number of frames over which the frame rate is averaged."""
IDENTITY_POSE = FramePose('', np.eye(3), np.zeros(3))


def _open_images(path: pathlib.Path, fixed_frame: str) -> BagRecording | None:
    """
    Return the images of a bag, with the poses of their cameras if a fixed frame is given.

    It is None if the bag has no images, as with ``--only-results``.
    """
    bag = Bag(path, lambda message: None)
    cues = CueOptions(fixed_frame=fixed_frame)
    try:
        return BagRecording(bag, None, DEFAULT_FOV_DEGREES, (), False, lambda message: None, cues)
    except UnreadableRecording:
        bag.close()
    return None


def _name_of(topic: Topic) -> str:
    """Return the name of the camera of a topic; for a fusion one that no camera can have."""
    if FUSED_TOPIC.fullmatch(topic.name):
        return f'{topic.name.removesuffix(FUSED_SUFFIX)} {FUSED}'.strip('/ ')
    return topic.name.removesuffix(SUFFIX).strip('/')


def _frame_of_people(bag: Bag, topics: Sequence[Topic]) -> str:
    """Return the frame of the first message of the first topic; empty if there is none."""
    for message in bag.first_messages(topics[:1]).values() if topics else ():
        skeletons = deserialize(message)
        return '' if skeletons is None else str(skeletons.header.frame_id)
    return ''


class Results:
    """
    The people and the images of a bag.

    If the bag has people that were fused from several cameras, only these are displayed in the
    scene, in the fixed frame.  Those of each camera are displayed on its images.

    Parameters
    ----------
    path
        The bag.
    warn
        Called with each warning message.

    Raises
    ------
    UnreadableRecording
        If the bag has no skeletons.
    """

    def __init__(self, path: pathlib.Path, warn: Callable[[str], None]) -> None:
        self._bag = Bag(path, warn)
        try:
            topics = self._bag.skeleton_topics()
        except UnreadableRecording:
            self._bag.close()
            raise
        topics.sort(key=lambda topic: FUSED_TOPIC.fullmatch(topic.name) is None)
        if len(topics) > MAX_CAMERAS:
            warn(f'the first {MAX_CAMERAS} of {len(topics)} topics with people are displayed')
        self._names = {topic: _name_of(topic) for topic in topics[:MAX_CAMERAS]}
        self.fused = [
            name for topic, name in self._names.items() if FUSED_TOPIC.fullmatch(topic.name)
        ]
        """Those of the names in `cameras` that stand for fused people."""
        self._images = _open_images(path, _frame_of_people(self._bag, topics[: len(self.fused)]))
        self._warn = warn
        self._malformed: collections.Counter[str] = collections.Counter()

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras, and of the fusion."""
        return list(dict.fromkeys(self._names.values()))

    def show_in(self, scene: Scene) -> None:
        """Log all messages to a scene without delays; skip and count malformed messages."""
        scene.set_z_up(bool(self.fused))
        scene.show_status(f'**{escape_markdown(self._bag.path.name)}**')
        stamps_s: dict[Topic, collections.deque[float]] = {
            topic: collections.deque(maxlen=RATE_FRAMES) for topic in self._names
        }
        total = sum(self._bag.counts[topic] for topic in self._names)
        with tqdm(total=total, unit='frame') as progress:
            for item in self._merge_messages():
                if isinstance(item, RecordedFrame):
                    self._show('images', self._show_frame, scene, item)
                else:
                    self._show('people', self._show_people, scene, item, stamps_s[item.topic])
                    progress.update()
        for what, count in self._malformed.items():
            self._warn(f'{count} {what} are malformed and were skipped')
        scene.flush()

    def close(self) -> None:
        """Close the files."""
        self._bag.close()
        if self._images is not None:
            self._images.close()

    def _merge_messages(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return images and people in the order of recording."""
        people = self._bag.messages(list(self._names))
        items = iter(self._images) if self._images is not None else iter(())
        # Without the transforms of the cameras, which are returned to be copied.
        images: Iterator[RecordedFrame | BagMessage] = (
            item for item in items if isinstance(item, RecordedFrame)
        )
        yield from heapq.merge(images, people, key=lambda item: item.time_ns)

    def _show(self, kind: str, show: Callable[..., None], *arguments: Any) -> None:
        """Log a message; count malformed messages."""
        try:
            show(*arguments)
        except Exception as error:  # A malformed message can raise any exception.
            self._count_malformed(f'messages with {kind}', 1, f'{type(error).__name__}: {error}')

    def _count_malformed(self, what: str, count: int, reason: str) -> None:
        """Count what is not shown, and warn about the first of each kind."""
        if not self._malformed[what]:
            self._warn(f'{what} are malformed and are skipped ({printable(reason, 200)})')
        self._malformed[what] += count

    def _show_frame(self, scene: Scene, frame: RecordedFrame) -> None:
        assert self._images is not None
        name = self._images.cameras[frame.camera].namespace.strip('/')
        if name not in self.cameras:
            return
        image, camera = self._images.view(frame).view
        stamp_s = frame.stamp_ns / NS_PER_S
        displayed: ImageArray | bytes = image
        if getattr(frame.content, '__msgtype__', '') == COMPRESSED_IMAGE:
            with contextlib.suppress(ValueError):
                displayed, _ = validate_image_file(frame.content)
        scene.show_image(stamp_s, name, displayed)
        if not self.fused:
            scene.show_camera(stamp_s, name, camera, image.shape, IDENTITY_POSE)
        elif isinstance(frame.pose, np.ndarray):
            to_world = np.linalg.inv(frame.pose)
            pose = FramePose('', to_world[:3, :3], to_metres(to_world[:3, 3]))
            scene.show_camera(stamp_s, name, camera, image.shape, pose)

    def _show_people(
        self, scene: Scene, message: BagMessage, stamps_s: collections.deque[float]
    ) -> None:
        name = self._names[message.topic]
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
        stamp_s = to_seconds(skeletons.header.stamp)
        people, invalid = valid_people(skeletons)
        for reason, count in invalid.items():
            self._count_malformed('people', count, reason)
        is_shown = name in self.fused or not self.fused
        show = scene.show_people if is_shown else scene.show_people_on_image
        show(stamp_s, name, people)
        stamps_s.append(stamp_s)
        of_camera = f' of {name}' if len(self._names) > 1 else ''
        values = {f'people/people{of_camera}': float(len(people))}
        duration_s = stamps_s[-1] - stamps_s[0]
        if duration_s > 0:
            values[f'rate/frames per second{of_camera}'] = (len(stamps_s) - 1) / duration_s
        scene.plot(stamp_s, values)
