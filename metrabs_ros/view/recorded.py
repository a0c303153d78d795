"""Showing the results of annotating a recording."""

from __future__ import annotations

import collections
import heapq
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from metrabs_ros.estimator import DEFAULT_FOV_DEGREES
from metrabs_ros.messages.people import to_people
from metrabs_ros.messages.unusable import UnusableInput
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.message_types import COMPRESSED_IMAGE, SKELETONS, typestore
from metrabs_ros.recordings.recorded import Recorded, Topic
from metrabs_ros.recordings.recording import Frame
from metrabs_ros.recordings.stamps import NANOSECONDS, stamp_ns_of
from metrabs_ros.view.scene import Placed, Scene

SUFFIX = '/pose/skeletons'
RATE_FRAMES = 20
AT_CAMERA = Placed('', np.eye(3), np.zeros(3))


def _images_in(path: pathlib.Path) -> BagRecording | None:
    """Return the images in a bag; whoever asked for results only has none."""
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
        Is told in a sentence of everything that is not as it should be.

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
        self._names = {topic: topic.name.removesuffix(SUFFIX).strip('/') for topic in topics}
        self._images = _images_in(path)

    @property
    def cameras(self) -> list[str]:
        """The names of the cameras."""
        return list(self._names.values())

    def show_in(self, scene: Scene) -> None:
        """Show everything, as fast as it can be read."""
        scene.say(f'**{self._bag.path.name}**')
        stamps_s: dict[Topic, collections.deque[float]] = {
            topic: collections.deque(maxlen=RATE_FRAMES) for topic in self._names
        }
        total = sum(self._bag.counts[topic] for topic in self._names)
        with tqdm(total=total, unit='frame') as progress:
            for item in self._items():
                if isinstance(item, Frame):
                    self._show_frame(scene, item)
                else:
                    self._show_people(scene, item, stamps_s[item.topic])
                    progress.update()
        scene.flush()

    def close(self) -> None:
        """Let go of the files."""
        self._bag.close()
        if self._images is not None:
            self._images.close()

    def _items(self) -> Iterator[Frame | Recorded]:
        """Return images and people in the order in which they were recorded."""
        people = self._bag.messages(list(self._names))
        images = iter(self._images) if self._images is not None else iter(())
        yield from heapq.merge(images, people, key=lambda item: item.time_ns)

    def _show_frame(self, scene: Scene, frame: Frame) -> None:
        assert self._images is not None
        name = self._images.cameras[frame.camera].namespace.strip('/')
        if name not in self.cameras:
            return
        try:
            image, camera = self._images.view(frame)
        except UnusableInput:
            return
        stamp_s = frame.stamp_ns / NANOSECONDS
        is_small = getattr(frame.content, '__msgtype__', '') == COMPRESSED_IMAGE
        shown = bytes(frame.content.data) if is_small else image
        scene.show_image(stamp_s, name, shown)
        scene.show_camera(stamp_s, name, camera, image.shape, AT_CAMERA)

    def _show_people(
        self, scene: Scene, message: Recorded, stamps_s: collections.deque[float]
    ) -> None:
        name = self._names[message.topic]
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
        stamp_s = stamp_ns_of(skeletons.header) / NANOSECONDS
        people = to_people(skeletons)
        scene.show_people(stamp_s, name, people)
        stamps_s.append(stamp_s)
        of_camera = f' of {name}' if len(self._names) > 1 else ''
        values = {f'people/people{of_camera}': float(len(people))}
        passed_s = stamps_s[-1] - stamps_s[0]
        if passed_s > 0:
            values[f'rate/frames a second{of_camera}'] = (len(stamps_s) - 1) / passed_s
        scene.plot(stamp_s, values)
