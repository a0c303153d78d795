"""Fusion of several cameras: tracks of people in the world frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metrabs_ros.fusion.camera_status import CameraStatus
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.skeletons.conventions import Skeleton


class PeopleFusion:
    """
    Tracks people in the world frame over the frames of several cameras.

    Parameters
    ----------
    skeleton
        Skeleton of the fused people.  Cameras may have others; joints are compared by name.
    max_lost
        Time for which people that no camera sees keep their id, in seconds.
    min_hits
        Number of frame sets that confirm a person.
    smoothing
        From 0 to 1, strength of the joint filter; 0.5 is the statistical optimum.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        max_lost: float = 1.0,
        min_hits: int = 3,
        smoothing: float = 0.5,
    ) -> None:
        if not max_lost >= 0:
            raise ValueError(f'max_lost is {max_lost}; it must be 0 or more seconds')
        if min_hits < 1:
            raise ValueError(f'min_hits is {min_hits}; it must be 1 or more')
        if not 0 <= smoothing <= 1:
            raise ValueError(f'smoothing is {smoothing}; it must be from 0 to 1')
        self.skeleton = skeleton
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self._last = FusedPeople.empty(skeleton, 0.0)

    def update(self, frames: Sequence[CameraPeople]) -> FusedPeople:
        """
        Update the people with a frame set, for example of `FrameSets`.

        Parameters
        ----------
        frames
            At most one frame of each camera.  Their stamps may differ; each image point counts
            at the stamp of its frame.

        Returns
        -------
        The confirmed people at the latest stamp of the set.
        """
        # First version: the people of the camera that sees most.
        frame = max(frames, key=len)
        own = frame.in_skeleton(self.skeleton)
        known = np.isfinite(own.poses3d_mm).all(axis=(1, 2))
        own = own.select(known)
        count, joints = own.joint_confidence.shape
        names = tuple(sorted(frame.camera_name for frame in frames))
        self._last = FusedPeople(
            self.skeleton,
            max(frame.stamp_s for frame in frames),
            names,
            own.track_ids,
            own.poses3d_mm,
            np.zeros_like(own.poses3d_mm),
            own.axis_std_mm[..., None] ** 2 * np.eye(3),
            own.joint_confidence.mean(axis=1),
            own.joint_confidence,
            np.zeros(count),
            np.ones(count, bool),
            np.zeros((count, len(names)), bool),
            np.zeros((count, len(names))),
        )
        return self._last

    def predict(self, stamp_s: float) -> FusedPeople:
        """Return the confirmed people, extrapolated to a time; the state is not changed."""
        return self._last

    def camera_statuses(self) -> list[CameraStatus]:
        """Return the state of each camera that frames were given of, in order of their names."""
        return []

    def reset(self) -> None:
        """Delete all people and the statistics of the cameras; ids are not used again."""
        self._last = FusedPeople.empty(self.skeleton, 0.0)
