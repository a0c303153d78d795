"""Custom joints from examples: sparse affine combinations of near joints, cross-validated."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.affine_regression import SquaredDifferences, sparse_affine_weights
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.skeletons.definition_file import MAX_EDGES, as_names
from metrabs_ros.skeletons.definitions import SkeletonDefinition
from metrabs_ros.skeletons.pose_samples import PoseSamples, pairs_of, read_arrays, samples_of

NEAR_JOINTS = 15
"""Number of joints nearest to a custom joint that are candidates for its combination."""
JOINT_COUNTS = (1, 2, 3, 4, 6, 8)
"""Candidate numbers of joints in a combination."""
RIDGES_MM = (2.0, 6.0, 20.0)
"""Candidate standard deviations of noise; larger ones give smaller weights."""
TOLERANCE = 1.05
"""The combination of fewest joints is used whose error is less than this ratio above the best."""
ONE_SIDED_RATIO = 0.5
"""A joint without counterpart is on one side of the body if weights that are not the same on both
sides have an error below this ratio."""
FOLDS = 5
MIN_FRAMES = 2
FEW_FRAMES, FEW_POSTURES = 20, 10
"""Numbers of frames and of different postures below which a warning is given."""
SIMILAR_MM = 40.0
"""Postures are similar if the distances between joints differ by less, root mean square."""
MAX_COMPARED_FRAMES, MAX_COMPARED_JOINTS = 2000, 24
MAX_WARNED_MM = 40.0
"""Error above which a custom joint is probably not a combination of joints."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """
    Positions of a model's joints and of T custom joints in the same N frames.

    Parameters
    ----------
    model
        The joints of the model.
    custom
        The custom joints.
    edges
        Bones between the custom joints, as pairs of indices.
    """

    model: PoseSamples
    custom: PoseSamples
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Raise a ValueError if the numbers of frames differ or are too small."""
        counts = len(self.model.poses_mm), len(self.custom.poses_mm)
        if counts[0] != counts[1]:
            raise ValueError(
                f'there are {counts[0]} frames of the model and {counts[1]} of the custom joints; '
                'both must be of the same frames'
            )
        if counts[0] < MIN_FRAMES:
            raise ValueError(f'there are {counts[0]} frames; at least {MIN_FRAMES} are needed')


@dataclasses.dataclass(frozen=True)
class CustomJoints:
    """
    Result of a fit.

    Parameters
    ----------
    definition
        The skeleton of the custom joints.
    errors_mm
        [T], mean distances in frames that were left out.
    warnings
        Reasons to doubt the result.
    """

    definition: SkeletonDefinition
    errors_mm: FloatArray
    warnings: tuple[str, ...]


def read_examples(file: pathlib.Path) -> Examples:
    """
    Read examples from a .npz file.

    Its arrays are ``poses3d`` [N, J, 3] and ``custom3d`` [N, T, 3] in millimetres in the same
    frame with NaN for missing joints, ``joint_names`` [J], ``custom_names`` [T], and optionally
    ``mirror_pairs``, ``custom_mirror_pairs`` and ``custom_edges``, pairs of indices or names.

    Raises
    ------
    ValueError
        If the file cannot be read or is not valid; the message is one sentence.
    """
    arrays = read_arrays(
        file,
        {'poses3d', 'joint_names', 'custom3d', 'custom_names'},
        {'mirror_pairs', 'custom_mirror_pairs', 'custom_edges'},
    )
    model = samples_of(file, arrays, 'poses3d', 'joint_names', 'mirror_pairs')
    custom = samples_of(file, arrays, 'custom3d', 'custom_names', 'custom_mirror_pairs')
    try:
        edges = pairs_of(arrays.get('custom_edges'), custom.joint_names, 'custom_edges') or []
        if len(edges) > MAX_EDGES:
            raise ValueError(f'custom_edges has {len(edges)} edges, more than {MAX_EDGES}')
        return Examples(model, custom, tuple(edges))
    except ValueError as error:
        raise ValueError(f'{shown(file)} is not valid: {error}') from error


def fit_custom_joints(examples: Examples, name: str, source: str) -> CustomJoints:
    """
    Fit a skeleton of custom joints.

    Joints on both sides of the body get the same weights.  Joints without counterpart get weights
    that are the same on both sides, unless they are on one side of the body.

    Parameters
    ----------
    examples
        Positions in at least two frames.
    name
        Name of the skeleton.
    source
        Name of the skeleton of the model's joints; '' for all joints of a network.

    Raises
    ------
    ValueError
        If a name is not valid, or a custom joint has too few frames.
    """
    as_names([name], 'the name of the skeleton')
    model, custom = examples.model, examples.custom
    names = custom.joint_names
    weights = np.zeros((len(names), len(model.joint_names)))
    errors_mm, deviations_mm = np.zeros(len(names)), np.zeros(len(names))
    frames = np.zeros(len(names), int)
    mirror, custom_mirror = model.skeleton.mirror, custom.skeleton.mirror
    for joint, other in enumerate(custom_mirror.tolist()):
        if other < joint:
            # The counterpart has been fitted.
            weights[joint] = weights[other][mirror]
            errors_mm[joint], deviations_mm[joint] = errors_mm[other], deviations_mm[other]
            continue
        weights[joint], misses_mm, count = _fit_joint(examples, joint, other)
        frames[joint] = frames[other] = count
        errors_mm[joint] = misses_mm.mean()
        deviations_mm[joint] = np.sqrt((misses_mm**2).mean() / 3)
    used = np.flatnonzero(np.any(weights != 0, axis=0))
    pairs = custom.mirror_pairs
    definition = SkeletonDefinition(
        Skeleton(
            name,
            names,
            examples.edges,
            None if pairs is None else tuple((int(a), int(b)) for a, b in pairs),
        ),
        source,
        tuple(model.joint_names[i] for i in used),
        weights[:, used],
        deviations_mm,
        tuple(
            f'fitted to {count} frames; error in frames that were left out {error_mm:.1f} mm'
            for count, error_mm in zip(frames, errors_mm)
        ),
    )
    return CustomJoints(
        definition, errors_mm, tuple(_warnings(examples, int(frames.min()), errors_mm))
    )


def _fit_joint(examples: Examples, joint: int, other: int) -> tuple[FloatArray, FloatArray, int]:
    """
    Return the weights [J] of a custom joint, cross-validated errors, and the number of frames.

    Parameters
    ----------
    examples
        The examples.
    joint, other
        Indices of the joint and of its counterpart, which is itself if it has none.

    Raises
    ------
    ValueError
        If there are too few frames.
    """
    samples = _both_sides(examples, joint, other)
    count = len(np.unique(samples.frames))
    if count < MIN_FRAMES:
        raise ValueError(
            f"the custom joint '{printable(examples.custom.joint_names[joint])}' has {count} "
            f'frames in which all joints of the model are known; at least {MIN_FRAMES} are needed'
        )
    weights, misses_mm = _fit(samples)
    if other != joint:
        return weights, misses_mm, count
    # A joint without counterpart is in the middle of the body, or on one side only.
    own_weights, own_misses_mm = _fit(_one_side(examples, joint))
    if own_misses_mm.mean() < ONE_SIDED_RATIO * misses_mm.mean():
        return own_weights, own_misses_mm, count
    return (weights + weights[examples.model.skeleton.mirror]) / 2, misses_mm, count


@dataclasses.dataclass(frozen=True)
class _Samples:
    """
    N samples of the model's joints and of one custom joint.

    Parameters
    ----------
    rows_mm
        [N, J, 3].
    targets_mm
        [N, 3].
    frames
        [N], ascending indices of the frames.
    """

    rows_mm: FloatArray
    targets_mm: FloatArray
    frames: NDArray[np.intp]


def _one_side(examples: Examples, joint: int) -> _Samples:
    """Return the samples of a custom joint; those with missing joints are left out."""
    rows_mm = examples.model.poses_mm.astype(np.float64)
    targets_mm = examples.custom.poses_mm[:, joint].astype(np.float64)
    known = np.isfinite(rows_mm).all(axis=(1, 2)) & np.isfinite(targets_mm).all(axis=1)
    return _Samples(rows_mm[known], targets_mm[known], np.flatnonzero(known))


def _both_sides(examples: Examples, joint: int, other: int) -> _Samples:
    """
    Return the samples of a custom joint, and mirrored ones of its counterpart.

    The reflection is omitted, as it does not change distances.
    """
    mirror = examples.model.skeleton.mirror
    own = _one_side(examples, joint)
    if (mirror == np.arange(len(mirror))).all():
        return own
    mirrored = _one_side(examples, other)
    frames = np.concatenate([own.frames, mirrored.frames])
    order = np.argsort(frames, kind='stable')
    return _Samples(
        np.concatenate([own.rows_mm, mirrored.rows_mm[:, mirror]])[order],
        np.concatenate([own.targets_mm, mirrored.targets_mm])[order],
        frames[order],
    )


def _fit(samples: _Samples) -> tuple[FloatArray, FloatArray]:
    """Return the weights [J] of a custom joint, and the cross-validated errors [N]."""
    near = _candidates(samples.rows_mm, samples.targets_mm)
    own = dataclasses.replace(samples, rows_mm=samples.rows_mm[:, near])
    count, ridge_mm, misses_mm = _choose(own)
    weights = np.zeros(samples.rows_mm.shape[1])
    weights[near] = _weights(own.rows_mm, own.targets_mm, count, ridge_mm)
    return weights, misses_mm


def _candidates(rows_mm: FloatArray, targets_mm: FloatArray) -> NDArray[np.intp]:
    """
    Return the joints that are nearest to the target on average, and the best combination.

    The latter is for targets between limbs, such as an object in both hands.
    """
    distances_mm = np.linalg.norm(rows_mm - targets_mm[:, None], axis=-1).mean(axis=0)
    nearest = np.argsort(distances_mm)[:NEAR_JOINTS]
    best = _weights(rows_mm, targets_mm, max(JOINT_COUNTS), max(RIDGES_MM))
    return np.union1d(nearest, np.flatnonzero(best))


def _weights(
    rows_mm: FloatArray, targets_mm: FloatArray, count: int, ridge_mm: float
) -> FloatArray:
    """Return the weights [J] of at most `count` joints in the target."""
    together_mm = np.concatenate([rows_mm, targets_mm[:, None]], axis=1)
    covariance = SquaredDifferences.of_poses(together_mm).covariance()
    joints = rows_mm.shape[1]
    return sparse_affine_weights(covariance, np.arange(joints), joints, count, ridge_mm)


def _choose(samples: _Samples) -> tuple[int, float, FloatArray]:
    """Return the number of joints and the noise by cross-validation, and the errors [N]."""
    rows_mm, targets_mm = samples.rows_mm, samples.targets_mm
    candidates = [
        (count, ridge_mm)
        for count in JOINT_COUNTS
        if count <= rows_mm.shape[1]
        for ridge_mm in RIDGES_MM
    ]
    misses_mm = np.zeros((len(candidates), len(rows_mm)))
    for fitted, held_out in _folds(samples.frames):
        for i, candidate in enumerate(candidates):
            weights = _weights(rows_mm[fitted], targets_mm[fitted], *candidate)
            misses_mm[i, held_out] = np.linalg.norm(
                weights @ rows_mm[held_out] - targets_mm[held_out], axis=-1
            )
    means_mm = misses_mm.mean(axis=1)
    limit_mm = TOLERANCE * means_mm.min()
    fewest = min(count for (count, _), mean_mm in zip(candidates, means_mm) if mean_mm <= limit_mm)
    own = [i for i, (count, _) in enumerate(candidates) if count == fewest]
    best = min(own, key=lambda i: means_mm[i])
    return (*candidates[best], misses_mm[best])


def _folds(frames: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """
    Yield the fitted and the left out samples.

    Blocks of frames are left out, as successive ones are similar; a sample and its mirror image
    are in the same one.
    """
    different = np.unique(frames)
    for held_out in np.array_split(different, min(FOLDS, len(different))):
        is_held_out = np.isin(frames, held_out)
        yield np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _warnings(examples: Examples, count: int, errors_mm: FloatArray) -> Iterator[str]:
    if count < FEW_FRAMES:
        yield (
            f'{count} frames are few: the errors are uncertain; use at least {FEW_FRAMES} in '
            'which all joints are known, in different postures'
        )
    postures = different_postures(examples.model.poses_mm)
    if postures < FEW_POSTURES <= count:
        yield (
            f'only {postures} of {count} frames show different postures, so that the joints may '
            f'be wrong in others; use at least {FEW_POSTURES}, with all limbs bent and straight'
        )
    poor = [
        f"'{printable(name)}' {error_mm:.0f} mm"
        for name, error_mm in zip(examples.custom.joint_names, errors_mm)
        if error_mm > MAX_WARNED_MM
    ]
    if poor:
        yield (
            f'{", ".join(poor[:5])}: these joints are not combinations of the joints of the '
            'model, or the frames of both do not match'
        )


def different_postures(poses_mm: FloatArray) -> int:
    """Return the number of different postures in poses [N, J, 3], wherever the people are."""
    known = poses_mm[np.isfinite(poses_mm).all(axis=(1, 2))]
    known = known[:: max(1, -(-len(known) // MAX_COMPARED_FRAMES))]
    joints = np.linspace(
        0, poses_mm.shape[1] - 1, min(poses_mm.shape[1], MAX_COMPARED_JOINTS)
    ).astype(int)
    points_mm = known[:, joints].astype(np.float64)
    first, second = np.triu_indices(len(joints), 1)
    distances_mm = np.linalg.norm(points_mm[:, first] - points_mm[:, second], axis=-1)
    kept: list[FloatArray] = []
    for own_mm in distances_mm:
        if all(np.sqrt(((own_mm - other_mm) ** 2).mean()) > SIMILAR_MM for other_mm in kept):
            kept.append(own_mm)
        if len(kept) >= FEW_POSTURES:
            break
    return len(kept)
