"""Error messages, warnings and exit statuses of commands."""

from __future__ import annotations

import sys

from tqdm import tqdm

from metrabs_ros.foreign_text import printable

MAX_ERROR_CHARS = 3000
"""Maximum length of an error message or a warning."""
INTERRUPTED_STATUS = 130
"""Exit status after SIGINT, as in a shell."""


def print_error(error: object) -> int:
    """Print an error message on one line, also while a progress bar is shown; return status 1."""
    _print(f'metrabs_ros: {error}')
    return 1


def print_warning(warning: str) -> None:
    """Print a warning on one line."""
    _print(f'warning: {warning}')


def _print(message: str) -> None:
    # Errors of other packages may have several lines.
    line = ' '.join(message.splitlines())
    tqdm.write(printable(line, MAX_ERROR_CHARS), file=sys.stderr)
