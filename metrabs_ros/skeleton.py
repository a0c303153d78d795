"""Skeletons: which joints a pose has, how bones join them, and what a mirror does to them."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """
    A convention for the joints of a body.

    Parameters
    ----------
    name
        The convention's name, for example ``coco_17``.
    joint_names
        One name a joint, in the order of a pose's rows.
    edges
        Pairs of joint indices that a bone connects.
    """

    name: str
    joint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Return the number of joints."""
        return len(self.joint_names)

    @functools.cached_property
    def mirror(self) -> NDArray[np.intp]:
        """For each joint, the index of the same joint on the body's other side, [J]."""
        index = {name: i for i, name in enumerate(self.joint_names)}
        return np.array([index.get(_other_side(name), i) for name, i in index.items()])

    def indices_in(self, other: Skeleton) -> NDArray[np.intp]:
        """
        Return where this skeleton's joints stand in another one, [J].

        Raises
        ------
        ValueError
            If a joint of this skeleton is not in the other one.
        """
        missing = set(self.joint_names) - set(other.joint_names)
        if missing:
            raise ValueError(f'{other.name} has no joints {sorted(missing)} of {self.name}')
        return np.array([other.joint_names.index(name) for name in self.joint_names])


def _other_side(joint_name: str) -> str:
    swapped = {'left': 'right', 'right': 'left'}
    return '_'.join(swapped.get(word, word) for word in joint_name.split('_'))


def _with_named_edges(
    name: str, joint_names: tuple[str, ...], bones: str, *paths: str
) -> Skeleton:
    """Build a skeleton from chains of joint names; a chain under `bones` stands for both sides."""
    chains = [
        [joint.replace('*', side) for joint in chain.split()]
        for chain in bones.strip().splitlines()
        for side in ('left', 'right')
    ]
    chains += [path.split() for path in paths]
    edges = tuple(
        (joint_names.index(a), joint_names.index(b))
        for chain in chains
        for a, b in itertools.pairwise(chain)
    )
    return Skeleton(name, joint_names, edges)


_LIMB_SIDES = ('left', 'right')

BLAZEPOSE_33 = _with_named_edges(
    'blazepose_33',
    (
        'nose',
        *(f'{side}_eye{part}' for side in _LIMB_SIDES for part in ('_inner', '', '_outer')),
        'left_ear',
        'right_ear',
        'mouth_left',
        'mouth_right',
        *(
            f'{side}_{joint}'
            for joint in ('shoulder', 'elbow', 'wrist', 'pinky', 'index', 'thumb')
            for side in _LIMB_SIDES
        ),
        *(
            f'{side}_{joint}'
            for joint in ('hip', 'knee', 'ankle', 'heel', 'foot_index')
            for side in _LIMB_SIDES
        ),
    ),
    """
    nose *_eye_inner *_eye *_eye_outer *_ear
    *_shoulder *_elbow *_wrist *_index *_pinky *_wrist *_thumb
    *_shoulder *_hip *_knee *_ankle *_heel *_foot_index *_ankle
    """,
    'mouth_left mouth_right',
    'left_shoulder right_shoulder',
    'left_hip right_hip',
)

COCO_17 = _with_named_edges(
    'coco_17',
    (
        'nose',
        *(
            f'{side}_{joint}'
            for joint in ('eye', 'ear', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
            for side in _LIMB_SIDES
        ),
    ),
    """
    nose *_eye *_ear
    *_shoulder *_elbow *_wrist
    *_shoulder *_hip *_knee *_ankle
    """,
    'left_shoulder right_shoulder',
    'left_hip right_hip',
)
