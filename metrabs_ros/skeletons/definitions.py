"""Skeleton definitions: skeletons whose joints are affine combinations of those of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.skeletons.conventions import Convention, Skeleton

ROW_SUM_TOLERANCE = 1e-6
MAX_WEIGHT = 100.0
"""Maximum size of a weight: it multiplies the errors of a joint."""
MAX_DEVIATION_MM = 1e4
MAX_COORDINATE_M = 10.0
"""Maximum coordinate of a canonical point; the canonical body is about 2 m tall."""
MAX_LISTED_JOINTS = 5


@dataclasses.dataclass(frozen=True)
class SkeletonDefinition:
    """
    A skeleton with L joints, which are affine combinations of the U joints of a source skeleton.

    Parameters
    ----------
    skeleton
        Skeleton with L joints.
    source
        Name of the source skeleton; '' for all joints of a network.
    source_joints
        Names of the U joints of the source skeleton that are used.
    weights
        [L, U], weights of the used joints in each joint; the rows sum to one.
    deviations_mm
        [L], standard deviation of each joint from its combination, along each axis.
    notes
        [L], what each joint is based on; empty for joints of the source skeleton.
    description
        What the skeleton is.

    Raises
    ------
    ValueError
        If the parts do not fit together; the message is one sentence.
    """

    skeleton: Skeleton
    source: str
    source_joints: tuple[str, ...]
    weights: FloatArray
    deviations_mm: FloatArray
    notes: tuple[str, ...]
    description: str = ''

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        names = self.skeleton.joint_names
        check_unique(names, 'joint')
        check_unique(self.source_joints, 'source joint')
        if not names:
            raise ValueError(f'skeleton {self.shown_name} has no joints')
        shape = len(names), len(self.source_joints)
        if self.weights.shape != shape:
            raise ValueError(
                f'the weights of skeleton {self.shown_name} have the shape {self.weights.shape}; '
                f'expected: {shape}, a row for each joint and a column for each source joint'
            )
        # The condition also rejects NaN.
        is_wrong: BoolArray = ~np.all(np.abs(self.weights) <= MAX_WEIGHT, axis=1)
        self._check_joints(is_wrong, f'weights that are not finite or exceed {MAX_WEIGHT:g}')
        sums = self.weights.sum(axis=1)
        is_wrong = np.abs(sums - 1) > ROW_SUM_TOLERANCE
        listed = ', '.join(f'{total:.6g}' for total in sums[is_wrong][:MAX_LISTED_JOINTS])
        self._check_joints(is_wrong, f'weights that sum to {listed} instead of 1')
        if self.deviations_mm.shape != (len(names),) or len(self.notes) != len(names):
            raise ValueError(
                f'skeleton {self.shown_name} has {len(names)} joints, but '
                f'{self.deviations_mm.size} deviations and {len(self.notes)} notes'
            )
        is_wrong = ~((self.deviations_mm >= 0) & (self.deviations_mm <= MAX_DEVIATION_MM))
        self._check_joints(is_wrong, f'deviations that are not from 0 to {MAX_DEVIATION_MM:g} mm')
        for kind, pairs in (
            ('edges', self.skeleton.edges),
            ('mirror', self.skeleton.mirror_pairs or ()),
        ):
            wrong = [index for pair in pairs for index in pair if not 0 <= index < len(names)]
            if wrong:
                raise ValueError(
                    f'{kind} of skeleton {self.shown_name} refers to joint {wrong[0]} of '
                    f'{len(names)}'
                )
        check_involution(self.skeleton)

    def within(self, conventions: Mapping[str, Convention]) -> Convention:
        """
        Return this skeleton as a convention of a network.

        Parameters
        ----------
        conventions
            The conventions of the network by name; the first one has all its joints.

        Raises
        ------
        ValueError
            If the network has neither the source skeleton nor all its joints, or weights become
            too large because the source is a combination itself.
        """
        all_joints = next(iter(conventions.values()))
        source = conventions.get(self.source, all_joints) if self.source else all_joints
        index = {name: i for i, name in enumerate(source.skeleton.joint_names)}
        missing = [name for name in self.source_joints if name not in index]
        if missing:
            known = ', '.join(repr(name) for name in conventions)
            raise ValueError(
                f"skeleton {self.shown_name} combines joints of '{printable(self.source)}', but "
                f'the model lacks {_listed(missing)}; its skeletons: {printable(known, 300)}'
            )
        indices = np.array([index[name] for name in self.source_joints], np.intp)
        deviations_mm = self.deviations_mm if self.deviations_mm.any() else None
        convention = Convention(self.skeleton, indices, self.weights, deviations_mm)
        combined = _as_selection(convention).of(source)
        if combined.weights is not None:
            # Rounding errors of large weights would move the joints.
            is_wrong: BoolArray = ~np.all(np.abs(combined.weights) <= MAX_WEIGHT, axis=1)
            self._check_joints(
                is_wrong, f'weights in the joints of the network that exceed {MAX_WEIGHT:g}'
            )
        return combined

    @property
    def shown_name(self) -> str:
        """The name in quotes, for messages."""
        return f"'{printable(self.skeleton.name)}'"

    def _check_joints(self, is_wrong: BoolArray, problem: str) -> None:
        """Raise a ValueError that names the wrong joints, mask [L]."""
        if is_wrong.any():
            names = [self.skeleton.joint_names[i] for i in np.flatnonzero(is_wrong)]
            raise ValueError(f'skeleton {self.shown_name} has {problem} for {_listed(names)}')


@dataclasses.dataclass(frozen=True)
class PointSkeleton:
    """
    A skeleton with L joints that are points of a canonical body, which NLF networks localise.

    Parameters
    ----------
    skeleton
        Skeleton with L joints.
    points_m
        [L, 3], canonical points, metres: x to the left of the body, y up, z to the front.
    description
        What the skeleton is.

    Raises
    ------
    ValueError
        If the parts do not fit together; the message is one sentence.
    """

    skeleton: Skeleton
    points_m: FloatArray
    description: str = ''

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        names = self.skeleton.joint_names
        check_unique(names, 'joint')
        if not names or self.points_m.shape != (len(names), 3):
            raise ValueError(
                f'skeleton {self.shown_name} has {len(names)} joints, but points of the shape '
                f'{self.points_m.shape}; expected: [x, y, z] for each joint'
            )
        # The condition also rejects NaN.
        if not np.all(np.abs(self.points_m) <= MAX_COORDINATE_M):
            raise ValueError(
                f'skeleton {self.shown_name} has a point with a coordinate of '
                f'{np.abs(self.points_m).max():g}; coordinates are in metres, at most '
                f'{MAX_COORDINATE_M:g}'
            )
        check_involution(self.skeleton)

    @property
    def shown_name(self) -> str:
        """The name in quotes, for messages."""
        return f"'{printable(self.skeleton.name)}'"


Definition = SkeletonDefinition | PointSkeleton
"""What a definition file contains."""


def check_unique(names: Sequence[str], kind: str) -> None:
    """Raise a ValueError if a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{kind} '{printable(name)}' occurs twice; names must be unique")
        seen.add(name)


def check_involution(skeleton: Skeleton) -> None:
    """Raise a ValueError if a joint has two counterparts on the other side of the body."""
    counts: dict[int, set[int]] = {}
    for pair in skeleton.mirror_pairs or ():
        for joint, other in (pair, pair[::-1]):
            counts.setdefault(joint, set()).add(other)
    for joint, others in counts.items():
        if len(others) > 1 or joint in others:
            name = printable(skeleton.joint_names[joint])
            listed = _listed([skeleton.joint_names[other] for other in sorted(others)])
            raise ValueError(
                f"mirror pairs joint '{name}' with {listed}; a joint has one counterpart, which "
                'is another joint'
            )


def _as_selection(convention: Convention) -> Convention:
    """Return the same convention without weights if each joint is one of the used joints."""
    weights = convention.weights
    assert weights is not None
    if not (np.isin(weights, (0, 1)).all() and (weights.sum(axis=1) == 1).all()):
        return convention
    return dataclasses.replace(
        convention, indices=convention.indices[weights.argmax(axis=1)], weights=None
    )


def _listed(names: Sequence[str]) -> str:
    """Return the first names in quotes, and the number of the others."""
    listed = ', '.join(f"'{printable(name)}'" for name in names[:MAX_LISTED_JOINTS])
    more = len(names) - MAX_LISTED_JOINTS
    return f'{listed} and {more} more' if more > 0 else listed
