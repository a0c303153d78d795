"""
People whom several cameras see, as observations for the bundle adjustment.

Tracks of different cameras that agree are one person.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.adjustment_residuals import Observations
from metrabs_ros.fusion.camera_graph import Pair, join_groups, relative_pose, root_of
from metrabs_ros.fusion.camera_tracks import BODY_PARTS, CalibrationError, CameraTracks
from metrabs_ros.fusion.rays import POINT_STD_PX
from metrabs_ros.fusion.relative_poses import (
    MIN_TRACK_SCORE,
    CommonInstants,
    score_relative_pose,
)
from metrabs_ros.placement.uncertainty import LATERAL_STD, LOW_CONFIDENCE_FACTOR, STATURE_MM

MAX_OBSERVED = 1000
"""Maximum number of people, over all instants, in the adjustment."""


def people_of_tracks(
    tracks: Sequence[CameraTracks],
    commons: Mapping[Pair, CommonInstants],
    rotations: FloatArray,
    translations_mm: FloatArray,
) -> list[NDArray[np.intp]]:
    """
    Return for each camera the person of each of its tracks; -1 for tracks that match no other one.

    Pairs of tracks are joined in the order of their scores, unless a person would be at two
    places in one image.
    """
    counts = [int(own.tracks.max(initial=-1)) + 1 for own in tracks]
    starts = np.concatenate([[0], np.cumsum(counts)])
    candidates = []
    for (a, b), common in commons.items():
        pose = score_relative_pose(common, *relative_pose(rotations, translations_mm, a, b))
        size = np.bincount(common.track_pairs)
        total = np.bincount(common.track_pairs, pose.scores)
        first = np.unique(common.track_pairs, return_index=True)[1]
        rows = common.rows[first]
        for k in np.flatnonzero(total >= MIN_TRACK_SCORE * size):
            one = starts[a] + tracks[a].tracks[rows[k, 0]]
            other = starts[b] + tracks[b].tracks[rows[k, 1]]
            candidates.append((float(total[k]), int(one), int(other)))
    instants = [
        {c: set(own.instants[own.tracks == k].tolist())}
        for c, (own, count) in enumerate(zip(tracks, counts))
        for k in range(count)
    ]
    parents = list(range(starts[-1]))
    for _, one, other in sorted(candidates, reverse=True):
        a, b = root_of(parents, one), root_of(parents, other)
        if a == b or any(
            instants[a][c] & instants[b][c] for c in instants[a].keys() & instants[b].keys()
        ):
            continue
        join_groups(parents, a, b)
        instants[a] = {
            c: instants[a].get(c, set()) | instants[b].get(c, set())
            for c in instants[a].keys() | instants[b].keys()
        }
    roots = np.array([root_of(parents, i) for i in range(starts[-1])], np.intp)
    shared = np.array([len(instants[root]) > 1 for root in roots], bool)
    people = np.full(len(roots), -1)
    people[shared] = np.unique(roots[shared], return_inverse=True)[1]
    return [people[start:end] for start, end in itertools.pairwise(starts)]


def shared_observations(
    tracks: Sequence[CameraTracks], people: Sequence[NDArray[np.intp]]
) -> tuple[Observations, float]:
    """Return the people that several cameras see, and by how much they were thinned out."""
    cameras, joints = len(tracks), len(BODY_PARTS)
    span = 1 + max(int(own.instants.max(initial=0)) for own in tracks)
    keys = [
        own_people[own.tracks] * span + own.instants for own, own_people in zip(tracks, people)
    ]
    kept = [np.flatnonzero(own_keys >= 0) for own_keys in keys]
    unique = np.unique(np.concatenate([k[rows] for k, rows in zip(keys, kept)]))
    table = np.full((len(unique), cameras), -1)
    for c, (own_keys, rows) in enumerate(zip(keys, kept)):
        table[np.searchsorted(unique, own_keys[rows]), c] = rows
    several = (table >= 0).sum(axis=1) > 1
    unique, table = unique[several], table[several]
    if not len(unique):
        raise CalibrationError(
            'no person is seen by two cameras at the same time; record people who walk through '
            'the views of several cameras'
        )
    which = _thinned_out(table >= 0)
    stride = len(unique) / len(which)
    unique, table = unique[which], table[which]
    shape = (len(unique), cameras, joints)
    rays = np.tile([0.0, 0.0, 1.0], (*shape, 1))
    seen, std = np.zeros(shape, bool), np.ones(shape)
    distances_mm, scale_std = np.zeros(shape), np.ones(shape[:2])
    for c, own in enumerate(tracks):
        q = np.flatnonzero(table[:, c] >= 0)
        rows = table[q, c]
        own_mm = np.linalg.norm(own.poses_mm[rows], axis=-1)
        whole_mm = np.where(np.isfinite(own_mm).any(axis=1), _median_of_rows(own_mm), 4000.0)
        focal_px = np.sqrt(np.prod(np.diag(own.camera.intrinsic_matrix)[:2]))
        doubt = 1 + (LOW_CONFIDENCE_FACTOR - 1) * (1 - own.confidence[rows])
        body_std = LATERAL_STD * STATURE_MM * doubt / whole_mm[:, None]
        rays[q, c], seen[q, c] = own.rays[rows], own.confidence[rows] > 0
        std[q, c] = np.hypot(body_std, POINT_STD_PX / focal_px)
        distances_mm[q, c] = np.nan_to_num(own_mm)
        scale_std[q, c] = own.scale_std[rows]
    person, instants = unique // span, unique % span
    _, person = np.unique(person, return_inverse=True)
    person_scale_std = np.array(
        [
            np.median(scale_std[person == k][table[person == k] >= 0])
            for k in range(person.max() + 1)
        ]
    )
    return Observations(
        rays, seen, std, distances_mm, scale_std, person, instants, person_scale_std
    ), stride


def _median_of_rows(values: FloatArray) -> FloatArray:
    """Return the medians of rows without NaN; 0 for rows of NaN."""
    known = np.where(np.isfinite(values).any(axis=1, keepdims=True), values, 0)
    return np.nanmedian(known, axis=1)


def _thinned_out(views: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return at most about `MAX_OBSERVED` rows; rare combinations of cameras are kept."""
    if len(views) <= MAX_OBSERVED:
        return np.arange(len(views))
    _, kinds, counts = np.unique(views, axis=0, return_inverse=True, return_counts=True)
    # The largest number per kind that does not exceed the total.
    low, high = 1, len(views)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if np.minimum(counts, middle).sum() <= MAX_OBSERVED else (low, middle)
        )
    chosen = []
    for kind, count in enumerate(counts):
        rows = np.flatnonzero(kinds.ravel() == kind)
        chosen.append(rows[np.linspace(0, count - 1, min(count, low)).astype(np.intp)])
    return np.sort(np.concatenate(chosen))
