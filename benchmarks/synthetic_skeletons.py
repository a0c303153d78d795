"""Synthetic poses of one articulated body in several joint conventions."""

from __future__ import annotations

import dataclasses

import numpy as np

BONES = {
    # Joint: parent, offset in millimetres (x to the left of the body, y down, z back), and the
    # standard deviations of the rotations about x, y and z, in degrees.
    'pelvis': (None, (0, 0, 0), (0, 0, 0)),
    'spine': ('pelvis', (0, -200, 10), (20, 20, 12)),
    'chest': ('spine', (0, -230, 5), (12, 12, 8)),
    'neck': ('chest', (0, -90, -10), (15, 25, 10)),
    'head': ('neck', (0, -130, -10), (12, 20, 8)),
    'crown': ('head', (0, -110, 10), (0, 0, 0)),
    'face': ('head', (0, -20, -100), (0, 0, 0)),
    'left_eye': ('head', (32, -45, -85), (0, 0, 0)),
    'left_ear': ('head', (75, -25, 5), (0, 0, 0)),
    'left_collar': ('chest', (70, -40, 0), (5, 5, 8)),
    'left_shoulder': ('left_collar', (105, 0, 0), (45, 30, 50)),
    'left_elbow': ('left_shoulder', (0, 290, 0), (45, 35, 5)),
    'left_wrist': ('left_elbow', (0, 260, 0), (20, 5, 15)),
    'left_index': ('left_wrist', (25, 85, -5), (15, 0, 5)),
    'left_pinky': ('left_wrist', (-30, 75, -5), (15, 0, 5)),
    'left_thumb': ('left_wrist', (30, 45, -35), (10, 0, 5)),
    'left_hip': ('pelvis', (90, 60, 0), (40, 18, 15)),
    'left_knee': ('left_hip', (0, 420, 0), (40, 10, 4)),
    'left_ankle': ('left_knee', (0, 410, 0), (18, 10, 8)),
    'left_heel': ('left_ankle', (0, 65, 50), (0, 0, 0)),
    'left_toe': ('left_ankle', (10, 75, -180), (8, 0, 0)),
}
"""Joints in the middle of the body and on its left; those on the right are their mirror images."""
NOISE_MM = 1.5
SOFT_MM = 4.0
"""Standard deviation of offsets that move with the posture, as those of skin."""


@dataclasses.dataclass(frozen=True)
class SyntheticSkeletons:
    """
    Poses in C conventions, whose joints are those of one body, of which some are affine.

    Parameters
    ----------
    poses_mm
        [N, J, 3], all conventions.
    joint_names
        [J].
    mirror_pairs
        [P, 2], indices of joints on the left and on the right.
    conventions
        [J], indices of the conventions.
    is_affine
        [J], whether the joint is an affine combination of the joints of the body.
    """

    poses_mm: np.ndarray
    joint_names: np.ndarray
    mirror_pairs: np.ndarray
    conventions: np.ndarray
    is_affine: np.ndarray


def _mirrored_name(name: str) -> str:
    return name.replace('left_', 'right_') if name.startswith('left_') else name


def body_poses(count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of the joints of the body, their positions and their rotations."""
    chains: dict[str, tuple[str | None, np.ndarray, np.ndarray, float]] = {}
    for name, (parent, offset, spread) in BONES.items():
        chains[name] = (parent, np.array(offset, float), np.array(spread, float), 1.0)
        if name.startswith('left_'):
            other = None if parent is None else _mirrored_name(parent)
            flipped = np.array(offset, float) * [-1, 1, 1]
            chains[_mirrored_name(name)] = (other, flipped, np.array(spread, float), -1.0)
    order = sorted(chains, key=lambda name: _depth(chains, name))
    size = rng.normal(1, 0.07, count)[:, None]
    positions, rotations = {}, {}
    for name in order:
        parent, offset, spread, _ = chains[name]
        own = _rotations(np.radians(spread) * rng.standard_normal((count, 3)))
        if parent is None:
            positions[name] = rng.normal((0, 0, 3500), 500, (count, 3))
            turn = _rotations(
                np.stack(
                    [np.zeros(count), rng.uniform(0, 2 * np.pi, count), np.zeros(count)], axis=1
                )
            )
            rotations[name] = turn @ own
        else:
            stretch = size * (1 + 0.03 * rng.standard_normal((count, 1)))
            positions[name] = positions[parent] + np.einsum(
                'nij,nj->ni', rotations[parent], stretch * offset
            )
            rotations[name] = rotations[parent] @ own
    return (
        order,
        np.stack([positions[name] for name in order], axis=1),
        np.stack([rotations[name] for name in order], axis=1),
    )


def _depth(chains: dict, name: str) -> int:
    parent = chains[name][0]
    return 0 if parent is None else 1 + _depth(chains, parent)


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Return the rotations [N, 3, 3] of rotation vectors [N, 3]."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    axis = vectors / np.maximum(angle[:, 0], 1e-12)
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross[:, [1, 2, 0], [2, 0, 1]] = -axis
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def make(count: int, seed: int = 0, convention_count: int = 8, joints: int = 180):
    """
    Return poses in several conventions.

    In each convention, most joints are affine combinations of one to four neighbouring joints of
    the body, the same in each pose.  Every fifth one is an offset that is fixed in the frame of a
    bone, which turns about the bone, plus a soft offset: no affine relation.  All joints have
    noise.
    """
    rng = np.random.default_rng([seed, 1])
    names, body_mm, rotations = body_poses(count, rng)
    rng = np.random.default_rng(1234)  # The same conventions for any seed and number of poses.
    index = {name: i for i, name in enumerate(names)}
    sided = [name for name in names if name.startswith('left_')]
    central = [name for name in names if _mirrored_name(name) == name and 'right' not in name]
    _, usual_mm, _ = body_poses(200, np.random.default_rng(4321))
    rest = np.median(np.linalg.norm(usual_mm[:, :, None] - usual_mm[:, None], axis=-1), axis=0)
    noise = np.random.default_rng([seed, 2])
    columns, labels, pairs, owners, affine = [], [], [], [], []

    def add(label: str, owner: int, position_mm: np.ndarray, is_affine: bool) -> None:
        columns.append((position_mm + NOISE_MM * noise.standard_normal((count, 3))).astype('f4'))
        labels.append(f'{label}_c{owner}')
        owners.append(owner)
        affine.append(is_affine)

    pairs_per_convention = (joints // convention_count) // 2
    for owner in range(convention_count):
        total = joints // convention_count + (owner < joints % convention_count)
        chosen = list(rng.permutation(sided))[: min(len(sided), pairs_per_convention - 3)]
        chosen_central = list(rng.permutation(central))[: total - 2 * len(chosen)]
        while len(chosen_central) + 2 * len(chosen) < total:
            chosen_central.append(central[int(rng.integers(len(central)))] + '_b')
        for k, name in enumerate([*chosen, *chosen_central]):
            base = name.removesuffix('_b')
            is_affine = k % 5 != 4
            near = np.argsort(rest[index[base]])[:5]
            weights = np.zeros(len(names))
            if is_affine:
                own = rng.normal(0, 0.25, len(near))
                own[0] = 0
                own[rng.integers(1, len(near))] = 0
                weights[near] = own
                weights[index[base]] = 1 - own.sum()
                if base in central:
                    # Symmetric, because the body is.
                    weights = (weights + _mirrored_weights(weights, names)) / 2
            offset = rng.normal(0, 25, 3)
            for side in ('left', 'right') if base.startswith('left_') else ('',):
                own_name = base if side != 'right' else _mirrored_name(base)
                own_weights = weights if side != 'right' else _mirrored_weights(weights, names)
                if is_affine:
                    position_mm = np.einsum('j,njd->nd', own_weights, body_mm)
                else:
                    flip = [-1, 1, 1] if side == 'right' else [1, 1, 1]
                    local = offset * flip if side else offset * [0, 1, 1]
                    soft = SOFT_MM * noise.standard_normal((count, 3))
                    position_mm = body_mm[:, index[own_name]] + np.einsum(
                        'nij,nj->ni', rotations[:, index[own_name]], local + soft
                    )
                label = own_name if name == base else f'{own_name}_b'
                add(label, owner, position_mm, is_affine)
            if base.startswith('left_'):
                pairs.append((len(columns) - 2, len(columns) - 1))
    return SyntheticSkeletons(
        np.stack(columns, axis=1),
        np.array(labels),
        np.array(pairs),
        np.array(owners),
        np.array(affine),
    )


def _mirrored_weights(weights: np.ndarray, names: list[str]) -> np.ndarray:
    swap = {'left': 'right', 'right': 'left'}
    other = ['_'.join(swap.get(part, part) for part in name.split('_')) for name in names]
    return weights[[names.index(name) for name in other]]
