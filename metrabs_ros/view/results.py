"""Display of the results of annotate."""

from __future__ import annotations

import collections
import contextlib
import heapq
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from metrabs_ros.arrays import ImageArray
from metrabs_ros.conversions.stamps import NS_PER_S, to_seconds
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import DEFAULT_FOV_DEGREES
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.recording import RecordedFrame
from metrabs_ros.recordings.typestore import COMPRESSED_IMAGE, SKELETONS, typestore
from metrabs_ros.view.markdown import escape_markdown
from metrabs_ros.view.scene import FramePose, Scene
from metrabs_ros.view.validation import validate_image_file, validate_people

MAX_CAMERAS = 16
SUFFIX = '/pose/skeletons'
RATE_FRAMES = 20
"""Number of frames over which the frame rate is averaged."""
IDENTITY_POSE = FramePose('', np.eye(3), np.zeros(3))


def _open_images(path: pathlib.Path) -> BagRecording | None:
    """Return the images of a bag; None if it has none, as with ``--only-results``."""
    bag = Bag(path, lambda message: None)
    try:
        return BagRecording(bag, None, DEFAULT_FOV_DEGREES, (), False, lambda message: None)
    except UnreadableRecording:
        bag.close()
    return None


class Results:
    """
    The people and the images of a bag.

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
        if len(topics) > MAX_CAMERAS:
            warn(f'the first {MAX_CAMERAS} of {len(topics)} topics with people are displayed')
        self._names = {
            topic: topic.name.removesuffix(SUFFIX).strip('/') for topic in topics[:MAX_CAMERAS]
        }
        self._images = _open_images(path)
        self._warn = warn
        self._malformed: collections.Counter[str] = collections.Counter()

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""
        return list(dict.fromkeys(self._names.values()))

    def show_in(self, scene: Scene) -> None:
        """Log all messages to a scene without delays; skip and count malformed messages."""
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
        for kind, count in self._malformed.items():
            self._warn(f'{count} messages with {kind} are malformed and were skipped')
        scene.flush()

    def close(self) -> None:
        """Close the files."""
        self._bag.close()
        if self._images is not None:
            self._images.close()

    def _merge_messages(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return images and people in the order of recording."""
        people = self._bag.messages(list(self._names))
        images = iter(self._images) if self._images is not None else iter(())
        yield from heapq.merge(images, people, key=lambda item: item.time_ns)

    def _show(self, kind: str, show: Callable[..., None], *arguments: Any) -> None:
        """Log a message; count malformed messages and warn about the first of each kind."""
        try:
            show(*arguments)
        except Exception as error:  # A malformed message can raise any exception.
            if not self._malformed[kind]:
                reason = f'{type(error).__name__}: {printable(error, 200)}'
                self._warn(f'a message with {kind} is malformed and was skipped ({reason})')
            self._malformed[kind] += 1

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
        scene.show_camera(stamp_s, name, camera, image.shape, IDENTITY_POSE)

    def _show_people(
        self, scene: Scene, message: BagMessage, stamps_s: collections.deque[float]
    ) -> None:
        name = self._names[message.topic]
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
        stamp_s = to_seconds(skeletons.header.stamp)
        people = validate_people(skeletons)
        scene.show_people(stamp_s, name, people)
        stamps_s.append(stamp_s)
        of_camera = f' of {name}' if len(self._names) > 1 else ''
        values = {f'people/people{of_camera}': float(len(people))}
        duration_s = stamps_s[-1] - stamps_s[0]
        if duration_s > 0:
            values[f'rate/frames per second{of_camera}'] = (len(stamps_s) - 1) / duration_s
        scene.plot(stamp_s, values)
