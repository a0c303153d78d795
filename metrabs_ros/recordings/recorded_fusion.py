"""Fusion of the people in the frames of a recording's cameras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.recordings.recording import RecordedFrame

NAMESPACE = '/fusion'
SKELETONS_TOPIC = f'{NAMESPACE}/skeletons'
MARKERS_TOPIC = f'{NAMESPACE}/markers'
WORLD_UP = np.array([0.0, 0.0, 1.0])
DEFAULT_SMOOTHING = 0.5
JUMP_BACK_NS = NS_PER_S
"""Sets that are not later than the one before them are not written, unless by more than this."""


class PlacedView(NamedTuple):
    """A camera with its pose in the fixed frame, and the shape of its images."""

    camera: Camera
    image_shape: tuple[int, ...]


class FusedFrame(NamedTuple):
    """
    People of a frame set.

    Parameters
    ----------
    time_ns
        Time of recording of the frame that completed the set, in nanoseconds.
    stamp_ns
        Latest stamp of the set, in nanoseconds.
    people
        The people in the fixed frame.
    views
        The cameras with their last poses, by name.
    """

    time_ns: int
    stamp_ns: int
    people: People
    views: Mapping[str, PlacedView]


class RecordedFusion:
    """
    Fuses people in the order of the frames, so that a resumed run has the same results.

    Parameters
    ----------
    camera_names
        Names of the cameras.
    max_lost, smoothing
        Arguments of `PeopleFusion`; a smoothing of None is `DEFAULT_SMOOTHING`.
    warn
        Called with a message for each camera that is excluded.
    """

    def __init__(
        self,
        camera_names: Sequence[str],
        max_lost: float,
        smoothing: float | None,
        warn: Callable[[str], None],
    ) -> None:
        self._names = camera_names
        self._max_lost = max_lost
        self._smoothing = DEFAULT_SMOOTHING if smoothing is None else smoothing
        self._warn = warn
        self._sets = FrameSets()
        self._fusion: PeopleFusion | None = None
        self._cameras: dict[str, tuple[Camera, Camera]] = {}
        self._views: dict[str, PlacedView] = {}
        self._stamps_ns: dict[float, int] = {}
        self._time_ns = 0
        self._stamp_ns = -JUMP_BACK_NS
        self._excluded: set[str] = set()

    def add(
        self,
        frame: RecordedFrame,
        camera: Camera,
        image_shape: tuple[int, ...],
        people: People,
    ) -> list[FusedFrame]:
        """
        Add the people of a frame with a known pose.

        Parameters
        ----------
        frame
            The frame.
        camera, image_shape
            Camera and shape of the image.
        people
            The people in the camera frame.

        Returns
        -------
        The people of the frame sets that are complete.
        """
        name, stamp_s = self._names[frame.camera], frame.stamp_ns / NS_PER_S
        placed = self._placed(name, frame, camera)
        self._views[name] = PlacedView(placed, image_shape[:2])
        self._stamps_ns[stamp_s] = frame.stamp_ns
        self._time_ns = frame.time_ns
        # Those without an id are duplicates of others.
        own = people.select(people.ids != UNKNOWN_ID)
        sets = self._sets.add(
            CameraPeople.from_people(name, placed, stamp_s, own, image_shape[:2])
        )
        return [fused for frames in sets for fused in self._update(frames)]

    def rest(self) -> list[FusedFrame]:
        """Return the people of the last, incomplete frame set."""
        return [fused for frames in self._sets.flush() for fused in self._update(frames)]

    def _placed(self, name: str, frame: RecordedFrame, camera: Camera) -> Camera:
        """Return a camera with the pose of a frame; the same object as long as it is equal."""
        assert isinstance(frame.pose, np.ndarray)
        source, placed = self._cameras.get(name, (None, None))
        if placed is None or source is not camera or (placed.extrinsic_matrix != frame.pose).any():
            placed = dataclasses.replace(
                camera, extrinsic_matrix=frame.pose, world_up_vector=WORLD_UP
            )
            self._cameras[name] = camera, placed
        return placed

    def _update(self, frames: list[CameraPeople]) -> list[FusedFrame]:
        """Fuse a frame set; return nothing if its time is that of the set before."""
        if self._fusion is None:
            self._fusion = PeopleFusion(
                frames[0].skeleton, max_lost=self._max_lost, smoothing=self._smoothing
            )
        fused = self._fusion.update(frames)
        self._report_excluded()
        if not np.isfinite(fused.stamp_s):
            return []
        stamp_ns = self._stamps_ns.get(fused.stamp_s, round(fused.stamp_s * NS_PER_S))
        self._stamps_ns = {s: ns for s, ns in self._stamps_ns.items() if s > fused.stamp_s}
        if self._stamp_ns - JUMP_BACK_NS < stamp_ns <= self._stamp_ns:
            return []
        self._stamp_ns = stamp_ns
        people = fused.to_people()
        people = people.select(people.finite())
        return [FusedFrame(self._time_ns, stamp_ns, people, dict(self._views))]

    def _report_excluded(self) -> None:
        assert self._fusion is not None
        for status in self._fusion.camera_statuses():
            if status.excluded_because and status.name not in self._excluded:
                self._excluded.add(status.name)
                self._warn(
                    f'{printable(status.name)} is not used at times: {status.excluded_because}'
                )
