"""Association of tracks and detections by position: gating, costs and assignment."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, StructOfArrays

Indices = NDArray[np.intp]

BASE_STD_MM, STD_PER_DISTANCE = 50.0, 0.008
"""Standard deviation of the predicted position: a constant, and a fraction of the distance."""
INITIAL_DEPTH_STD_PER_DISTANCE = 0.18
"""Additional standard deviation along the line of sight; it decreases with the number of hits."""
UNSEEN_STD_MM_S, UNSEEN_STD_MM_S2 = 200.0, 1250.0
"""
Additional standard deviation per second without a detection, and per second squared.

The squared term allows for changes of direction.
"""
GATE = 3.0
"""Gating threshold, in standard deviations."""
SAME_BOX_IOU = 0.7
"""Minimum IoU of boxes that are taken to show the same person although the depths differ."""
AMBIGUOUS_DEPTH = 3.0
"""Factor of the gate along the line of sight if the boxes overlap by `SAME_BOX_IOU`."""
OVERLAP_WEIGHT = 4.0
"""Weight of 1 - IoU in the cost of a pair."""


@dataclasses.dataclass(frozen=True)
class Pairs(StructOfArrays):
    """
    K candidate pairs of a track and a detection.

    Parameters
    ----------
    track_indices, detection_indices
        [K].
    across, along
        [K], distance between prediction and detection across the line of sight and along it, in
        standard deviations.
    depth_scale
        [K], factor of the detection's distance from the camera that moves it into the gate; 1 if
        it is inside.
    """

    track_indices: Indices
    detection_indices: Indices
    across: FloatArray
    along: FloatArray
    depth_scale: FloatArray

    @property
    def costs(self) -> FloatArray:
        """Squared distances in standard deviations, [K]."""
        # Beyond the gate the depth is unreliable, so that larger errors cost no more.
        cost: FloatArray = self.across**2 + np.minimum(self.along, GATE) ** 2
        return cost

    @property
    def is_ambiguous(self) -> BoolArray:
        """Whether the track or the detection is part of another pair, [K]."""
        tracks, detections = self.track_indices, self.detection_indices
        return (np.bincount(tracks)[tracks] > 1) | (np.bincount(detections)[detections] > 1)

    @property
    def is_in_gate(self) -> BoolArray:
        """Whether the position alone is sufficient for the association, [K]."""
        return self.across**2 + self.along**2 < GATE**2


def position_std(
    distances_mm: FloatArray, noise_mm: FloatArray, unseen_s: FloatArray, hits: NDArray[Any]
) -> FloatArray:
    """
    Return the standard deviations of the innovation, across the line of sight and along it.

    Parameters
    ----------
    distances_mm
        [T], distance of each track from the camera.
    noise_mm
        [2, T], measurement noise across the line of sight and along it.
    unseen_s
        [T], time since the last detection.
    hits
        [T], number of detections.

    Returns
    -------
    [2, T], in millimetres.
    """
    std_mm = BASE_STD_MM + STD_PER_DISTANCE * distances_mm
    std_mm += UNSEEN_STD_MM_S * unseen_s + UNSEEN_STD_MM_S2 * unseen_s**2
    along_mm = std_mm + INITIAL_DEPTH_STD_PER_DISTANCE * distances_mm / (2 + hits)
    return np.stack([std_mm, along_mm]) + noise_mm


def gated_pairs(
    expected_mm: FloatArray, detected_mm: FloatArray, viewpoint_mm: FloatArray, std_mm: FloatArray
) -> Pairs:
    """
    Return the pairs inside the gate; along the line of sight it is `AMBIGUOUS_DEPTH` times wider.

    Parameters
    ----------
    expected_mm
        [T, 3], predicted positions of the tracks, world frame.
    detected_mm
        [N, 3], positions of the detections, world frame.
    viewpoint_mm
        [3], position of the camera, world frame.
    std_mm
        [2, T], from `position_std`.
    """
    expected_mm, detected_mm = expected_mm - viewpoint_mm, detected_mm - viewpoint_mm
    distance_mm = np.sqrt((expected_mm**2).sum(axis=-1, keepdims=True))
    sight = expected_mm / np.maximum(distance_mm, 1e-9)
    depth_mm = sight @ detected_mm.T
    across_mm2 = (detected_mm**2).sum(axis=-1) - depth_mm**2
    across = np.sqrt(np.maximum(across_mm2, 0)) / std_mm[0][:, None]
    along = np.abs(depth_mm - distance_mm) / std_mm[1][:, None]
    rows, columns = np.nonzero((across < GATE) & (along < AMBIGUOUS_DEPTH * GATE))
    across, along, depth_mm = across[rows, columns], along[rows, columns], depth_mm[rows, columns]
    expected_mm, margin_mm = distance_mm[rows, 0], GATE * std_mm[1][rows]
    gated_mm = np.clip(depth_mm, expected_mm - margin_mm, expected_mm + margin_mm)
    return Pairs(rows, columns, across, along, gated_mm / np.maximum(depth_mm, 1.0))


def assign_nearest_first(pairs: Pairs, costs: FloatArray) -> Pairs:
    """
    Assign each track to at most one detection and vice versa, greedily by increasing cost.

    Greedy assignment switched fewer identities than the optimal (Hungarian) assignment in most
    scenes of the tests: the minimum total cost gives up certain pairs in favour of uncertain ones.

    Parameters
    ----------
    pairs
        K candidate pairs.
    costs
        [K].

    Returns
    -------
    The assigned pairs.
    """
    is_ambiguous = pairs.is_ambiguous
    if not is_ambiguous.any():
        return pairs
    tracks, detections = set(), set()
    kept = np.flatnonzero(~is_ambiguous).tolist()
    candidates = np.flatnonzero(is_ambiguous)
    for i in candidates[np.argsort(costs[candidates], kind='stable')].tolist():
        track, detection = int(pairs.track_indices[i]), int(pairs.detection_indices[i])
        if track not in tracks and detection not in detections:
            tracks.add(track)
            detections.add(detection)
            kept.append(i)
    return pairs.select(np.array(kept, np.intp))
