"""Shows the results of annotating a recording."""

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
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import DEFAULT_FOV_DEGREES
from metrabs_ros.recordings.bag_message import Recorded, Topic
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.message_types import COMPRESSED_IMAGE, SKELETONS, typestore
from metrabs_ros.recordings.recording import Frame
from metrabs_ros.recordings.stamps import NANOSECONDS, stamp_ns_of
from metrabs_ros.view.markdown import escaped
from metrabs_ros.view.scene import Placed, Scene
from metrabs_ros.view.validation import checked_file, checked_people

MOST_CAMERAS = 16
SUFFIX = '/pose/skeletons'
RATE_FRAMES = 20
AT_CAMERA = Placed('', np.eye(3), np.zeros(3))


def _images_in(path: pathlib.Path) -> BagRecording | None:
    """Return the images in a bag, or None if it has none, as with --only-results."""
    bag = Bag(path, lambda sentence: None)
    try:
        return BagRecording(bag, None, DEFAULT_FOV_DEGREES, (), False, lambda sentence: None)
    except UnreadableRecording:
        bag.close()
    return None


class Results:
    """
    The people in a bag, and the images beside them.

    Parameters
    ----------
    path
        The bag.
    tell
        Is called with a sentence about each problem.

    Raises
    ------
    UnreadableRecording
        If there are no people in it.
    """

    def __init__(self, path: pathlib.Path, tell: Callable[[str], None]) -> None:
        self._bag = Bag(path, tell)
        try:
            topics = self._bag.skeleton_topics()
        except UnreadableRecording:
            self._bag.close()
            raise
        if len(topics) > MOST_CAMERAS:
            tell(f'of {len(topics)} topics with people the first {MOST_CAMERAS} are shown')
        self._names = {
            topic: topic.name.removesuffix(SUFFIX).strip('/') for topic in topics[:MOST_CAMERAS]
        }
        self._images = _images_in(path)
        self._tell = tell
        self._not_shown: collections.Counter[str] = collections.Counter()

    @property
    def cameras(self) -> list[str]:
        """The names of the cameras."""
        return list(dict.fromkeys(self._names.values()))

    def show_in(self, scene: Scene) -> None:
        """Show everything, as fast as it is read; what is malformed is left out and counted."""
        scene.say(f'**{escaped(self._bag.path.name)}**')
        stamps_s: dict[Topic, collections.deque[float]] = {
            topic: collections.deque(maxlen=RATE_FRAMES) for topic in self._names
        }
        total = sum(self._bag.counts[topic] for topic in self._names)
        with tqdm(total=total, unit='frame') as progress:
            for item in self._items():
                if isinstance(item, Frame):
                    self._show('images', self._show_frame, scene, item)
                else:
                    self._show('people', self._show_people, scene, item, stamps_s[item.topic])
                    progress.update()
        for kind, count in self._not_shown.items():
            self._tell(f'{count} messages with {kind} are malformed and not shown')
        scene.flush()

    def close(self) -> None:
        """Close the files."""
        self._bag.close()
        if self._images is not None:
            self._images.close()

    def _items(self) -> Iterator[Frame | Recorded]:
        """Return images and people in the order of recording."""
        people = self._bag.messages(list(self._names))
        images = iter(self._images) if self._images is not None else iter(())
        yield from heapq.merge(images, people, key=lambda item: item.time_ns)

    def _show(self, kind: str, show: Callable[..., None], *arguments: Any) -> None:
        """Show a message; of those that cannot be shown, say why of the first and count them."""
        try:
            show(*arguments)
        # Depending on what is broken in a message, reading it fails in many ways.
        except Exception as error:
            if not self._not_shown[kind]:
                reason = f'{type(error).__name__}: {printable(error, 200)}'
                self._tell(f'a message with {kind} is malformed and not shown ({reason})')
            self._not_shown[kind] += 1

    def _show_frame(self, scene: Scene, frame: Frame) -> None:
        assert self._images is not None
        name = self._images.cameras[frame.camera].namespace.strip('/')
        if name not in self.cameras:
            return
        image, camera = self._images.view(frame)
        stamp_s = frame.stamp_ns / NANOSECONDS
        shown: ImageArray | bytes = image
        if getattr(frame.content, '__msgtype__', '') == COMPRESSED_IMAGE:
            with contextlib.suppress(ValueError):
                shown, _ = checked_file(frame.content)
        scene.show_image(stamp_s, name, shown)
        scene.show_camera(stamp_s, name, camera, image.shape, AT_CAMERA)

    def _show_people(
        self, scene: Scene, message: Recorded, stamps_s: collections.deque[float]
    ) -> None:
        name = self._names[message.topic]
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
        stamp_s = stamp_ns_of(skeletons.header) / NANOSECONDS
        people = checked_people(skeletons)
        scene.show_people(stamp_s, name, people)
        stamps_s.append(stamp_s)
        of_camera = f' of {name}' if len(self._names) > 1 else ''
        values = {f'people/people{of_camera}': float(len(people))}
        passed_s = stamps_s[-1] - stamps_s[0]
        if passed_s > 0:
            values[f'rate/frames a second{of_camera}'] = (len(stamps_s) - 1) / passed_s
        scene.plot(stamp_s, values)
