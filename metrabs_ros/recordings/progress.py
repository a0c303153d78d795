"""Progress display of long file operations."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from tqdm import tqdm

DISPLAY_DELAY_S = 1.0
"""Time after which the progress of an operation is displayed, in seconds."""

Advance = Callable[[int], None]
"""Callback with the number of units, such as bytes, completed since the last call."""


class Progress(Protocol):
    """Creates context managers that display the progress of an operation."""

    def __call__(
        self, description: str, total: int | None, unit: str
    ) -> AbstractContextManager[Advance]:
        """
        Display the progress until the context ends.

        Parameters
        ----------
        description
            Description of the operation.
        total
            Total number of units; None if it is unknown.
        unit
            Unit of the numbers.
        """
        ...


@contextlib.contextmanager
def no_progress(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Display nothing; see `Progress`."""
    yield lambda count: None


@contextlib.contextmanager
def progress_bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Display a bar on standard error after `DISPLAY_DELAY_S`; see `Progress`."""
    with tqdm(
        desc=description,
        total=total,
        unit=unit,
        # Prefixes such as k for bytes only.
        unit_scale=unit == 'B',
        delay=DISPLAY_DELAY_S,
        leave=False,
        file=sys.stderr,
    ) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
