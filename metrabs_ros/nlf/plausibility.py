"""Plausibility of NLF's poses by uncertainty and box, and suppression of duplicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.duplicates import keep_first
from metrabs_ros.people import MM_PER_M
from metrabs_ros.plausibility import align_scale
from metrabs_ros.pose_estimator import Poses

MAX_UNCERTAINTY_M = 0.25
MIN_CERTAIN_SHARE = 1 / 3
"""Minimum share of points with an uncertainty below `MAX_UNCERTAINTY_M`."""
MIN_BOX_COVERAGE = 0.25
SIMILARITY_THRESHOLD = 0.4
COMPARED_SHARE = 5
"""The similarity depends on one fifth of the points, those with the largest distances."""
ZERO_SIMILARITY_MM = 300.0


def plausible_poses(poses: Poses) -> NDArray[np.intp]:
    """
    Return the indices of people with plausible poses, best first.

    A pose is plausible if it is finite, a third of its points are certain, and it covers a quarter
    of its box.  Of similar poses, that with the highest ratio of detection score to mean
    uncertainty is kept.

    Parameters
    ----------
    poses
        N people with `Poses.joint_std_mm`.
    """
    poses_mm, uncertainties_m = poses.poses3d_mm.mean(axis=1), poses.joint_std_mm / MM_PER_M
    certain = (uncertainties_m < MAX_UNCERTAINTY_M).mean(axis=1) > MIN_CERTAIN_SHARE
    covers = box_coverage(poses.poses2d_px.mean(axis=1), poses.boxes_px) > MIN_BOX_COVERAGE
    finite = np.isfinite(poses.poses3d_mm).all(axis=(1, 2, 3))
    plausible = np.flatnonzero(finite & certain & covers)
    priority = poses.scores[plausible] / uncertainties_m[plausible].mean(axis=1)
    order = np.argsort(-priority, kind='stable')
    kept = keep_first(pose_similarity(poses_mm[plausible]) > SIMILARITY_THRESHOLD, order)
    return plausible[order[kept[order]]]


def box_coverage(poses_px: FloatArray, boxes_px: FloatArray) -> FloatArray:
    """Return the share of each box [N, 4] that the bounding box of the points [N, P, 2] covers."""
    low, high = boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:4]
    start = np.maximum(poses_px.min(axis=1), low)
    end = np.minimum(poses_px.max(axis=1), high)
    covered_px2 = np.clip(end - start, 0, None).prod(axis=1)
    share: FloatArray = covered_px2 / np.maximum(boxes_px[:, 2:4].prod(axis=1), 1e-12)
    return share


def pose_similarity(poses_mm: FloatArray) -> FloatArray:
    """
    Return the similarity of each pair of poses, [N, N], from 0 to 1.

    It depends on the fifth of the points with the largest distances after scale alignment.

    Parameters
    ----------
    poses_mm
        [N, P, 3], camera frame.
    """
    count, points = poses_mm.shape[:2]
    compared = max(1, points // COMPARED_SHARE)
    similarity = np.empty((count, count))
    # Row by row, because the distances of all pairs need much memory.
    for i, pose_mm in enumerate(poses_mm):
        pairs_mm = align_scale(np.stack([np.broadcast_to(pose_mm, poses_mm.shape), poses_mm], 1))
        apart_mm = np.linalg.norm(pairs_mm[:, 0] - pairs_mm[:, 1], axis=-1)
        largest_mm = np.sort(apart_mm, axis=-1)[:, points - compared :]
        similarity[i] = np.clip(1 - largest_mm / ZERO_SIMILARITY_MM, 0, None).mean(axis=-1)
    return similarity
