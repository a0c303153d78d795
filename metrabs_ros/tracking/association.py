"""Who of those found in a frame is who of those known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray

Indices = NDArray[np.intp]

STD_MM, STD_OF_DISTANCE = 50.0, 0.008
"""How far from where they are expected people may be found, beside the noise: a deviation."""
FIRST_ALONG_OF_DISTANCE = 0.18
"""By how much more along the line of sight as long as their noise is not known."""
UNSEEN_STD_MM_S, UNSEEN_STD_MM_S2 = 200.0, 1250.0
"""By how much more for the time that they were not seen, and for its square: they may turn."""
GATE = 3.0
"""From so many standard deviations on it is somebody else."""
SAME_BOX_IOU = 0.7
AMBIGUOUS_DEPTH = 3.0
"""How much wider the gate is along the line of sight where the boxes are the same person's."""
OVERLAP_WEIGHT = 4.0


@dataclasses.dataclass(frozen=True)
class Pairs:
    """
    K pairs of somebody known and somebody found who may be the same.

    Parameters
    ----------
    known, found
        [K], indices.
    across, along
        [K], how far they are apart, across the line of sight and along it, in deviations.
    nearing
        [K], by what the distance of those found is to be multiplied for it to be within the gate.
    """

    known: Indices
    found: Indices
    across: FloatArray
    along: FloatArray
    nearing: FloatArray

    def select(self, which: NDArray[Any]) -> Pairs:
        """Return the pairs at an index array or mask."""
        return Pairs(**{name: array[which] for name, array in vars(self).items()})

    @property
    def costs(self) -> FloatArray:
        """What it costs to take them for the same by their places, [K]."""
        # Beyond the gate depth says no more than that it is in doubt.
        cost: FloatArray = self.across**2 + np.minimum(self.along, GATE) ** 2
        return cost

    @property
    def contested(self) -> NDArray[np.bool_]:
        """Whether either of a pair has others to be paired with, [K]."""
        return (np.bincount(self.known)[self.known] > 1) | (
            np.bincount(self.found)[self.found] > 1
        )

    @property
    def near(self) -> NDArray[np.bool_]:
        """Whether they are so near that nothing else need be known, [K]."""
        return self.across**2 + self.along**2 < GATE**2


def position_std(
    distances_mm: FloatArray, noise_mm: FloatArray, unseen_s: FloatArray, hits: NDArray[Any]
) -> FloatArray:
    """
    Return how far from where they are expected people may be found, [2, T], across and along.

    Parameters
    ----------
    distances_mm
        [T], from the camera.
    noise_mm
        [2, T], of their joints, across and along the line of sight.
    unseen_s
        [T], how long ago they were seen.
    hits
        [T], how often they were.
    """
    std_mm = STD_MM + STD_OF_DISTANCE * distances_mm
    std_mm += UNSEEN_STD_MM_S * unseen_s + UNSEEN_STD_MM_S2 * unseen_s**2
    along_mm = std_mm + FIRST_ALONG_OF_DISTANCE * distances_mm / (2 + hits)
    return np.stack([std_mm, along_mm]) + noise_mm


def gated_pairs(
    expected_mm: FloatArray, found_mm: FloatArray, viewpoint_mm: FloatArray, std_mm: FloatArray
) -> Pairs:
    """
    Return those pairs that may be the same person by their places.

    Parameters
    ----------
    expected_mm
        [T, 3], where those known should be by now.
    found_mm
        [N, 3], where somebody is.
    viewpoint_mm
        [3], where the camera is.
    std_mm
        [2, T], from `position_std`.
    """
    expected_mm, found_mm = expected_mm - viewpoint_mm, found_mm - viewpoint_mm
    distance_mm = np.sqrt((expected_mm**2).sum(axis=-1, keepdims=True))
    sight = expected_mm / np.maximum(distance_mm, 1e-9)
    depth_mm = sight @ found_mm.T
    squares = (found_mm**2).sum(axis=-1) - depth_mm**2
    across = np.sqrt(np.maximum(squares, 0)) / std_mm[0][:, None]
    along = np.abs(depth_mm - distance_mm) / std_mm[1][:, None]
    known, found = np.nonzero((across < GATE) & (along < AMBIGUOUS_DEPTH * GATE))
    across, along, depth_mm = across[known, found], along[known, found], depth_mm[known, found]
    expected_mm, margin_mm = distance_mm[known, 0], GATE * std_mm[1][known]
    credible_mm = np.clip(depth_mm, expected_mm - margin_mm, expected_mm + margin_mm)
    return Pairs(known, found, across, along, credible_mm / np.maximum(depth_mm, 1.0))


def assign_nearest_first(pairs: Pairs, costs: FloatArray) -> Pairs:
    """
    Return each of the known and each of those found at most once, the cheapest pairs first.

    The least sum of all costs is no better: it breaks pairs that are sure to spare others that
    are in doubt, and switched more identities in most scenes of the tests.
    """
    contested = pairs.contested
    if not contested.any():
        return pairs
    known, found = set(), set()
    kept = np.flatnonzero(~contested).tolist()
    rivals_at = np.flatnonzero(contested)
    for i in rivals_at[np.argsort(costs[rivals_at], kind='stable')].tolist():
        pair = int(pairs.known[i]), int(pairs.found[i])
        if pair[0] not in known and pair[1] not in found:
            known.add(pair[0])
            found.add(pair[1])
            kept.append(i)
    return pairs.select(np.array(kept, np.intp))


def box_overlap(one_px: FloatArray, other_px: FloatArray) -> FloatArray:
    """Return the intersection over union, [K], of boxes [K, 4]: left, top, width, height."""
    low = np.maximum(one_px[:, :2], other_px[:, :2])
    high = np.minimum(one_px[:, :2] + one_px[:, 2:4], other_px[:, :2] + other_px[:, 2:4])
    shared = np.maximum(high - low, 0).prod(axis=1)
    together = one_px[:, 2:4].prod(axis=1) + other_px[:, 2:4].prod(axis=1) - shared
    return shared / np.maximum(together, 1e-9)
