"""Bodies of tracked people: joint angles and segment lengths, with memory of earlier frames."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays, norms
from metrabs_ros.kinematics.body_frames import BodyFrames, body_frames
from metrabs_ros.kinematics.human_model import HumanModel
from metrabs_ros.kinematics.joint_angles import ANGLE_COUNT, WAIST, LastAngles, joint_angles
from metrabs_ros.kinematics.landmarks import landmarks_of
from metrabs_ros.kinematics.postures import Posture, classify_postures
from metrabs_ros.kinematics.segment_lengths import SegmentLengths, measure_lengths
from metrabs_ros.people import People

KEPT_S = 1.0
"""Time for which people who are not published keep their angles and lengths."""
MAX_ABSENCES = 240
"""Number of frames for the same, because the stamps of some cameras are all equal."""


@dataclasses.dataclass(frozen=True)
class Bodies(StructOfArrays):
    """
    N people in one frame.

    Parameters
    ----------
    ids
        [N], track ids.
    landmarks_mm
        [N, 17, 3].
    known
        [N, 17], which landmarks are known.
    origins_mm, rotations
        [N, 3] and [N, 3, 3], frames at the hips: x forward, y left, z to the head.
    angles
        [N, 20], radians, in the order of the URDF.
    lengths_mm
        [N, 9], segment lengths.
    versions
        [N], number of the stable lengths; 0: the lengths are not stable yet.
    """

    ids: NDArray[np.int64]
    landmarks_mm: FloatArray
    known: BoolArray
    origins_mm: FloatArray
    rotations: FloatArray
    angles: FloatArray
    lengths_mm: FloatArray
    versions: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.ids)


def residuals_mm(bodies: Bodies, model: HumanModel) -> FloatArray:
    """
    Return the distances of the landmarks from those of the URDF, [N, 17]; NaN for unknown ones.

    They are due to the limits of the angles, to the differences of the lengths from those in this
    frame, and to motions that the model does not have, such as twists of the torso.

    Parameters
    ----------
    bodies
        N people, with the angles of their frame.
    model
        The human.
    """
    fitted_mm = model.landmarks_mm(bodies.angles, bodies.lengths_mm)
    fitted_mm = fitted_mm @ np.swapaxes(bodies.rotations, 1, 2) + bodies.origins_mm[:, None]
    return np.where(bodies.known, norms(fitted_mm - bodies.landmarks_mm), np.nan)


class BodyTracks:
    """
    Bodies of the people of one stream.

    Parameters
    ----------
    model
        The human.
    """

    def __init__(self, model: HumanModel) -> None:
        self._model = model
        self._ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self._angles: FloatArray = np.zeros((0, ANGLE_COUNT))
        self._seen_s: FloatArray = np.zeros(0)
        self._absences: NDArray[np.int64] = np.zeros(0, np.int64)
        self._solved_s: FloatArray = np.zeros(0)
        self._postures: NDArray[np.int64] = np.zeros(0, np.int64)
        self._lengths = SegmentLengths()

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids [M] of the people whose angles and lengths are kept."""
        return self._ids

    def update(self, people: People, up: FloatArray, stamp_s: float) -> Bodies:
        """
        Return the bodies of people, with the angles of their last frames.

        Parameters
        ----------
        people
            N people with different ids.
        up
            [3], up direction in their frame.
        stamp_s
            Stamp of the frame.
        """
        rows = self._rows_of(people.ids, stamp_s)
        landmarks_mm, known = landmarks_of(
            people.poses3d_mm, people.joint_confidence, people.skeleton
        )
        # Infinite for new people.
        step_s = np.maximum(stamp_s - self._seen_s[rows], 0.0)
        self._seen_s[rows] = stamp_s
        measured_mm, is_known = measure_lengths(landmarks_mm, known & people.seen[:, None])
        self._lengths.update(rows, measured_mm, is_known, people.estimated_statures_mm, step_s)
        frames = body_frames(landmarks_mm, known, up, self._angles[rows, WAIST], step_s)
        self._angles[rows, WAIST] = frames.waist
        return Bodies(
            people.ids,
            landmarks_mm,
            known,
            frames.origins_mm,
            frames.bodies,
            self._angles[rows],
            self._lengths.fixed_mm[rows],
            self._lengths.versions[rows],
        )

    def solve(self, bodies: Bodies) -> Bodies:
        """Return the bodies of the last `update` with the angles of this frame."""
        rows = self._indices_of(bodies.ids)
        frames = BodyFrames.of_bodies(bodies.origins_mm, bodies.rotations, bodies.angles[:, WAIST])
        # The stamps may have gone back a little.
        step_s = np.maximum(self._seen_s[rows] - self._solved_s[rows], 0.0)
        last = LastAngles(bodies.angles, step_s)
        angles = joint_angles(
            bodies.landmarks_mm, bodies.known, frames, bodies.lengths_mm, last, self._model
        )
        self._angles[rows], self._solved_s[rows] = angles, self._seen_s[rows]
        return dataclasses.replace(bodies, angles=angles)

    def postures(self, bodies: Bodies, up: FloatArray) -> NDArray[np.int64]:
        """
        Return the postures of the bodies of the last `update`, [N], values of `Posture`.

        Parameters
        ----------
        bodies
            N people.
        up
            [3], up direction in their frame.
        """
        rows = self._indices_of(bodies.ids)
        self._postures[rows] = classify_postures(
            bodies.landmarks_mm, bodies.known, up, self._postures[rows]
        )
        return self._postures[rows]

    def _rows_of(self, ids: NDArray[np.int64], stamp_s: float) -> NDArray[np.intp]:
        """Return the indices of people, who are added if they are new; delete expired ones."""
        age_s, is_present = stamp_s - self._seen_s, np.isin(self._ids, ids)
        self._absences = np.where(is_present, 0, self._absences + 1)
        kept = (np.abs(age_s) <= KEPT_S) & (self._absences <= MAX_ABSENCES)
        # Images may be further apart.
        kept |= is_present & (age_s > 0)
        if not kept.all():
            self._keep(kept)
        new = ids[~np.isin(ids, self._ids)]
        if len(new):
            self._ids = np.concatenate([self._ids, new])
            self._angles = np.pad(self._angles, ((0, len(new)), (0, 0)))
            never_s = np.full(len(new), -np.inf)
            self._seen_s = np.append(self._seen_s, never_s)
            self._absences = np.pad(self._absences, (0, len(new)))
            self._solved_s = np.append(self._solved_s, never_s)
            self._postures = np.append(self._postures, np.full(len(new), Posture.OTHER))
            self._lengths.add(len(new))
        return self._indices_of(ids)

    def _indices_of(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.nonzero(ids[:, None] == self._ids)[1]

    def _keep(self, which: BoolArray) -> None:
        self._ids, self._angles = self._ids[which], self._angles[which]
        self._seen_s, self._solved_s = self._seen_s[which], self._solved_s[which]
        self._postures, self._absences = self._postures[which], self._absences[which]
        self._lengths.keep(which)
