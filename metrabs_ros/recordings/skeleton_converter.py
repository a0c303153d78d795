"""Conversion of skeletons by the names of their joints, and the counts of a conversion."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Sequence

from metrabs_ros.foreign_text import printable
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import Definition, PointSkeleton

MAX_LABEL_CHARS = 300
MAX_REASONS = 100
"""Maximum number of different reasons that are counted; names in recordings are part of them."""
OTHER_REASONS = 'other messages, people or rows'
MAX_CONVENTIONS = 100
"""Maximum number of different skeletons that are remembered; recordings have one or few."""


class SkeletonConverter:
    """
    Converts skeletons by the names of their joints.

    Parameters
    ----------
    name
        Name of the new skeleton.
    definitions
        Definitions of users; the built-in ones are known.

    Raises
    ------
    ValueError
        If no definition with combinations of joints has the name, or two have the same.
    """

    def __init__(self, name: str, definitions: Sequence[Definition]) -> None:
        self._name = name
        self._definitions = dict(DEFINITIONS)
        for definition in definitions:
            if definition.skeleton.name in self._definitions:
                raise ValueError(
                    f'skeleton {definition.shown_name} exists already; give the definition '
                    'another name'
                )
            if not isinstance(definition, PointSkeleton):
                self._definitions[definition.skeleton.name] = definition
            elif definition.skeleton.name == name:
                raise ValueError(
                    f'skeleton {definition.shown_name} consists of points of the body, which '
                    'cannot be computed from joints; run annotate with an NLF network'
                )
        if name not in self._definitions:
            known = ', '.join(self._definitions)
            raise ValueError(
                f"skeleton is '{printable(name)}'; it must be one of {printable(known, 1000)}"
            )
        self._conventions: dict[Skeleton, Convention] = {}

    def convention(self, skeleton: Skeleton) -> Convention:
        """
        Return the new skeleton in terms of another one.

        Raises
        ------
        ValueError
            If that one lacks a joint.
        """
        if skeleton not in self._conventions:
            convention = self._find_convention(skeleton)
            if len(self._conventions) >= MAX_CONVENTIONS:
                self._conventions.clear()
            self._conventions[skeleton] = convention
        return self._conventions[skeleton]

    def _find_convention(self, skeleton: Skeleton) -> Convention:
        conventions = {skeleton.name: skeleton.within(skeleton)}
        for name, definition in self._definitions.items():
            if name == skeleton.name:
                continue
            # Definitions for other networks are not usable, unless it is the requested one.
            with contextlib.suppress(ValueError):
                conventions[name] = definition.within(conventions)
        if self._name in conventions:
            return conventions[self._name]
        return self._definitions[self._name].within(conventions)


@dataclasses.dataclass
class ConversionSummary:
    """
    Result of a conversion.

    Parameters
    ----------
    people
        Number of converted people, summed over the frames.
    approximate
        Number of people whose image points are means without regard to the depths, because the
        recorded ones are not projections of the positions.
    skipped
        Numbers of messages, people or rows that could not be converted, by reason.
    """

    people: int = 0
    approximate: int = 0
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count something that could not be converted."""
        is_known = reason in self.skipped or len(self.skipped) < MAX_REASONS
        self.skipped[reason if is_known else OTHER_REASONS] += count
