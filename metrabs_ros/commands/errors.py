"""Error messages and exit statuses of commands."""

from __future__ import annotations

import sys

from tqdm import tqdm

from metrabs_ros.foreign_text import printable

MAX_ERROR_CHARS = 3000
"""Maximum length of an error message."""
INTERRUPTED_STATUS = 130
"""Exit status after SIGINT, as in a shell."""


def print_error(error: object) -> int:
    """Print an error message on one line, also while a progress bar is shown; return status 1."""
    tqdm.write(f'metrabs_ros: {printable(error, MAX_ERROR_CHARS)}', file=sys.stderr)
    return 1
