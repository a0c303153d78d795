"""Skeletons: which joints a pose has, how bones join them, and what a mirror does to them."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray

_SHORT_PARTS = {'shoulder': 'sho', 'hip': 'hip', 'knee': 'kne', 'ankle': 'ank'}
"""What the parts are called that MeTRAbs abbreviates."""


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
        return np.array(
            [index.get(_other_side(name), i) for i, name in enumerate(self.joint_names)]
        )

    def part(self, part: str, side: str = '') -> NDArray[np.intp]:
        """
        Return which joints are a part of the body, none if there are none.

        Parameters
        ----------
        part
            Its English name, for example ``shoulder``.
        side
            ``left``, ``right``, or neither for parts in the middle.
        """
        long, short = f'{side}_{part}'.lstrip('_'), f'{side[:1]}{_SHORT_PARTS.get(part, part)}'
        # Where one network knows several conventions, a joint's name ends in its convention's.
        return np.flatnonzero(
            [name == long or name.split('_')[0] == short for name in self.joint_names]
        )

    def within(self, other: Skeleton) -> Convention:
        """
        Return this skeleton as a part of another one.

        Raises
        ------
        ValueError
            If a joint of this skeleton is not in the other one.
        """
        missing = set(self.joint_names) - set(other.joint_names)
        if missing:
            raise ValueError(f'{other.name} has no joints {sorted(missing)} of {self.name}')
        indices = [other.joint_names.index(name) for name in self.joint_names]
        return Convention(self, np.array(indices, np.intp))


@dataclasses.dataclass(frozen=True)
class Convention:
    """
    A skeleton and where its joints stand among all those of a network.

    Parameters
    ----------
    skeleton
        With J joints.
    indices
        [J].
    """

    skeleton: Skeleton
    indices: NDArray[np.intp]


def _other_side(joint_name: str) -> str:
    """Return what the joint is called on the other side: left_hip and right_hip, lhip and rhip."""
    swapped = {'left': 'right', 'right': 'left'}
    words = [swapped.get(word, word) for word in joint_name.split('_')]
    other = '_'.join(words)
    if other == joint_name and joint_name[:1] in ('l', 'r'):
        return ('r' if joint_name[0] == 'l' else 'l') + joint_name[1:]
    return other


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
