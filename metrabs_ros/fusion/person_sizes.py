"""
Sizes of people, learned while several cameras see them.

A pose network assumes an average size, so that the distance of a small person is overestimated by
a factor that hardly changes.  Triangulation does not depend on the size: the mean ratio of both
distances corrects those of a camera that sees the person alone later.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.fusion.estimation import Views
from metrabs_ros.fusion.world_tracks import WorldTracks
from metrabs_ros.placement.person_scale import POSE_STD, POSE_TIME_S, UNSCALED_STD

MIN_SIGHT_SINE = 0.25
"""Views from which the distance is triangulated differ by at least this sine of an angle."""
MIN_SCALE_STD = UNSCALED_STD / np.sqrt(2)
"""Poses with less are scaled by a floor, a depth image or a stature already."""
PRIOR_WEIGHT, MAX_WEIGHT = 2.0, 30.0
"""
Weight of `POSE_STD` for the spread of ratios, and limit of the weight of earlier ratios, in
independent ones.
"""


def with_learned_sizes(views: Views, tracks: WorldTracks) -> Views:
    """
    Return the views of T tracks with monocular distances for the sizes of the people.

    Distances of people whom several cameras see are not changed: they would count more than the
    network's errors in a pose allow, which triangulation does not have.
    """
    spread2 = _spread2(tracks)
    size2 = np.maximum(views.scale_std**2 - POSE_STD**2, 0)
    # Of the size alone: the variance of what is learned, relative to the sum with that before.
    learned2 = spread2 / np.maximum(tracks.size_weight, 1e-6)
    is_used = (views.scale_std > MIN_SCALE_STD) & ~_are_crossed(views)
    share = np.where(is_used, size2 / (size2 + learned2), 0)
    return dataclasses.replace(
        views,
        distances_mm=views.distances_mm * np.exp(share * tracks.log_size)[..., None],
        scale_std=np.where(share > 0, np.sqrt((1 - share) * size2 + spread2), views.scale_std),
    )


def learn_sizes(tracks: WorldTracks, views: Views) -> None:
    """
    Note the ratios of triangulated and monocular distances.

    Parameters
    ----------
    tracks
        T tracks at their estimated positions; the sizes are changed.
    views
        Their detections in V cameras, with the monocular distances of the network.
    """
    known = (views.scale_std > MIN_SCALE_STD) & _are_crossed(views)
    if not known.any():
        return
    usable = views.seen & (views.distances_mm > 0)
    from_origin_mm = np.moveaxis(tracks.position_mm, -1, 0)[:, None] - views.origins_mm[..., None]
    true_mm = (usable * np.sqrt((from_origin_mm**2).sum(axis=0))).sum(axis=-1)
    known &= true_mm > 0
    ratio = true_mm / np.maximum((usable * views.distances_mm).sum(axis=-1), 1.0)
    weight = known * np.clip(views.since_s / POSE_TIME_S, 0, 1)
    total = weight.sum(axis=0)
    if not total.any():
        return
    log_ratio = np.log(np.where(known, ratio, 1.0))
    before = np.minimum(tracks.size_weight, MAX_WEIGHT)
    tracks.size_spread2 *= before / np.maximum(tracks.size_weight, 1e-6)
    tracks.size_weight = before + total
    offset = log_ratio - tracks.log_size
    tracks.log_size = tracks.log_size + (weight * offset).sum(axis=0) / np.maximum(
        tracks.size_weight, 1e-6
    )
    tracks.size_spread2 += (weight * offset * (log_ratio - tracks.log_size)).sum(axis=0)


def _spread2(tracks: WorldTracks) -> FloatArray:
    """Return the variances of single ratios about their mean, [T]."""
    total = PRIOR_WEIGHT * POSE_STD**2 + np.maximum(tracks.size_spread2, 0)
    return total / (PRIOR_WEIGHT + tracks.size_weight)


def _are_crossed(views: Views) -> BoolArray:
    """Return which views [V, T] have another one that looks from a different direction."""
    sight = (views.seen * views.directions).sum(axis=-1)
    sight /= np.maximum(np.sqrt((sight**2).sum(axis=0)), 1e-9)
    cosine = np.einsum('kvt,kwt->vwt', sight, sight)
    has_view: BoolArray = np.asarray(views.seen.any(axis=-1))
    crossed = has_view[:, None] & has_view & (cosine**2 < 1 - MIN_SIGHT_SINE**2)
    return np.asarray(crossed.any(axis=1))
