"""Which cameras see the same people, and their poses along a tree of such pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.camera_tracks import CalibrationError, CameraTracks
from metrabs_ros.fusion.relative_poses import MIN_TRACK_SCORE, RelativePose

MIN_OVERLAP_S = 1.0
"""Cameras are connected if they see the same people for at least this time in total."""
Pair = tuple[int, int]


def shared_times_s(poses: Mapping[Pair, RelativePose], step_s: float) -> dict[Pair, float]:
    """Return for how long the cameras of each pair see the same people."""
    return {
        pair: float(step_s * (pose.scores > MIN_TRACK_SCORE).sum()) for pair, pose in poses.items()
    }


def connected_cameras(
    tracks: Sequence[CameraTracks], overlaps_s: Mapping[Pair, float]
) -> list[int]:
    """Return the indices of the largest group of connected cameras, in their order."""
    parents = list(range(len(tracks)))
    for (a, b), overlap_s in overlaps_s.items():
        if overlap_s >= MIN_OVERLAP_S:
            join_groups(parents, a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(tracks)):
        groups.setdefault(root_of(parents, i), []).append(i)
    largest = max(groups.values(), key=len)
    if len(largest) < 2:
        longest_s = max(overlaps_s.values(), default=0.0)
        raise CalibrationError(
            f'no two cameras see the same people for {MIN_OVERLAP_S:g} s (at most '
            f'{longest_s:.1f} s); record people who walk through the views of several cameras, '
            'and check that the clocks of the cameras agree'
        )
    return largest


def chained_poses(
    tracks: Sequence[CameraTracks],
    poses: Mapping[Pair, RelativePose],
    step_s: float,
) -> tuple[list[int], FloatArray, FloatArray]:
    """Return the connected cameras and their poses relative to the first of them."""
    overlaps_s = shared_times_s(poses, step_s)
    order = connected_cameras(tracks, overlaps_s)
    known: dict[int, tuple[FloatArray, FloatArray]] = {order[0]: (np.eye(3), np.zeros(3))}
    while len(known) < len(order):
        # The maximum spanning tree.
        a, b = max(
            (pair for pair in overlaps_s if (pair[0] in known) != (pair[1] in known)),
            key=overlaps_s.__getitem__,
        )
        rotation, translation_mm = poses[a, b].rotation, poses[a, b].translation_mm
        if a not in known:
            a, b = b, a
            rotation, translation_mm = rotation.T, -rotation.T @ translation_mm
        base_rotation, base_mm = known[a]
        known[b] = rotation @ base_rotation, rotation @ base_mm + translation_mm
    rotations, translations_mm = zip(*(known[i] for i in order))
    return order, np.stack(rotations), np.stack(translations_mm)


def reasons_left_out(
    tracks: Sequence[CameraTracks],
    order: Sequence[int],
    poses: Mapping[Pair, RelativePose],
    step_s: float,
) -> dict[str, str]:
    """Return why the cameras that are not connected are left out, by name."""
    overlaps_s = shared_times_s(poses, step_s)
    reasons = {}
    for i, own in enumerate(tracks):
        if i not in order:
            longest_s = max(overlaps_s.get((min(i, k), max(i, k)), 0.0) for k in order)
            reasons[own.camera_name] = (
                f'it sees the same people as another camera for {longest_s:.1f} s; at least '
                f'{MIN_OVERLAP_S:g} s are needed'
                if len(own)
                else 'it sees no people with track ids'
            )
    return reasons


def root_of(parents: list[int], i: int) -> int:
    """Return the representative of the group that an element belongs to."""
    while parents[i] != i:
        i = parents[i]
    return i


def join_groups(parents: list[int], a: int, b: int) -> None:
    """Join the groups of two elements."""
    parents[root_of(parents, b)] = root_of(parents, a)


def relative_pose(
    rotations: FloatArray, translations_mm: FloatArray, a: int, b: int
) -> tuple[FloatArray, FloatArray]:
    """Return rotation and translation from one camera to another."""
    rotation = rotations[b] @ rotations[a].T
    return rotation, translations_mm[b] - rotation @ translations_mm[a]


def camera_positions(rotations: FloatArray, translations_mm: FloatArray) -> FloatArray:
    """Return the positions [C, 3] of cameras in the world."""
    return -np.einsum('cji,cj->ci', rotations, translations_mm)
