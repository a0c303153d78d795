"""Recordings of cameras: frames to work on, and messages to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from metrabs_ros.options import View
from metrabs_ros.recordings.bag_message import Recorded, Topic


@dataclasses.dataclass(frozen=True)
class RecordedCamera:
    """
    A camera of a recording.

    Parameters
    ----------
    namespace
        Under which its people are written; empty or beginning with a slash.
    prefix
        Comes before the names of its people's frames.
    source
        Where its images come from, in words.
    frames
        How many there are, as far as that is known beforehand.
    """

    namespace: str
    prefix: str
    source: str
    frames: int


class Frame(NamedTuple):
    """
    An image of a recording.

    Parameters
    ----------
    camera
        Which took it, by its number among the recording's cameras.
    time_ns
        When it was recorded.
    stamp_ns
        When it was taken, by its header.
    frame_id
        The name of the camera's frame.
    content
        What the recording makes a view of.
    """

    camera: int
    time_ns: int
    stamp_ns: int
    frame_id: str
    content: Any


class Recording(Protocol):
    """What one or several cameras recorded."""

    @property
    def cameras(self) -> Sequence[RecordedCamera]:
        """Those that can be worked on."""
        ...

    @property
    def kept(self) -> Sequence[Topic]:
        """The topics whose messages are there to be kept."""
        ...

    def __iter__(self) -> Iterator[Frame | Recorded]:
        """Return frames and messages in the order in which they were recorded."""
        ...

    def view(self, frame: Frame) -> View:
        """
        Return the image of a frame and its camera.

        Raises
        ------
        UnusableInput
            If it cannot be worked on.
        """
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


def size_of(item: Frame | Recorded) -> int:
    """Return about how many bytes of memory a frame or a message takes."""
    if isinstance(item, Recorded):
        return len(item.data)
    content = item.content
    return int(getattr(content, 'nbytes', 0) or len(getattr(content, 'data', ())))
