"""Skeletons: names of the joints of a pose, bones between them, and left-right symmetry."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray

_SHORT_PARTS = {
    'shoulder': 'sho',
    'elbow': 'elb',
    'wrist': 'wri',
    'hip': 'hip',
    'knee': 'kne',
    'ankle': 'ank',
}
"""Abbreviations of body parts in MeTRAbs joint names."""


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """
    Joint convention: names and order of the joints, and the bones between them.

    Parameters
    ----------
    name
        Name of the convention, for example ``coco_17``.
    joint_names
        Names of the joints, in the order of the rows of a pose.
    edges
        Pairs of joint indices that are connected by a bone.
    """

    name: str
    joint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Return the number of joints."""
        return len(self.joint_names)

    @functools.cached_property
    def mirror(self) -> NDArray[np.intp]:
        """Index of each joint's counterpart on the other side of the body, [J]."""
        index = {name: i for i, name in enumerate(self.joint_names)}
        return np.array(
            [index.get(_other_side(name), i) for i, name in enumerate(self.joint_names)]
        )

    def part(self, part: str, side: str = '') -> NDArray[np.intp]:
        """
        Return the indices of the joints of a body part; empty if there are none.

        Parameters
        ----------
        part
            English name, for example ``shoulder``.
        side
            ``left``, ``right``, or empty for parts in the middle of the body.
        """
        key = part, side
        if key not in self._parts:
            self._parts[key] = self._find_part(part, side)
        return self._parts[key]

    @functools.cached_property
    def _parts(self) -> dict[tuple[str, str], NDArray[np.intp]]:
        """Results of `part`, which is called for every frame."""
        return {}

    def _find_part(self, part: str, side: str) -> NDArray[np.intp]:
        long, short = f'{side}_{part}'.lstrip('_'), f'{side[:1]}{_SHORT_PARTS.get(part, part)}'
        # In networks with several conventions, joint names end with the name of the convention.
        indices = np.flatnonzero(
            [name == long or name.split('_')[0] == short for name in self.joint_names]
        )
        # The array is shared by all callers.
        indices.flags.writeable = False
        return indices

    def within(self, other: Skeleton) -> Convention:
        """
        Return this skeleton as a subset of another one.

        Raises
        ------
        ValueError
            If the other skeleton lacks a joint of this one.
        """
        missing = set(self.joint_names) - set(other.joint_names)
        if missing:
            raise ValueError(f'{other.name} has no joints {sorted(missing)} of {self.name}')
        indices = [other.joint_names.index(name) for name in self.joint_names]
        return Convention(self, np.array(indices, np.intp))


@dataclasses.dataclass(frozen=True)
class Convention:
    """
    A skeleton, and the indices of its joints in the output of a network.

    Parameters
    ----------
    skeleton
        Skeleton with J joints.
    indices
        [J], indices into all joints of the network.
    """

    skeleton: Skeleton
    indices: NDArray[np.intp]


def _other_side(joint_name: str) -> str:
    """Return the name of the joint on the other side: left_hip and right_hip, lhip and rhip."""
    swapped = {'left': 'right', 'right': 'left'}
    words = [swapped.get(word, word) for word in joint_name.split('_')]
    other = '_'.join(words)
    if other == joint_name and joint_name[:1] in ('l', 'r'):
        return ('r' if joint_name[0] == 'l' else 'l') + joint_name[1:]
    return other


def _with_named_edges(
    name: str, joint_names: tuple[str, ...], bones: str, *paths: str
) -> Skeleton:
    """Create a skeleton from chains of joint names; `*` in `bones` stands for both sides."""
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
