"""
Merging of tracks that are the same person.

A person can have two tracks for a moment, for example after cameras saw it one by one, or a lost
track and a new one after no camera has seen it for a while.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray
from metrabs_ros.fusion.world_tracks import WorldTracks

GATE = 3.0
"""Gate of the distance between two tracks, in standard deviations."""
BASE_STD_MM = 40.0
"""Standard deviation of the distance between two tracks of a person without position errors."""
MAX_SHAPE_MM = 150.0
"""Maximum mean distance of the joints after moving one track to the other."""
MAX_DISTANCE_MM = 1500.0
SAME_PLACE_MM = 120.0
"""Closer tracks are one person even if one camera sees both: it has detected the person twice."""

MAX_WALK_MM_S = 2500.0
"""Maximum mean speed of people while no camera sees them."""
RETURN_MARGIN_MM = 500.0
"""Addition to the distance that they can walk."""
STATE = (
    *('position_mm', 'velocity_mm_s', 'joint_seen_s', 'joint_confidence'),
    *('position_mm2', 'covariance_mm2_s', 'velocity_mm2_s2'),
    *('shared_mm2', 'shared_covariance_mm2_s', 'shared_velocity_mm2_s2'),
)
"""Arrays of the store that belong to the motion of a track."""
SIZE = ('log_size', 'size_weight', 'size_spread2')
"""Arrays of what is known of the person's size."""
UNCERTAIN = 4.0
"""The state of the duplicate is taken if its variance is smaller by this factor."""


def find_duplicates(
    tracks: WorldTracks, may_merge: BoolArray, stamp_s: float
) -> list[tuple[int, int]]:
    """
    Return pairs of tracks of the same person: index of the one to keep, and of the duplicate.

    Parameters
    ----------
    tracks
        T tracks.
    may_merge
        [T], which tracks may be duplicates or have some.
    stamp_s
        The present time.
    """
    candidates = np.flatnonzero(may_merge)
    if len(candidates) < 2:
        return []
    middle_mm = tracks.position_mm[candidates].mean(axis=1)
    apart_mm = np.linalg.norm(middle_mm[:, None] - middle_mm, axis=-1)
    i, j = np.nonzero(np.triu(apart_mm < MAX_DISTANCE_MM, 1))
    if not len(i):
        return []
    i, j = candidates[i], candidates[j]
    between_mm = tracks.position_mm[i] - tracks.position_mm[j]
    offset_mm = between_mm.mean(axis=1)
    shape_mm = np.linalg.norm(between_mm - offset_mm[:, None], axis=-1).mean(axis=1)
    covariance = tracks.shared_mm2[i] + tracks.shared_mm2[j] + BASE_STD_MM**2 * np.eye(3)
    scaled = np.linalg.solve(covariance, offset_mm[..., None])[..., 0]
    now = tracks.camera_seen_s >= stamp_s
    seen_apart = (now[i] & now[j]).sum(axis=1)
    distance_mm = np.linalg.norm(offset_mm, axis=-1)
    same = ((offset_mm * scaled).sum(axis=-1) < GATE**2) & (shape_mm < MAX_SHAPE_MM)
    same &= (seen_apart == 0) | ((seen_apart == 1) & (distance_mm < SAME_PLACE_MM))
    pairs: list[tuple[int, int]] = []
    gone: set[int] = set()
    for k in np.flatnonzero(same)[np.argsort(distance_mm[same])].tolist():
        one, other = int(i[k]), int(j[k])
        if one not in gone and other not in gone:
            one_rank, other_rank = (_rank(tracks, t) for t in (one, other))
            kept, dropped = (one, other) if one_rank >= other_rank else (other, one)
            pairs.append((kept, dropped))
            gone |= {one, other}
    return pairs


def _rank(tracks: WorldTracks, index: int) -> tuple[float, float]:
    """Return which of two tracks is kept: the older one, or the one with more hits."""
    return -float(tracks.first_seen_s[index]), float(tracks.hits[index])


def merge(tracks: WorldTracks, pairs: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """Merge pairs of a track and its duplicate; return which of the T tracks remain."""
    remains = np.ones(len(tracks), bool)
    for kept, dropped in pairs:
        remains[dropped] = False
        better = UNCERTAIN * np.trace(tracks.shared_mm2[dropped]) < np.trace(
            tracks.shared_mm2[kept]
        )
        if better:
            for name in STATE:
                values = getattr(tracks, name)
                values[kept] = values[dropped]
        _take_better_size(tracks, kept, dropped)
        tracks.hits[kept] += tracks.hits[dropped]
        tracks.evidence[kept] = max(tracks.evidence[[kept, dropped]])
        tracks.last_seen_s[kept] = max(tracks.last_seen_s[[kept, dropped]])
        newer = tracks.camera_seen_s[dropped] > tracks.camera_seen_s[kept]
        for name in ('camera_seen_s', 'camera_ids', 'reprojection_px'):
            values = getattr(tracks, name)
            values[kept] = np.where(newer, values[dropped], values[kept])
    return remains


def find_returned(
    tracks: WorldTracks, is_new: BoolArray, is_lost: BoolArray, stamp_s: float
) -> list[tuple[int, int]]:
    """
    Return pairs of a lost track and a new one of the same person, nearest first.

    Parameters
    ----------
    tracks
        T tracks.
    is_new, is_lost
        [T], which tracks are compared.
    stamp_s
        The present time.
    """
    lost, new = np.flatnonzero(is_lost), np.flatnonzero(is_new)
    unseen_s = tracks.unseen_s(stamp_s)[lost]
    middle_mm, velocity_mm_s = tracks.position_mm.mean(axis=1), tracks.velocity_mm_s.mean(axis=1)
    # The predicted place is uncertain: people turn around.  They cannot walk arbitrarily far.
    last_mm = middle_mm[lost] - unseen_s[:, None] * velocity_mm_s[lost]
    walked_mm = np.linalg.norm(middle_mm[new] - last_mm[:, None], axis=-1)
    std_mm = np.sqrt(np.trace(tracks.shared_mm2[new], axis1=1, axis2=2))
    within = walked_mm < MAX_WALK_MM_S * unseen_s[:, None] + RETURN_MARGIN_MM + GATE * std_mm
    offset_mm = middle_mm[new] - middle_mm[lost][:, None]
    covariance = tracks.shared_mm2[lost][:, None] + tracks.shared_mm2[new]
    covariance = covariance + BASE_STD_MM**2 * np.eye(3)
    scaled = np.linalg.solve(covariance, offset_mm[..., None])[..., 0]
    squared = (offset_mm * scaled).sum(axis=-1)
    # A person cannot return before it is lost.
    within &= tracks.first_seen_s[new] > tracks.last_seen_s[lost][:, None]
    i, j = np.nonzero(within & (squared < GATE**2))
    pairs: list[tuple[int, int]] = []
    for k in np.argsort(squared[i, j], kind='stable').tolist():
        one, other = int(lost[i[k]]), int(new[j[k]])
        if all(one != a and other != b for a, b in pairs):
            pairs.append((one, other))
    return pairs


def hand_over(tracks: WorldTracks, pairs: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """Give new tracks the identity of lost ones; return which of the T tracks remain."""
    remains = np.ones(len(tracks), bool)
    for lost, new in pairs:
        remains[lost] = False
        tracks.ids[new] = tracks.ids[lost]
        tracks.first_seen_s[new] = tracks.first_seen_s[lost]
        tracks.hits[new] += tracks.hits[lost]
        _take_better_size(tracks, new, lost)
    return remains


def _take_better_size(tracks: WorldTracks, kept: int, dropped: int) -> None:
    if tracks.size_weight[dropped] > tracks.size_weight[kept]:
        for name in SIZE:
            values = getattr(tracks, name)
            values[kept] = values[dropped]
