"""People of several cameras at common instants: the input of the extrinsic calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, StructOfArrays
from metrabs_ros.camera import Camera
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.people import UNKNOWN_ID
from metrabs_ros.placement.person_scale import UNSCALED_STD
from metrabs_ros.skeletons.conventions import Skeleton

BODY_PARTS = (
    ('nose', ''),
    *((part, side) for part in ('shoulder', 'elbow', 'wrist') for side in ('left', 'right')),
    *((part, side) for part in ('hip', 'knee', 'ankle') for side in ('left', 'right')),
)
"""The joints that are used, which all common skeletons have; cameras may differ in skeletons."""
ANKLES = (11, 12)
SHOULDERS = (1, 2)
"""Indices into `BODY_PARTS`."""
MIN_STEP_S, MAX_STEP_S = 1 / 30, 0.1
USUAL_INSTANTS, MAX_INSTANTS = 600, 3000
"""Number of instants of recordings of up to a minute, and of long recordings."""
MAX_GAP_S = 0.25
"""Maximum time between two detections of a person that are interpolated."""
MAX_SCALE_STD = 0.5
MIN_JOINTS = 6


class CalibrationError(ValueError):
    """The cameras cannot be calibrated; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class CameraTracks(StructOfArrays):
    """
    M people of one camera, interpolated to common instants, with the joints `BODY_PARTS`.

    Parameters
    ----------
    camera_name, camera
        The camera, with its given pose.
    instants
        [M], index of the instant.
    tracks
        [M], index of the camera's track, from 0 on.
    rays
        [M, 13, 3], unit vectors towards the joints, camera frame.
    confidence
        [M, 13], 0 for joints that are not seen.
    poses_mm
        [M, 13, 3], monocular 3D poses, camera frame; NaN for joints without.
    scale_std
        [M], standard deviation of the monocular distance, as a fraction of it.
    """

    camera_name: str
    camera: Camera
    instants: NDArray[np.intp]
    tracks: NDArray[np.intp]
    rays: FloatArray
    confidence: FloatArray
    poses_mm: FloatArray
    scale_std: FloatArray

    def __len__(self) -> int:
        """Return the number of people of all instants."""
        return len(self.instants)


def camera_tracks(frames: Iterable[CameraPeople]) -> tuple[list[CameraTracks], float]:
    """
    Return the tracks of each camera at common instants, by name, and the step in seconds.

    Linear interpolation between the detections before and after an instant makes cameras with
    different rates and stamps comparable.  People without track id are ignored.

    Parameters
    ----------
    frames
        Frames of all cameras, in the order of their stamps for each camera.

    Raises
    ------
    CalibrationError
        If there are less than two cameras with people.
    """
    by_camera: dict[str, list[CameraPeople]] = {}
    for frame in frames:
        if np.isfinite(frame.stamp_s):
            by_camera.setdefault(frame.camera_name, []).append(frame)
    if len(by_camera) < 2:
        raise CalibrationError(
            f'there are people of {len(by_camera)} cameras ({", ".join(by_camera) or "none"}); '
            'the calibration needs at least two cameras that see the same people'
        )
    stamps_s = [frame.stamp_s for own in by_camera.values() for frame in own if len(frame)]
    if not stamps_s:
        raise CalibrationError(
            'no camera sees any people; record people who walk around in front of the cameras'
        )
    first_s, last_s = min(stamps_s), max(stamps_s)
    usual_s = np.clip((last_s - first_s) / USUAL_INSTANTS, MIN_STEP_S, MAX_STEP_S)
    step_s = float(max(usual_s, (last_s - first_s) / MAX_INSTANTS))
    count = int((last_s - first_s) / step_s) + 1
    instants_s = first_s + step_s * np.arange(count)
    return [_interpolated(by_camera[name], instants_s) for name in sorted(by_camera)], step_s


def body_joints(skeleton: Skeleton) -> NDArray[np.intp]:
    """Return the index of each of `BODY_PARTS` in a skeleton, [13]; -1 if it lacks the joint."""
    found = [skeleton.part(part, side) for part, side in BODY_PARTS]
    return np.array([own[0] if len(own) else -1 for own in found], np.intp)


def _interpolated(frames: list[CameraPeople], instants_s: FloatArray) -> CameraTracks:
    """Return the tracks of one camera at some instants."""
    frames = sorted(frames, key=lambda frame: frame.stamp_s)
    name, camera = frames[0].camera_name, frames[0].camera
    stamps_s = np.concatenate([np.full(len(own), own.stamp_s) for own in frames])
    ids = np.concatenate([own.track_ids for own in frames])
    points_px, confidence, poses_mm, scale_std = (
        np.concatenate(arrays) for arrays in zip(*map(_body_of, frames))
    )
    order = np.lexsort((stamps_s, ids))
    order = order[ids[order] != UNKNOWN_ID]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(ids[order]) != 0) | (np.diff(stamps_s[order]) > 0)
    order = order[is_new]
    # For each instant and track, the rows before and after it.
    tracks, instants, before, after = [], [], [], []
    for k, track in enumerate(np.unique(ids[order])):
        rows = order[ids[order] == track]
        own_s = stamps_s[rows]
        right = np.searchsorted(own_s, instants_s, side='left')
        left = np.maximum(right - 1, 0)
        right = np.minimum(right, len(rows) - 1)
        # At the stamp of a detection itself there is nothing to interpolate.
        left = np.where(own_s[right] == instants_s, right, left)
        inside = (own_s[left] <= instants_s) & (own_s[right] >= instants_s)
        inside &= own_s[right] - own_s[left] <= MAX_GAP_S
        which = np.flatnonzero(inside)
        tracks.append(np.full(len(which), k))
        instants.append(which)
        before.append(rows[left[which]])
        after.append(rows[right[which]])
    if not tracks:
        tracks = instants = before = after = [np.zeros(0, np.intp)]
    first, last = np.concatenate(before), np.concatenate(after)
    at = np.concatenate(instants)
    span_s = stamps_s[last] - stamps_s[first]
    share = (instants_s[at] - stamps_s[first]) / np.where(span_s > 0, span_s, 1)

    def between(values: FloatArray) -> FloatArray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return (1 - weight) * values[first] + weight * values[last]

    rays = camera.unproject(between(points_px))
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    seen = np.minimum(confidence[first], confidence[last])
    result = CameraTracks(
        name,
        camera,
        at,
        np.concatenate(tracks),
        rays,
        np.where(np.isfinite(rays).all(axis=-1), seen, 0),
        between(poses_mm),
        np.maximum(scale_std[first], scale_std[last]),
    )
    return result.select((result.confidence > 0).sum(axis=1) >= MIN_JOINTS)


def _body_of(frame: CameraPeople) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return image points, confidence, poses in the camera frame, and deviations of scales."""
    joints = body_joints(frame.skeleton)
    has_joint = joints >= 0
    with np.errstate(invalid='ignore', over='ignore'):
        poses_mm = frame.camera.from_world(frame.poses3d_mm[:, joints])
    poses_mm = np.where(
        has_joint[:, None] & np.isfinite(poses_mm).all(axis=-1, keepdims=True), poses_mm, np.nan
    )
    # The error along the line of sight dominates the sum over the axes.
    std_mm = np.sqrt((frame.axis_std_mm[:, joints] ** 2).sum(axis=-1))
    share = std_mm / np.maximum(np.linalg.norm(poses_mm, axis=-1), 1.0)
    usable = np.isfinite(share) & (share > 0)
    scale_std = np.full(len(frame), UNSCALED_STD)
    for i in np.flatnonzero(usable.any(axis=1)):
        scale_std[i] = min(np.median(share[i, usable[i]]), MAX_SCALE_STD)
    return (
        frame.points2d_px[:, joints],
        np.where(has_joint, frame.joint_confidence[:, joints], 0),
        poses_mm,
        scale_std,
    )
