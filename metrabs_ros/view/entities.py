"""Entity paths in the viewer for cameras with untrusted names."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PATH_CHARS = 80
"""Maximum length of a path, before a number is appended."""
RESERVED_PATHS = frozenset({'tf'})
"""Entity paths of the scene itself."""


def entity_paths(names: Iterable[str]) -> dict[str, str]:
    """
    Return a unique entity path for each name.

    Slashes separate path components, as in ``rear/left``.  Characters other than letters, digits
    and underscores are replaced.

    Parameters
    ----------
    names
        Names of cameras; an empty name has an empty path.
    """
    paths: dict[str, str] = {}
    taken = set(RESERVED_PATHS)
    for name in names:
        parts = [re.sub(r'[^A-Za-z0-9_]', '_', part) for part in name.split('/') if part]
        base = path = '/'.join(parts)[:MAX_PATH_CHARS].strip('/')
        number = 1
        while path in taken:
            number += 1
            path = f'{base}_{number}'
        taken.add(path)
        paths[name] = path
    return paths
