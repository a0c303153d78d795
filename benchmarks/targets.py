"""Comparison of measured values with targets: a missed target is printed and is an exit status."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Target:
    """
    A measured value and its limits.

    Parameters
    ----------
    what
        What was measured.
    value
        The value.
    unit
        Its unit.
    at_least, at_most
        The limits.
    """

    what: str
    value: float
    unit: str
    at_least: float = float('-inf')
    at_most: float = float('inf')

    @property
    def is_met(self) -> bool:
        """Whether the value is within the limits; NaN is not."""
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        """Return a line of the report."""
        limits = [
            f'{word} {limit:g}'
            for word, limit in (('at least', self.at_least), ('at most', self.at_most))
            if abs(limit) != float('inf')
        ]
        result = 'met   ' if self.is_met else 'MISSED'
        value = f'{self.value:.3g} {self.unit}'.strip()
        return f'target {result}  {self.what}: {value} ({", ".join(limits)})'


def report(targets: Sequence[Target]) -> int:
    """Print the targets, and return the exit status: 1 if one is missed."""
    for target in targets:
        print(target)
    return 0 if all(target.is_met for target in targets) else 1
