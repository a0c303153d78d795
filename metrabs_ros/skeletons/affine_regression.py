"""
Affine regression between joints, from the mean squared differences of their coordinates.

Weights that sum to one make a combination independent of the origin, so that the best ones depend
on the differences between joints only, as in ordinary kriging.  The mean over the three axes does
not change if poses are rotated.  Mean squared differences can be estimated from poses with missing
joints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

CHUNK = 4096
"""Number of poses that are processed together."""
DEFAULT_RIDGE_MM = 2.0
"""Default standard deviation of noise in the coordinates of source joints."""
MIN_COMMON_POSES = 3
"""Minimum number of poses in which two joints occur together."""
SINGULAR = 1e-9
MAX_ITERATIONS = 40
MAX_COMPARED_POSES = 5000
CONVERGED_MM, STALLED = 0.3, 0.995
"""Change of the second moments at which an iteration ends, and its ratio to the previous one."""
MAX_PATTERNS, MAX_SAMPLES = 1000, 20_000
"""Maximum number of sets of missing joints, and of poses, in the estimation of second moments."""


@dataclasses.dataclass(frozen=True)
class SquaredDifferences:
    """
    Mean squared differences between the coordinates of J joints.

    Parameters
    ----------
    mean_mm2
        [J, J], per axis.
    counts
        [J, J], number of poses that have both joints.
    """

    mean_mm2: FloatArray
    counts: NDArray[np.int64]

    @classmethod
    def of_poses(cls, poses_mm: FloatArray) -> SquaredDifferences:
        """Return the differences in poses [N, J, 3]; missing joints are NaN."""
        joints = poses_mm.shape[1]
        sums, counts = np.zeros((joints, joints)), np.zeros((joints, joints))
        for start in range(0, len(poses_mm), CHUNK):
            part = poses_mm[start : start + CHUNK].astype(np.float64)
            known: BoolArray = np.all(np.isfinite(part), axis=-1)
            own = known.astype(np.float64)
            # Any reference point gives the same differences; a near one gives the least rounding.
            number = np.maximum(own.sum(axis=1), 1)[:, None, None]
            filled = np.where(known[..., None], part, 0)
            filled = (filled - filled.sum(axis=1, keepdims=True) / number) * own[..., None]
            flat = np.moveaxis(filled, -1, 0).reshape(-1, joints)
            squares = (filled**2).sum(axis=-1).T @ own
            sums += squares + squares.T - 2 * flat.T @ flat
            counts += own.T @ own
        mean_mm2 = np.maximum(sums, 0) / np.maximum(3 * counts, 1)
        np.fill_diagonal(mean_mm2, 0)
        return cls(mean_mm2, counts.astype(np.int64))

    def symmetrised(self, mirror: NDArray[np.intp]) -> SquaredDifferences:
        """Return the mean of these differences and of those in mirrored poses."""
        both = np.ix_(mirror, mirror)
        counts = self.counts + self.counts[both]
        sums = self.mean_mm2 * self.counts + (self.mean_mm2 * self.counts)[both]
        return SquaredDifferences(sums / np.maximum(counts, 1), counts)

    def covariance(self) -> FloatArray:
        """
        Return the second moments [J, J] relative to the mean of all joints.

        Differences in which joints were missing may not fit together; the nearest moments are
        returned that do.
        """
        centred = _centred(-0.5 * self.mean_mm2)
        values, vectors = np.linalg.eigh((centred + centred.T) / 2)
        moments: FloatArray = (vectors * np.maximum(values, 0)) @ vectors.T
        return moments


def affine_weights(
    covariance: FloatArray,
    sources: NDArray[np.intp],
    targets: NDArray[np.intp],
    ridge_mm: float = DEFAULT_RIDGE_MM,
) -> FloatArray:
    """
    Return the weights [T, S] of S source joints that predict T target joints best.

    Parameters
    ----------
    covariance
        [J, J], second moments of all joints.
    sources, targets
        [S] and [T], indices of joints.
    ridge_mm
        Standard deviation of noise of the source joints in new poses; larger values give weights
        that are smaller and more equal.
    """
    count = len(sources)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = covariance[np.ix_(sources, sources)] + ridge_mm**2 * np.eye(count)
    system[count, count] = 0
    right = np.ones((count + 1, len(targets)))
    right[:count] = covariance[np.ix_(sources, targets)]
    weights = np.linalg.solve(system, right)[:count].T
    # The system is badly conditioned because its last row has another unit.
    normalised: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def sparse_affine_weights(
    covariance: FloatArray,
    sources: NDArray[np.intp],
    target: int,
    max_joints: int,
    ridge_mm: float = DEFAULT_RIDGE_MM,
) -> FloatArray:
    """
    Return the weights [S] of few source joints that predict a target joint.

    Joints are added one at a time: the first is the one nearest to the target, and each further
    one reduces the squared error most (orthogonal least squares).

    Parameters
    ----------
    covariance, sources, target, ridge_mm
        See `affine_weights`.
    max_joints
        Maximum number of weights that are not 0.
    """
    columns = np.append(sources, target)
    moments = covariance[np.ix_(columns, columns)]
    noise = ridge_mm**2
    diagonal = np.diag(moments)
    nearest = int(np.argmin(diagonal[:-1] - 2 * moments[-1, :-1]))
    # Relative to the nearest joint, no constraint on the sum of the weights is left.  The noise of
    # that joint is in all differences.
    differences = (
        moments - moments[nearest] - moments[:, [nearest]] + moments[nearest, nearest] + noise
    )
    inner = differences[:-1, :-1] + noise * np.eye(len(sources))
    right = differences[:-1, -1]
    scale = max(float(np.abs(inner).max()), 1e-12)
    chosen: list[int] = []
    solution = np.zeros(0)
    for _ in range(min(max_joints - 1, len(sources) - 1)):
        residual, left = right.copy(), np.diag(inner).copy()
        if chosen:
            across = inner[np.ix_(chosen, chosen)]
            projected = np.linalg.solve(across, inner[chosen])
            residual -= projected.T @ right[chosen]
            left -= (inner[chosen] * projected).sum(axis=0)
        left[[nearest, *chosen]] = 0
        gains = np.where(left > SINGULAR * scale, residual**2 / np.maximum(left, 1e-300), 0)
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        chosen.append(best)
        solution = np.linalg.solve(inner[np.ix_(chosen, chosen)], right[chosen])
    weights = np.zeros(len(sources))
    weights[chosen] = solution
    weights[nearest] = 1 - solution.sum()
    return weights


def joint_covariance(
    poses_mm: FloatArray,
    mirror: NDArray[np.intp],
    advance: Callable[[int], None] = lambda steps: None,
) -> FloatArray:
    """
    Return the second moments [J, J] of joints, the same for both sides of the body.

    If joints are missing, they are estimated by expectation maximisation, as moments from the
    joints that each two poses have in common do not fit together well enough.

    Parameters
    ----------
    poses_mm
        [N, J, 3]; missing joints are NaN.
    mirror
        [J], counterparts of the joints.
    advance
        Called with 1 after each iteration; there are at most `MAX_ITERATIONS`.
    """
    covariance = SquaredDifferences.of_poses(poses_mm).symmetrised(mirror).covariance()
    known: BoolArray = np.all(np.isfinite(poses_mm), axis=-1)
    if known.all():
        return covariance
    patterns = len(_rows_by_pattern(known))
    count = MAX_SAMPLES if patterns <= MAX_PATTERNS else MAX_PATTERNS
    sample_mm = poses_mm[:: -(-len(poses_mm) // count)].astype(np.float64)
    error_mm = np.inf
    for _ in range(MAX_ITERATIONS):
        filled_mm, doubt_mm2 = _expectation(sample_mm, covariance)
        moments = SquaredDifferences.of_poses(filled_mm).symmetrised(mirror).covariance()
        doubt_mm2 = (doubt_mm2 + doubt_mm2[np.ix_(mirror, mirror)]) / 2
        updated = moments + _centred(doubt_mm2)
        # Twice the change of the differences of joints, which do not depend on the origin.
        previous_mm, error_mm = error_mm, np.sqrt(np.abs(updated - covariance).mean())
        covariance = updated
        advance(1)
        if error_mm < CONVERGED_MM or error_mm > previous_mm * STALLED:
            break
    return covariance


def fill_missing(poses_mm: FloatArray, covariance: FloatArray) -> FloatArray:
    """
    Return poses [N, J, 3] with missing joints, NaN, predicted from the others.

    Poses without any joint are filled with zeros.
    """
    return _expectation(poses_mm, covariance)[0]


def _expectation(poses_mm: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return poses [N, J, 3] with missing joints predicted, and the mean covariance of errors."""
    filled = poses_mm.copy()
    doubt_mm2 = np.zeros_like(covariance)
    known: BoolArray = np.all(np.isfinite(poses_mm), axis=-1)
    for rows in _rows_by_pattern(known):
        pattern = known[rows[0]]
        sources, targets = np.flatnonzero(pattern), np.flatnonzero(~pattern)
        if not len(sources):
            filled[rows] = 0
        elif len(targets):
            weights = affine_weights(covariance, sources, targets)
            filled[np.ix_(rows, targets)] = weights @ poses_mm[np.ix_(rows, sources)]
            # Of the targets minus their predictions.
            both = np.concatenate([targets, sources])
            errors = np.concatenate([np.eye(len(targets)), -weights], axis=1)
            own_mm2 = errors @ covariance[np.ix_(both, both)] @ errors.T
            doubt_mm2[np.ix_(targets, targets)] += own_mm2 * (len(rows) / len(poses_mm))
    return filled, doubt_mm2


def _rows_by_pattern(known: BoolArray) -> list[NDArray[np.intp]]:
    """Return the indices of the rows of each different row of a mask [N, J]."""
    # Much faster than numpy.unique along an axis.
    rows: dict[bytes, list[int]] = {}
    for i, packed in enumerate(np.packbits(known, axis=1)):
        rows.setdefault(packed.tobytes(), []).append(i)
    return [np.array(own, np.intp) for own in rows.values()]


def _centred(moments: FloatArray) -> FloatArray:
    """Return second moments [J, J] relative to the mean of all joints."""
    rows, columns = moments.mean(axis=0), moments.mean(axis=1)
    centred: FloatArray = moments - rows - columns[:, None] + moments.mean()
    return centred


def check_common_poses(
    differences: SquaredDifferences, names: tuple[str, ...], used: BoolArray | None = None
) -> None:
    """
    Check that each two joints occur in the same pose.

    Raises
    ------
    ValueError
        If two joints do not.
    """
    rare = differences.counts < MIN_COMMON_POSES
    if used is not None:
        rare &= used
    if rare.any():
        a, b = np.argwhere(rare)[0]
        raise ValueError(
            f"the joints '{names[a]}' and '{names[b]}' occur together in "
            f'{differences.counts[a, b]} poses; at least {MIN_COMMON_POSES} are needed'
        )


def most_common_pose(poses_mm: FloatArray) -> FloatArray:
    """Return a complete pose [J, 3] of poses [N, J, 3] that is similar to the others."""
    known = poses_mm[np.isfinite(poses_mm).all(axis=(1, 2))].astype(np.float64)
    if not len(known):
        known_joints = np.isfinite(poses_mm).all(axis=-1).sum(axis=1)
        return np.nan_to_num(poses_mm[known_joints.argmax()].astype(np.float64))
    known = known[:: -(-len(known) // MAX_COMPARED_POSES)]
    distances_mm = np.linalg.norm(known - known.mean(axis=1, keepdims=True), axis=-1)
    typical_mm = np.median(distances_mm, axis=0)
    pose_mm: FloatArray = known[np.abs(distances_mm - typical_mm).sum(axis=1).argmin()]
    return pose_mm
