"""Store of tracks: arrays with the state of each tracked person."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.people import People, in_view
from metrabs_ros.placement.person_scale import PersonScales
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.tracking.association import Indices
from metrabs_ros.tracking.bone_lengths import BoneLengths
from metrabs_ros.tracking.detection_history import DetectionHistory
from metrabs_ros.tracking.joint_filter import JointMotion

MAX_ID = 2**31 - 1
"""Maximum track id: ids are signed 32-bit integers in messages."""
UNSEEN_JOINT_STD_MM_S = 500.0
"""Growth of the joints' standard deviations without detections, in millimetres per second."""


@dataclasses.dataclass(frozen=True)
class TrackerInput:
    """
    Detections of one frame, and the camera.

    Parameters
    ----------
    detections
        N people, camera frame.
    positions_mm
        [N, J, 3], their joints, world frame.
    stamp_s
        Stamp of the frame.
    camera
        The camera and its pose in the world.
    image_shape
        Height and width of the image.
    viewpoint_mm
        [3], position of the camera, world frame.
    """

    detections: People
    positions_mm: FloatArray
    stamp_s: float
    camera: Camera
    image_shape: tuple[int, ...]
    viewpoint_mm: FloatArray


@dataclasses.dataclass
class Tracks:
    """
    T tracks of people with the same skeleton.

    All arrays, filters and histories have the same order of tracks.

    Parameters
    ----------
    skeleton
        Skeleton with J joints.
    motion, bones, history, scales
        Joint filters, bone lengths, detection histories and person scales.  The poses of the
        store are not scaled.
    ids
        [T], unique, from 1 to `MAX_ID`.
    hits
        [T], number of frames that detected the track.
    misses
        [T], number of frames since the last detection.
    first_seen_s, last_seen_s
        [T], stamps of the first and of the last detection.
    centres_mm
        [T, 3], mean of the joints at the last detection, in the camera frame of that time.
    boxes_px, confidence, joint_confidence, joint_std_mm
        [T, 4], [T], [T, J], [T, J], as last detected.
    """

    skeleton: Skeleton
    motion: JointMotion
    bones: BoneLengths
    history: DetectionHistory
    scales: PersonScales
    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    misses: NDArray[np.int64]
    first_seen_s: FloatArray
    last_seen_s: FloatArray
    centres_mm: FloatArray
    boxes_px: FloatArray
    confidence: FloatArray
    joint_confidence: FloatArray
    joint_std_mm: FloatArray

    @classmethod
    def empty(cls, skeleton: Skeleton, smoothing: float) -> Tracks:
        """Return a store without tracks."""
        people = People.empty(skeleton)
        return cls(
            skeleton=skeleton,
            motion=JointMotion(skeleton, smoothing),
            bones=BoneLengths(skeleton),
            history=DetectionHistory.initial(0, 0.0),
            scales=PersonScales(),
            **_columns(people, people.ids, 0.0),
        )

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.ids)

    @property
    def seen(self) -> BoolArray:
        """Whether the last frame detected the track, [T]."""
        return self.misses == 0

    def add(self, frame: TrackerInput, new: Indices, ids: NDArray[np.int64]) -> None:
        """
        Append tracks for new people.

        Parameters
        ----------
        frame
            The frame.
        new
            [K], indices of the detections that start tracks.
        ids
            [K], their ids.
        """
        people = frame.detections.select(new)
        for name, values in _columns(people, ids, frame.stamp_s).items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        new_history = DetectionHistory.initial(len(ids), frame.stamp_s)
        self.history = DetectionHistory.concatenate([self.history, new_history])
        self.motion.add(frame.positions_mm[new], people.joint_std_mm, frame.viewpoint_mm)
        self.bones.add(len(ids))
        self.scales.add(len(ids))

    def keep(self, which: NDArray[Any]) -> None:
        """Keep the tracks at an index array or mask, in its order."""
        if which.dtype == bool and which.all():
            return
        for name, values in vars(self).items():
            if isinstance(values, np.ndarray):
                setattr(self, name, values[which])
        self.history = self.history.select(which)
        self.motion.keep(which)
        self.bones.keep(which)
        self.scales.keep(which)

    def correct(self, frame: TrackerInput, matches: NDArray[np.int64]) -> None:
        """
        Correct the tracks with their detections, and count hits and misses.

        Parameters
        ----------
        frame
            The frame.
        matches
            [T], index of each track's detection; -1 for none.
        """
        seen = matches >= 0
        rows, columns = np.flatnonzero(seen), matches[seen]
        people = frame.detections
        for name in ('boxes_px', 'confidence', 'joint_confidence', 'joint_std_mm'):
            getattr(self, name)[rows] = getattr(people, name)[columns]
        self.centres_mm[rows] = mean_of_joints(people.poses3d_mm[columns])
        self.hits += seen
        self.misses = np.where(seen, 0, self.misses + 1)
        self.last_seen_s[rows] = frame.stamp_s
        measured_mm = self.motion.positions_mm
        measured_mm[rows] = frame.positions_mm[columns]
        self.motion.correct(measured_mm, self.joint_std_mm, seen, frame.viewpoint_mm)

    def merge(self, lost: Indices, new: Indices) -> NDArray[np.intp]:
        """
        Continue lost tracks as new tracks of the same people.

        The new track keeps its state, and takes the id, the counts and the index of the lost one.

        Parameters
        ----------
        lost, new
            [K], indices of the tracks.

        Returns
        -------
        [T - K], former indices of the remaining tracks.
        """
        self.ids[new], self.first_seen_s[new] = self.ids[lost], self.first_seen_s[lost]
        self.hits[new] += self.hits[lost]
        self.history.merge(lost, new)
        self.scales.merge(lost, new)
        order = np.arange(len(self))
        order[lost] = new
        order = np.delete(order, new)
        self.keep(order)
        return order

    def people(
        self, poses_mm: FloatArray, stamp_s: float, camera: Camera, image_shape: tuple[int, ...]
    ) -> People:
        """
        Return the tracked people with given poses, camera frame.

        They share arrays with the store, so that callers outside `Tracker` need a copy.

        Parameters
        ----------
        poses_mm
            [T, J, 3], world frame.
        stamp_s
            Stamp of the frame.
        camera
            The camera and its pose in the world.
        image_shape
            Height and width of the image.
        """
        unseen_s = stamp_s - self.last_seen_s
        boxes_px = self.boxes_px.copy()
        moving = np.flatnonzero(unseen_s > 0)
        # Poses that overflow are removed later.
        with np.errstate(over='ignore', invalid='ignore'):
            poses_mm = camera.from_world(poses_mm)
            poses_px = camera.project(poses_mm)
            if len(moving):
                boxes_px[moving] = moved_boxes(
                    self.boxes_px[moving],
                    self.centres_mm[moving],
                    mean_of_joints(poses_mm[moving]),
                    camera,
                    image_shape,
                )
        return People(
            skeleton=self.skeleton,
            boxes_px=boxes_px,
            confidence=self.confidence,
            poses3d_mm=poses_mm,
            poses2d_px=poses_px,
            joint_confidence=self.joint_confidence,
            in_view=in_view(poses_mm, poses_px, image_shape),
            ids=self.ids,
            joint_std_mm=self.joint_std_mm + UNSEEN_JOINT_STD_MM_S * unseen_s[:, None],
            velocities_mm_s=self.motion.velocities_mm_s @ camera.extrinsic_matrix[:3, :3].T,
            ages_s=stamp_s - self.first_seen_s,
            seen=self.seen,
        )


def unused_ids(next_id: int, count: int, used: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    Return ids for new tracks; they continue at 1 after `MAX_ID`.

    Parameters
    ----------
    next_id
        First candidate.
    count
        Number of ids.
    used
        Ids of existing tracks.
    """
    candidates = next_id - 1 + np.arange(count + len(used))
    ids: NDArray[np.int64] = candidates % MAX_ID + 1
    return ids[~np.isin(ids, used)][:count]


def mean_of_joints(poses: FloatArray) -> FloatArray:
    """Return the mean [N, C] of each person's joints [N, J, C]."""
    joints = poses.shape[1]
    # Several times faster than NumPy's mean along an inner axis.
    mean: FloatArray = np.full(joints, 1 / joints) @ poses
    return mean


def moved_boxes(
    boxes_px: FloatArray,
    previous_mm: FloatArray,
    centres_mm: FloatArray,
    camera: Camera,
    image_shape: tuple[int, ...],
) -> FloatArray:
    """
    Return the boxes of people that moved, shifted and scaled with them.

    Parameters
    ----------
    boxes_px
        [K, 4], boxes before the movement: left, top, width, height.
    previous_mm, centres_mm
        [K, 3], means of the joints before and after the movement, camera frame.
    camera
        The camera; only its lens is used.
    image_shape
        Height and width of the image, to which the boxes are clipped.

    Returns
    -------
    [K, 4], in pixels.
    """
    shift_px = camera.project(centres_mm) - camera.project(previous_mm)
    scale = previous_mm[:, 2:] / np.maximum(centres_mm[:, 2:], 1.0)
    half_px = boxes_px[:, 2:] / 2
    middle_px = boxes_px[:, :2] + half_px + shift_px
    half_px = np.clip(scale, 0.5, 2.0) * half_px
    limit_px = np.array(image_shape[1::-1], np.float64)
    start_px = np.clip(middle_px - half_px, 0, limit_px)
    return np.concatenate([start_px, np.clip(middle_px + half_px, 0, limit_px) - start_px], axis=1)


def _columns(people: People, ids: NDArray[np.int64], stamp_s: float) -> dict[str, Any]:
    """Return the arrays of `Tracks` for tracks that start with detected people."""
    return {
        'ids': ids,
        'hits': np.ones(len(people), np.int64),
        'misses': np.zeros(len(people), np.int64),
        'first_seen_s': np.full(len(people), stamp_s),
        'last_seen_s': np.full(len(people), stamp_s),
        'centres_mm': mean_of_joints(people.poses3d_mm),
        'boxes_px': people.boxes_px,
        'confidence': people.confidence,
        'joint_confidence': people.joint_confidence,
        'joint_std_mm': people.joint_std_mm,
    }
