"""Canonical points of the joints of skeletons, and the skeletons that NLF checkpoints define."""

from __future__ import annotations

import collections
import dataclasses
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.nlf.points import MAX_POINTS
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import MAX_COORDINATE_M
from metrabs_ros.weights.checkpoint_checks import as_names
from metrabs_ros.weights.plain_pickle import Call, read_calls

FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')
HAND_PREFIXES, HAND_CHARS = ('lhan', 'rhan'), 4
"""Other joints of the hand have longer names, for example ``lhan2``."""

SMPL, SMPLX = 'smpl', 'smplx'
_SIDES = ('left', 'right')
_SHORT_NAMES = (
    *('pelv', 'lhip', 'rhip', 'bell', 'lkne', 'rkne', 'spin', 'lank', 'rank', 'thor', 'ltoe'),
    *('rtoe', 'neck', 'lcla', 'rcla', 'head', 'lsho', 'rsho', 'lelb', 'relb', 'lwri', 'rwri'),
)
"""Names of the 22 joints that SMPL and SMPL-X have in common, as in MeTRAbs."""
_PHALANGES = tuple(
    f'{finger}{i}' for finger in ('index', 'middle', 'pinky', 'ring', 'thumb') for i in (1, 2, 3)
)
_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_HEAD, _WRISTS = 15, (20, 21)


@dataclasses.dataclass(frozen=True)
class BodyModel:
    """
    The joints of a body model.

    Parameters
    ----------
    skeleton
        The joints.
    short_names
        Their names among all joints of a network, without the name of the skeleton.
    """

    skeleton: Skeleton
    short_names: tuple[str, ...]


def _edges(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((parent, i) for i, parent in enumerate(parents) if parent >= 0)


def _smplx_parents() -> list[int]:
    parents = [*_PARENTS, _HEAD, _HEAD, _HEAD]
    for wrist in _WRISTS:
        for name in _PHALANGES:
            parents.append(wrist if name.endswith('1') else len(parents) - 1)
    return parents


_SMPLX_NAMES = (
    'pelvis',
    *('left_hip', 'right_hip', 'spine1', 'left_knee', 'right_knee', 'spine2', 'left_ankle'),
    *('right_ankle', 'spine3', 'left_foot', 'right_foot', 'neck', 'left_collar', 'right_collar'),
    *('head', 'left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist'),
    *('right_wrist', 'jaw', 'left_eye_smplhf', 'right_eye_smplhf'),
    *(f'{side}_{finger}' for side in _SIDES for finger in _PHALANGES),
)
_SMPL_SHORT = (*_SHORT_NAMES, 'lhan', 'rhan')
BODY_MODELS = {
    SMPL: BodyModel(
        Skeleton('smpl_24', _SMPL_SHORT, _edges((*_PARENTS, *_WRISTS))),
        _SMPL_SHORT,
    ),
    SMPLX: BodyModel(
        Skeleton('smplx_55', _SMPLX_NAMES, _edges(_smplx_parents())),
        (
            *(*_SHORT_NAMES, 'jaw', 'leye', 'reye'),
            *(side[0] + finger for side in _SIDES for finger in _PHALANGES),
        ),
    ),
}
"""Body models by their names in checkpoints."""


@dataclasses.dataclass(frozen=True)
class JointTable:
    """
    The joints that a network was trained with.

    Parameters
    ----------
    names
        [J], names of the joints.
    points_m
        [J, 3], canonical points.
    conventions
        Skeletons of these joints by name.
    """

    names: tuple[str, ...]
    points_m: FloatArray
    conventions: Mapping[str, Convention]


def read_joint_names(content: bytes) -> tuple[str, ...]:
    """
    Return the names of joints in a pickle of a posepile.joint_info.JointInfo.

    Raises
    ------
    pickle.UnpicklingError, ValueError
        If the pickle contains something else.
    """
    info = read_calls(content)
    state = info.state if isinstance(info, Call) else None
    names = state.get('names') if isinstance(state, dict) else None
    if not isinstance(names, list | tuple) or not names:
        raise pickle.UnpicklingError('it contains no object with a list of names')
    checked = as_names(names)
    (repeated, count), *_ = collections.Counter(checked).most_common(1)
    if count > 1:
        raise ValueError(f'it has the name {repeated} {count} times')
    return checked


def side_order(names: Sequence[str]) -> NDArray[np.intp]:
    """
    Return the joints [J] in the order of the parameters: left ones, their counterparts, others.

    Raises
    ------
    ValueError
        If a left joint has no counterpart.
    """
    index = {name: i for i, name in enumerate(names)}
    left = [i for i, name in enumerate(names) if name[:1] == 'l']
    missing = [names[i] for i in left if f'r{names[i][1:]}' not in index]
    if missing:
        raise ValueError(f'it has {missing[0]}, but no r{missing[0][1:]}')
    right = [index[f'r{names[i][1:]}'] for i in left]
    in_pairs = {*left, *right}
    centers = [i for i in range(len(names)) if i not in in_pairs]
    return np.array([*left, *right, *centers], np.intp)


def is_trained(names: Sequence[str]) -> BoolArray:
    """Return which canonical points are parameters of the network, [J]: not those of hands."""
    parts = [name.partition('_')[0] for name in names]
    return np.array(
        [
            not any(finger in part for finger in FINGERS)
            and not (part.startswith(HAND_PREFIXES) and len(part) > HAND_CHARS)
            for part in parts
        ]
    )


def canonical_locations(
    lefts: FloatArray,
    centers: FloatArray,
    positions: NDArray[np.intp],
    trained: FloatArray,
    initial_m: FloatArray,
) -> FloatArray:
    """
    Return the canonical points of all joints, [J, 3], metres.

    Parameters
    ----------
    lefts
        [L, 3], displacements of the left joints; those of right joints are their mirror images.
    centers
        [C, 2], displacements along y and z of the other joints, J = 2 L + C.
    positions
        [J], position of each joint in the order of these parameters; see `side_order`.
    trained
        [J], factors of the displacements.
    initial_m
        [J, 3], points without displacements.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or points are not finite or far away.
    """
    joints = len(initial_m)
    shapes = {
        'canonical_lefts': (lefts, (len(lefts), 3)),
        'canonical_centers': (centers, (joints - 2 * len(lefts), 2)),
        'inv_permutation': (positions, (joints,)),
        'canonical_delta_mask': (trained, (joints,)),
        'canonical_locs_init': (initial_m, (joints, 3)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f'{name} has shape {array.shape} instead of {shape}')
    if positions.dtype.kind != 'i' or not np.array_equal(np.sort(positions), np.arange(joints)):
        raise ValueError('inv_permutation is not a permutation of the joints')
    rights = lefts * np.array([-1, 1, 1], lefts.dtype)
    displacements = np.concatenate([lefts, rights, np.pad(centers, ((0, 0), (1, 0)))])
    points_m = displacements[positions] * trained[:, None] + initial_m
    return checked_points(points_m, joints)


def checked_points(points_m: NDArray[Any], count: int) -> FloatArray:
    """
    Return canonical points [count, 3] in double precision.

    Raises
    ------
    ValueError
        If the shape is another one, or values are not finite or far away.
    """
    is_number = points_m.dtype.kind in 'fiu'
    if points_m.shape != (count, 3) or not is_number or not 0 < count <= MAX_POINTS:
        raise ValueError(
            f'there is {points_m.dtype} of shape {points_m.shape} instead of canonical points '
            f'({count}, 3), of at most {MAX_POINTS} joints'
        )
    # The condition also rejects NaN.
    if not (np.abs(points_m) <= MAX_COORDINATE_M).all():
        raise ValueError(f'canonical points are not finite or exceed {MAX_COORDINATE_M:g} m')
    return points_m.astype(np.float64)


def joint_names(conventions: Mapping[str, Convention], joints: int) -> tuple[str, ...]:
    """
    Return names for all joints of a network.

    Parameters
    ----------
    conventions
        Skeletons by name: that of all joints, whose name is empty, if there is one, and others.
    joints
        Number of joints.
    """
    names: dict[int, str] = {}
    for name in sorted(conventions, key=bool):
        convention = conventions[name]
        for i, joint in zip(convention.indices.tolist(), convention.skeleton.joint_names):
            names.setdefault(i, f'{joint}_{name}' if name else joint)
    return tuple(names.get(i, f'joint_{i}') for i in range(joints))


def all_skeletons(
    table: JointTable | None, body_points_m: Mapping[str, FloatArray]
) -> tuple[FloatArray, dict[str, Convention]]:
    """
    Return the canonical points of all skeletons, and the skeletons.

    The joints of SMPL and SMPL-X are those of the body models, also if the table has skeletons of
    these names: the network was trained with meshes of these models, and the official evaluation
    uses these points.  The names and bones in the table are kept.

    Parameters
    ----------
    table
        The joints that the network was trained with, if they are known.
    body_points_m
        For names of body models, the canonical points of their joints.

    Returns
    -------
    The points [J, 3], and the skeletons by name; the first one, with the empty name, has all
    joints, with different names.
    """
    conventions: dict[str, Convention] = {}
    names: list[str] = []
    edges: list[tuple[int, int]] = []
    points_m: list[FloatArray] = [np.zeros((0, 3))]
    if table is not None:
        conventions = {name: table.conventions[name] for name in table.conventions if name}
        names, points_m = list(table.names), [table.points_m]
        if whole := table.conventions.get(''):
            edges = [tuple(whole.indices[list(edge)].tolist()) for edge in whole.skeleton.edges]
    for model in (model for model in BODY_MODELS if model in body_points_m):
        body = BODY_MODELS[model]
        skeleton, start = body.skeleton, len(names)
        if known := conventions.get(skeleton.name):
            skeleton = known.skeleton if len(known.skeleton) == len(skeleton) else skeleton
        indices = np.arange(start, start + len(skeleton))
        conventions[skeleton.name] = Convention(skeleton, indices)
        names += [f'{joint}_{skeleton.name}' for joint in body.short_names]
        edges += [(start + a, start + b) for a, b in skeleton.edges]
        points_m.append(body_points_m[model])
    skeleton = Skeleton('', _made_unique(names), tuple(edges))
    everything = Convention(skeleton, np.arange(len(names)))
    return np.concatenate(points_m), {'': everything, **conventions}


def _made_unique(names: Sequence[str]) -> tuple[str, ...]:
    """Append numbers to names that occur several times."""
    taken: set[str] = set()
    counts: collections.Counter[str] = collections.Counter()
    unique = []
    for name in names:
        candidate = name
        while candidate in taken:
            counts[name] += 1
            candidate = f'{name}_{counts[name] + 1}'
        taken.add(candidate)
        unique.append(candidate)
    return tuple(unique)
