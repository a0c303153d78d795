"""Re-identification: finds lost tracks that continue as new tracks outside their gate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.tracking.association import Indices, assign_nearest_first, gated_pairs

REIDENTIFICATION_HITS = 2
"""Number of hits after which a new track is compared with lost tracks."""
REIDENTIFICATION_STD_MM = 200.0
"""Additional standard deviation of the predicted position, in millimetres."""


def reidentification_candidates(
    hits: NDArray[Any], misses: NDArray[Any], min_hits: int
) -> tuple[Indices, Indices]:
    """
    Return the indices of lost tracks [L], and of new tracks [N] that may continue them.

    Parameters
    ----------
    hits, misses
        [T], number of detections, and of frames since the last one.
    min_hits
        Number of hits that confirm a track.
    """
    lost = np.flatnonzero((hits > min_hits) & (misses > 0))
    is_new = (hits == min(REIDENTIFICATION_HITS, min_hits)) & (misses == 0)
    return lost, np.flatnonzero(is_new)


def match_lost_tracks(
    lost_mm: FloatArray, new_mm: FloatArray, viewpoint_mm: FloatArray, std_mm: FloatArray
) -> tuple[Indices, Indices]:
    """
    Return pairs of a lost and a new track inside the gate, nearest first.

    Parameters
    ----------
    lost_mm
        [L, 3], predicted positions of lost tracks, world frame.
    new_mm
        [N, 3], positions of new tracks, world frame.
    viewpoint_mm
        [3], position of the camera, world frame.
    std_mm
        [2, L], from `position_std`, of the lost tracks.

    Returns
    -------
    Indices of the lost and of the new tracks, [K] each.
    """
    pairs = gated_pairs(lost_mm, new_mm, viewpoint_mm, std_mm + REIDENTIFICATION_STD_MM)
    pairs = pairs.select(pairs.is_in_gate)
    pairs = assign_nearest_first(pairs, pairs.costs)
    return pairs.track_indices, pairs.detection_indices
