"""Skeletons: names, bones and left-right symmetry of joints; joints as affine combinations."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray

_SHORT_PARTS = {
    'shoulder': 'sho',
    'elbow': 'elb',
    'wrist': 'wri',
    'hip': 'hip',
    'knee': 'kne',
    'ankle': 'ank',
}
"""Abbreviations of body parts in MeTRAbs joint names."""
MIN_DEPTH_MM = 1.0
"""Minimum depth of joints whose image points are combined in perspective."""


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
    mirror_pairs
        Pairs of joint indices on both sides of the body; None to derive them from the names.
    """

    name: str
    joint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    mirror_pairs: tuple[tuple[int, int], ...] | None = None

    def __len__(self) -> int:
        """Return the number of joints."""
        return len(self.joint_names)

    @functools.cached_property
    def mirror(self) -> NDArray[np.intp]:
        """Index of each joint's counterpart on the other side of the body, [J]."""
        if self.mirror_pairs is not None:
            counterpart = np.arange(len(self))
            for a, b in self.mirror_pairs:
                counterpart[[a, b]] = b, a
            return counterpart
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
    A skeleton whose L joints are affine combinations of the joints of a network.

    Parameters
    ----------
    skeleton
        Skeleton with L joints.
    indices
        [U], indices of the used joints among all joints of the network.
    weights
        [L, U], weights of the used joints in each joint of the skeleton; the rows sum to one, so
        that the combinations move with the person.  None: the joints are the used joints, U = L.
    deviations_mm
        [L], standard deviation of each joint from its combination, along each axis; None: 0.
    """

    skeleton: Skeleton
    indices: NDArray[np.intp]
    weights: FloatArray | None = None
    deviations_mm: FloatArray | None = None

    def positions(self, points: FloatArray) -> FloatArray:
        """
        Return the joints [..., L, D] of points [..., J, D] of the network, or their velocities.

        Image points need `image_points`, unless they are those of an orthographic camera.
        """
        # Twice as fast as indexing, here and below.
        used = points.take(self.indices, axis=-2)
        return used if self.weights is None else self.weights @ used

    def image_points(self, points_px: FloatArray, depths_mm: FloatArray) -> FloatArray:
        """
        Return the image points of the joints.

        The projection of a weighted mean is the mean of the projections with the weights times
        the depths.  This is exact without lens distortion.

        Parameters
        ----------
        points_px
            [..., J, D], coordinates of image points of the network's joints: x and y, or those
            of several images of the same joints.
        depths_mm
            [..., J], their depths in the camera frame.

        Returns
        -------
        [..., L, D]; where a depth is too small for this, the mean of the image points.
        """
        used_px = points_px.take(self.indices, axis=-2)
        if self.weights is None:
            return used_px
        depths = depths_mm.take(self.indices, axis=-1)[..., None]
        products = self.weights @ np.concatenate([used_px * depths, depths], axis=-1)
        sums = products[..., -1:]
        if depths.min(initial=np.inf) > MIN_DEPTH_MM < sums.min(initial=np.inf):
            return products[..., :-1] / sums
        is_near = (depths <= MIN_DEPTH_MM).astype(np.float64)
        is_valid = (sums > MIN_DEPTH_MM) & ((self.weights != 0) @ is_near == 0)
        perspective = products[..., :-1] / np.where(is_valid, sums, 1)
        return np.where(is_valid, perspective, self.weights @ used_px)

    def confidences(self, confidences: FloatArray) -> FloatArray:
        """Return the mean confidences [..., L] of the used joints by the size of their weights."""
        used = confidences.take(self.indices, axis=-1)
        return used if self.weights is None else used @ self._shares.T

    def in_view(self, in_view: BoolArray) -> BoolArray:
        """Return [..., L]: whether joints with at least half of the weight are in view."""
        used = in_view.take(self.indices, axis=-1)
        if self.weights is None:
            return used
        # The margin is for rounding, as half of the weight is common.
        return used.astype(np.float64) @ self._shares.T > 0.5 - 1e-6

    def deviations(self, deviations_mm: FloatArray) -> FloatArray:
        """
        Return the standard deviations of the joints, along any axis.

        The errors of the joints of one person are correlated to an unknown degree: the largest
        value is returned that a correlation from 0 to 1, the same for all pairs, gives.

        Parameters
        ----------
        deviations_mm
            [..., J], standard deviations of the network's joints.

        Returns
        -------
        [..., L]
        """
        return self.axis_deviations(deviations_mm[..., None])[..., 0]

    def axis_deviations(self, deviations_mm: FloatArray) -> FloatArray:
        """Return the deviations [..., L, D] of joints [..., J, D] along D axes."""
        used = deviations_mm.take(self.indices, axis=-2)
        if self.weights is not None:
            common = np.abs(self.weights @ used)
            independent = np.sqrt(self._squared_weights @ used**2)
            used = np.maximum(common, independent)
        if self.deviations_mm is not None:
            # Several times faster than np.hypot, which also avoids overflow.
            used = np.sqrt(used**2 + self.deviations_mm[:, None] ** 2)
        return used

    def of(self, inner: Convention) -> Convention:
        """
        Return this convention for the network of another one, whose joints this one combines.

        Parameters
        ----------
        inner
            Convention with the joints that `indices` refers to.
        """
        deviations_mm = self.deviations_mm
        if inner.deviations_mm is not None:
            joints_mm = Convention(self.skeleton, self.indices, self.weights)
            propagated_mm = joints_mm.deviations(inner.deviations_mm)
            deviations_mm = np.hypot(propagated_mm, 0 if deviations_mm is None else deviations_mm)
        if inner.weights is None:
            return dataclasses.replace(
                self, indices=inner.indices[self.indices], deviations_mm=deviations_mm
            )
        weights = inner.weights[self.indices]
        weights = weights if self.weights is None else self.weights @ weights
        return Convention(self.skeleton, inner.indices, weights, deviations_mm)

    @functools.cached_property
    def _squared_weights(self) -> FloatArray:
        """[L, U]."""
        assert self.weights is not None
        return self.weights**2

    @functools.cached_property
    def _shares(self) -> FloatArray:
        """[L, U], sizes of the weights, relative to their sum."""
        assert self.weights is not None
        sizes = np.abs(self.weights)
        shares: FloatArray = sizes / sizes.sum(axis=1, keepdims=True)
        return shares


def _other_side(joint_name: str) -> str:
    """Return the name of the joint on the other side: left_hip and right_hip, lhip and rhip."""
    swapped = {'left': 'right', 'right': 'left'}
    words = [swapped.get(word, word) for word in joint_name.split('_')]
    other = '_'.join(words)
    if other == joint_name and joint_name[:1] in ('l', 'r'):
        return ('r' if joint_name[0] == 'l' else 'l') + joint_name[1:]
    return other


def with_named_edges(name: str, joint_names: tuple[str, ...], bones: str, *paths: str) -> Skeleton:
    """
    Create a skeleton from chains of joint names.

    Parameters
    ----------
    name, joint_names
        See `Skeleton`.
    bones
        One chain in each line, for both sides of the body: `*` stands for ``left`` and ``right``.
    paths
        Chains in the middle of the body.
    """
    chains = [
        [joint.replace('*', side) for joint in chain.split()]
        for chain in bones.strip().splitlines()
        for side in ('left', 'right')
    ]
    chains += [path.split() for path in paths]
    pairs = [
        (joint_names.index(a), joint_names.index(b))
        for chain in chains
        for a, b in itertools.pairwise(chain)
    ]
    # Bones in the middle of the body, which are in the chains of both sides, occur once.
    return Skeleton(name, joint_names, tuple(dict.fromkeys(pairs)))


_LIMB_SIDES = ('left', 'right')

# Names and order: list of the landmarks of MediaPipe's Pose Landmarker.  The bones are a choice.
BLAZEPOSE_33 = with_named_edges(
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

# Names and order: configs/_base_/datasets/coco.py of open-mmlab/mmpose.  The bones are a choice.
COCO_17 = with_named_edges(
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
