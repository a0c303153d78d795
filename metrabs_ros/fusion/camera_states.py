"""
What the fusion knows of each camera: clock, pose, noise, and whether its frames are used.

Cameras are numbered in the order of their first frames; the numbers are the columns of the arrays
of tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.fusion.camera_checks import CameraChecks, are_equal_views, find_twice_listed
from metrabs_ros.fusion.camera_clocks import CameraClocks
from metrabs_ros.fusion.camera_status import CameraStatus
from metrabs_ros.fusion.observations import CameraPeople

INITIAL_NOISE, NOISE_LIMITS, NOISE_TIME_CONSTANT_S = 1.5, (0.5, 4.0), 2.0
"""Noise of image points relative to the expected one: first value, limits, time constant."""
INITIAL_NOISE_S = 0.2
"""Weight of the first value, as a time of observation."""


class CameraStates:
    """State of C cameras, which are added with their first frames."""

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}
        self._models: dict[str, Camera] = {}
        self._twice: dict[str, str] = {}
        self._stamps_s: dict[str, float] = {}
        self._frames: dict[str, int] = {}
        self._clocks = CameraClocks()
        self._inconsistent: list[str] = []
        self._noise_observed_s: FloatArray = np.zeros(0)
        self.checks = CameraChecks()
        self.noise_ratio: FloatArray = np.zeros(0)
        """[C], noise of image points relative to the expected one."""

    def __len__(self) -> int:
        """Return the number of cameras."""
        return len(self._columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras, in the order of their columns."""
        return tuple(self._columns)

    def columns_of(self, frames: Sequence[CameraPeople]) -> NDArray[np.intp]:
        """Return the columns of the cameras of V frames, [V]."""
        return np.array([self._columns[frame.camera_name] for frame in frames])

    def add(self, frame: CameraPeople) -> None:
        """Note a frame's stamp and camera."""
        name = frame.camera_name
        if name not in self._columns:
            self._columns[name] = len(self._columns)
            self._frames[name] = 0
            self.checks.add_camera()
            self._inconsistent.append('')
            self.noise_ratio = np.append(self.noise_ratio, np.full(1, INITIAL_NOISE))
            self._noise_observed_s = np.append(self._noise_observed_s, np.zeros(1))
        self._frames[name] += 1
        self._stamps_s[name] = frame.stamp_s
        before = self._models.get(name)
        if before is None or not are_equal_views(before, frame.camera):
            self._twice = find_twice_listed({**self._models, name: frame.camera})
        self._models[name] = frame.camera
        if np.isfinite(frame.stamp_s):
            self._clocks.add(name, frame.stamp_s)

    def rejection(self, name: str) -> str:
        """Return why frames of a camera are not compared with tracks; empty if they are."""
        stamp_s = self._stamps_s[name]
        if not np.isfinite(stamp_s):
            return f'its stamp is {stamp_s}; set the stamps of the images'
        if name in self._twice:
            return (
                f'it has the same pose and lens as camera {self._twice[name]}; list each camera '
                'once, or correct its extrinsic calibration'
            )
        offset_s = self._clocks.offset_s(name)
        if offset_s:
            return (
                f'its stamps differ by {offset_s:+.1f} s from those of other cameras; synchronise '
                'the clocks'
            )
        return ''

    def are_inconsistent(self) -> BoolArray:
        """Return which cameras contradict the others, [C]; their frames change no tracks."""
        return np.array([bool(reason) for reason in self._inconsistent], bool)

    def update_inconsistent(self) -> None:
        """Decide which cameras contradict the others, after a frame set was compared."""
        self._inconsistent = self.checks.reasons()

    def update_noise(
        self, noise: FloatArray, known: BoolArray, columns: NDArray[np.intp], step_s: float
    ) -> None:
        """
        Update the noise ratios.

        Parameters
        ----------
        noise
            [T, V], noise ratios of the views of T tracks in V cameras.
        known
            [T, V], which views count: those of tracks that several cameras see.
        columns
            [V].
        step_s
            Time between two frame sets.
        """
        count = known.sum(axis=0)
        mean = np.where(known, noise, 0).sum(axis=0) / np.maximum(count, 1)
        # The mean of all values at first, then a running mean.
        observed_s = self._noise_observed_s[columns] + step_s
        self._noise_observed_s[columns] = np.where(count > 0, observed_s, observed_s - step_s)
        window_s = np.minimum(observed_s + INITIAL_NOISE_S, NOISE_TIME_CONSTANT_S)
        gain = (count > 0) * np.minimum(step_s / window_s, 1)
        current = self.noise_ratio[columns]
        updated = current + gain * (np.minimum(mean, 3 * current) - current)
        self.noise_ratio[columns] = np.clip(updated, *NOISE_LIMITS)

    def statuses(self) -> list[CameraStatus]:
        """Return the state of each camera, in order of their names."""
        return [
            CameraStatus(
                name,
                self._frames[name],
                self.rejection(name) or self._inconsistent[c],
                float(self.checks.reprojection_px[c]),
                self._stamps_s[name],
                0.0 if name in self._twice else self._clocks.offset_s(name),
            )
            for name, c in sorted(self._columns.items())
        ]
