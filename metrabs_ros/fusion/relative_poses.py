"""
Relative poses of cameras without known extrinsics, from the people that both see.

The root-relative 3D poses of the same person differ by the same rotation between two cameras at
any time.  Each pair of tracks yields one hypothesis: the rotation that aligns the poses of all
common instants (Procrustes), and the translation that aligns the positions.  The correct one also
explains most of the other pairs of tracks, while tracks of different people imply rotations that
fit nothing else, not even the same pair of tracks at other instants.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.camera_tracks import MIN_JOINTS, CameraTracks
from metrabs_ros.placement.uncertainty import LATERAL_STD, STATURE_MM

POSE_TOLERANCE = 0.5
"""Difference of two poses, as a share of their size, at which an instant counts one quarter."""
POSITION_TOLERANCE = 3.0
"""The same for the difference of positions, in standard deviations."""
LATERAL_STD_MM = 2 * LATERAL_STD * STATURE_MM
"""Standard deviation of the position of the whole body across the line of sight."""
MIN_COMMON_INSTANTS = 8
MAX_HYPOTHESES = 60
ROUNDS = 5
DIFFERENT_ANGLE = np.radians(30)
MAX_OTHER_SCORE = 0.6
"""The best hypothesis is rejected if another direction has a larger share of its score."""
MIN_SHARE = 0.2
"""Minimum share of the instants with people in both views at which the positions of a person
agree: among many pairs of tracks of different people, a few short ones agree by chance."""
MIN_TRACK_SCORE = 0.3
"""Tracks belong together if the mean score of their common instants is at least this."""


@dataclasses.dataclass(frozen=True)
class CommonInstants:
    """
    N pairs of people of two cameras at the same instants.

    Parameters
    ----------
    rows
        [N, 2], indices of the people in the tracks of either camera.
    instants
        [N], index of the instant.
    track_pairs
        [N], index of the pair of tracks.
    correlations
        [N, 3, 3], sum over joints of the outer products of both poses, in the second camera and
        in the first, relative to their roots and sizes.
    roots_mm
        [N, 2, 3], centres of the poses, each in the frame of its camera.
    scale_std
        [N, 2], standard deviations of the distances.
    """

    rows: NDArray[np.intp]
    instants: NDArray[np.intp]
    track_pairs: NDArray[np.intp]
    correlations: FloatArray
    roots_mm: FloatArray
    scale_std: FloatArray

    def __len__(self) -> int:
        """Return the number of pairs of people."""
        return len(self.rows)


@dataclasses.dataclass(frozen=True)
class RelativePose:
    """
    Pose of a camera relative to another one.

    Parameters
    ----------
    rotation, translation_mm
        [3, 3] and [3], from the first camera to the second.
    scores
        [N], from 0 to 1, how well each pair of people of `CommonInstants` agrees; 0 for pairs of
        tracks that do not agree as a whole.
    """

    rotation: FloatArray
    translation_mm: FloatArray
    scores: FloatArray


def common_instants(one: CameraTracks, other: CameraTracks) -> CommonInstants:
    """Return all pairs of people that two cameras see at the same instants."""
    rows = joined(one.instants, other.instants)
    a, b = rows.T
    weights = np.sqrt(one.confidence[a] * other.confidence[b])
    usable = np.isfinite(one.poses_mm[a]).all(axis=-1) & np.isfinite(other.poses_mm[b]).all(
        axis=-1
    )
    weights = np.where(usable, weights, 0)
    keep = (weights > 0).sum(axis=1) >= MIN_JOINTS
    rows, weights = rows[keep], weights[keep]
    a, b = rows.T
    weights = weights / weights.sum(axis=1, keepdims=True)
    centred, roots_mm = zip(
        *(_centred(own, weights) for own in (one.poses_mm[a], other.poses_mm[b]))
    )
    correlations = np.einsum('nj,nji,njk->nik', weights, centred[1], centred[0])
    pairs = one.tracks[a] * (other.tracks.max(initial=0) + 1) + other.tracks[b]
    _, track_pairs = np.unique(pairs, return_inverse=True)
    return CommonInstants(
        rows,
        one.instants[a],
        track_pairs,
        correlations,
        np.stack(roots_mm, axis=1),
        np.stack([one.scale_std[a], other.scale_std[b]], axis=1),
    )


def joined(one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the indices [N, 2] of all pairs of equal values of two arrays."""
    order = np.argsort(other, kind='stable')
    first = np.searchsorted(other[order], one, side='left')
    counts = np.searchsorted(other[order], one, side='right') - first
    a = np.repeat(np.arange(len(one)), counts)
    offsets = np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
    b = order[np.repeat(first, counts) + offsets]
    return np.stack([a, b], axis=1).astype(np.intp)


def _centred(poses_mm: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return poses [N, J, 3] relative to their centres and sizes, and the centres [N, 3]."""
    poses_mm = np.where(weights[..., None] > 0, poses_mm, 0)
    roots_mm = np.einsum('nj,nji->ni', weights, poses_mm)
    relative_mm = np.where(weights[..., None] > 0, poses_mm - roots_mm[:, None], 0)
    size_mm = np.sqrt(np.einsum('nj,nji->n', weights, relative_mm**2))
    return relative_mm / np.maximum(size_mm, 1.0)[:, None, None], roots_mm


def estimate_relative_pose(common: CommonInstants) -> RelativePose | None:
    """Return the pose of the second camera that most of the people agree with; None without."""
    hypotheses = _hypotheses(common)
    if hypotheses is None:
        return None
    rotations, translations_mm = hypotheses
    scores = np.array(
        [
            _of_tracks(common, _scores(common, *pose)).sum()
            for pose in zip(rotations, translations_mm)
        ]
    )
    best = int(np.argmax(scores))
    cosines = np.einsum('hij,ij->h', rotations, rotations[best]) / 2 - 0.5
    others = cosines < np.cos(DIFFERENT_ANGLE)
    # Different people walk alike for a while, in any direction; the same people in one only.
    if scores[others].max(initial=0.0) > MAX_OTHER_SCORE * scores[best]:
        return None
    pose = refine_relative_pose(common, rotations[best], translations_mm[best])
    agreed = len(np.unique(common.instants[pose.scores > MIN_TRACK_SCORE]))
    share = agreed / len(np.unique(common.instants))
    return pose if share >= MIN_SHARE else None


def refine_relative_pose(
    common: CommonInstants, rotation: FloatArray, translation_mm: FloatArray
) -> RelativePose:
    """Return the pose near a given one that best fits the people which agree with it."""
    everything = np.zeros(len(common), np.intp)
    scores = _scores(common, rotation, translation_mm)
    for _ in range(ROUNDS):
        if not scores.sum() > 0:
            break
        rotation = _rotations(common, everything, scores)[0]
        translation_mm = _translations(common, everything, rotation[None], scores)[0]
        scores = _scores(common, rotation, translation_mm)
    return RelativePose(rotation, translation_mm, _of_tracks(common, scores))


def score_relative_pose(
    common: CommonInstants, rotation: FloatArray, translation_mm: FloatArray
) -> RelativePose:
    """Return a known pose with the scores of the people."""
    scores = _scores(common, rotation, translation_mm)
    return RelativePose(rotation, translation_mm, _of_tracks(common, scores))


def _of_tracks(common: CommonInstants, scores: FloatArray) -> FloatArray:
    """Return the scores [N], with 0 for pairs of tracks whose mean score is too low."""
    if not len(scores):
        return scores
    means = np.bincount(common.track_pairs, scores) / np.bincount(common.track_pairs)
    return np.where(means[common.track_pairs] >= MIN_TRACK_SCORE, scores, 0)


def _hypotheses(common: CommonInstants) -> tuple[FloatArray, FloatArray] | None:
    """Return the rotations [H, 3, 3] and translations [H, 3] of the longest pairs of tracks."""
    lengths = np.bincount(common.track_pairs)
    longest = np.argsort(-lengths, kind='stable')[:MAX_HYPOTHESES]
    longest = longest[lengths[longest] >= MIN_COMMON_INSTANTS]
    if not len(longest):
        return None
    index = np.full(len(lengths), -1)
    index[longest] = np.arange(len(longest))
    groups = index[common.track_pairs]
    which = np.flatnonzero(groups >= 0)
    part = CommonInstants(**{name: value[which] for name, value in vars(common).items()})
    groups = groups[which]
    weights: FloatArray = np.ones(len(part))
    for _ in range(ROUNDS):
        rotations = _rotations(part, groups, weights)
        weights = _pose_weights(part, rotations[groups])
    position_weights = weights
    for _ in range(ROUNDS):
        translations_mm = _translations(part, groups, rotations, position_weights)
        position_weights = weights * _position_weights(
            part, rotations[groups], translations_mm[groups]
        )
    return rotations, translations_mm


def _rotations(
    common: CommonInstants, groups: NDArray[np.intp], weights: FloatArray
) -> FloatArray:
    """Return for each group of instants the rotation that aligns the poses, [G, 3, 3]."""
    sums = np.zeros((groups.max() + 1, 3, 3))
    np.add.at(sums, groups, weights[:, None, None] * common.correlations)
    left, _, right = np.linalg.svd(sums)
    signs = np.ones((len(sums), 3))
    signs[:, 2] = np.sign(np.linalg.det(left @ right))
    return (left * signs[:, None]) @ right


def _translations(
    common: CommonInstants,
    groups: NDArray[np.intp],
    rotations: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Return for each group of instants the translation that aligns the positions, [G, 3]."""
    difference_mm, information = _differences(common, rotations[groups])
    information = weights[:, None, None] * information
    total = np.zeros((len(rotations), 3, 3))
    np.add.at(total, groups, information)
    weighted = np.zeros((len(rotations), 3))
    np.add.at(weighted, groups, np.einsum('nij,nj->ni', information, difference_mm))
    # A standard deviation of 100 m keeps the equations regular.
    total += 1e-10 * np.eye(3)
    return np.linalg.solve(total, weighted[..., None])[..., 0]


def _differences(common: CommonInstants, rotations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """
    Return the differences of positions after rotations [N, 3, 3], and their inverse covariances.

    The distances are uncertain, the directions are not.

    Returns
    -------
    [N, 3] and [N, 3, 3]
    """
    one_mm = np.einsum('nij,nj->ni', rotations, common.roots_mm[:, 0])
    other_mm = common.roots_mm[:, 1]
    covariance = 2 * LATERAL_STD_MM**2 * np.eye(3) + sum(
        np.einsum('n,ni,nj->nij', common.scale_std[:, k] ** 2, own_mm, own_mm)
        for k, own_mm in enumerate((one_mm, other_mm))
    )
    return other_mm - one_mm, np.linalg.inv(covariance)


def _pose_weights(common: CommonInstants, rotations: FloatArray) -> FloatArray:
    agreement = np.einsum('nij,nij->n', rotations, common.correlations)
    squares = np.maximum(2 - 2 * agreement, 0) / POSE_TOLERANCE**2
    return 1 / (1 + squares) ** 2


def _position_weights(
    common: CommonInstants, rotations: FloatArray, translations_mm: FloatArray
) -> FloatArray:
    difference_mm, information = _differences(common, rotations)
    difference_mm = difference_mm - translations_mm
    squares = np.einsum('ni,nij,nj->n', difference_mm, information, difference_mm)
    return 1 / (1 + squares / POSITION_TOLERANCE**2) ** 2


def _scores(
    common: CommonInstants, rotation: FloatArray, translation_mm: FloatArray
) -> FloatArray:
    rotations = np.broadcast_to(rotation, (len(common), 3, 3))
    return _pose_weights(common, rotations) * _position_weights(common, rotations, translation_mm)
