"""Interface of recordings: frames to process, and messages to copy to the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.options import View
from metrabs_ros.placement.depth_image import DepthImage
from metrabs_ros.placement.ground_plane import GroundPlane
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.tracking.timed_view import TimedView


@dataclasses.dataclass(frozen=True)
class RecordedCamera:
    """
    A camera of a recording.

    Parameters
    ----------
    namespace
        Namespace of the result topics; empty or starting with a slash.
    prefix
        Prefix of the names of person frames in TF.
    source
        Name of the image source: a topic or a path.
    frames
        Expected number of frames; 0 if unknown.
    """

    namespace: str
    prefix: str
    source: str
    frames: int


class RecordedFrame(NamedTuple):
    """
    An image of a recording.

    Parameters
    ----------
    camera
        Index of the camera in `Recording.cameras`.
    time_ns
        Time of recording in nanoseconds.
    stamp_ns
        Stamp of the image header in nanoseconds.
    frame_id
        Name of the camera's TF frame.
    content
        Encoded image that `Recording.view` decodes.
    ground
        The floor, camera frame; an exception if it should be known, but is not.
    depth
        Message of the depth image; an exception if there should be one, but is none.
    pose
        [4, 4], from the fixed frame, in which people are fused, to the camera, millimetres; an
        exception if it should be known, but is not.
    """

    camera: int
    time_ns: int
    stamp_ns: int
    frame_id: str
    content: Any
    ground: GroundPlane | UnusableInput | None = None
    depth: Any = None
    pose: FloatArray | UnusableInput | None = None


class Recording(Protocol):
    """A recording of one or several cameras."""

    @property
    def cameras(self) -> Sequence[RecordedCamera]:
        """Cameras with frames that can be processed."""
        ...

    @property
    def copied_topics(self) -> Sequence[Topic]:
        """Topics with messages that are copied to the results."""
        ...

    def __iter__(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return frames, and messages to copy, in the order of recording."""
        ...

    def view(self, frame: RecordedFrame) -> TimedView:
        """
        Return the image of a frame, its camera, and its cues of the person scale.

        Raises
        ------
        UnusableInput
            If the frame cannot be processed.
        """
        ...

    def close(self) -> None:
        """Close the files."""
        ...


def size_of(item: RecordedFrame | BagMessage) -> int:
    """Return the approximate memory size of a frame or a message in bytes."""
    if isinstance(item, BagMessage):
        return len(item.data)
    return _content_bytes(item.content) + _content_bytes(item.depth)


def _content_bytes(content: Any) -> int:
    return int(getattr(content, 'nbytes', 0) or len(getattr(content, 'data', ())))


def timed_view(
    frame: RecordedFrame,
    view: View,
    ground: GroundPlane | None = None,
    depth: DepthImage | None = None,
) -> TimedView:
    """Return the decoded image of a frame as an image of a stream; cameras are named by index."""
    return TimedView(
        view,
        frame.stamp_ns / NS_PER_S,
        camera_name=str(frame.camera),
        ground=ground,
        depth=depth,
    )
