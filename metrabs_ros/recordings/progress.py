"""Showing how far long operations on files are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from tqdm import tqdm

DISPLAY_DELAY_S = 1.0

Advance = Callable[[int], None]
"""Is told how many more bytes, or whatever is counted, have been worked on."""


class Progress(Protocol):
    """Opens a display of an operation's progress."""

    def __call__(self, what: str, total: int | None, unit: str) -> AbstractContextManager[Advance]:
        """Show what is done until the context ends; of how much in all, if that is known."""
        ...


@contextlib.contextmanager
def no_progress(what: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda count: None


@contextlib.contextmanager
def progress_bar(what: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show a bar on the standard error output as soon as an operation takes longer."""
    with tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=True,
        delay=DISPLAY_DELAY_S,
        leave=False,
        file=sys.stderr,
    ) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
