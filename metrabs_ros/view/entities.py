"""Paths of entities for cameras, whose names may come from topics of a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PATH_CHARS = 80
RESERVED_PATHS = frozenset({'tf'})
"""Of the scene itself."""


def entity_paths(names: Iterable[str]) -> dict[str, str]:
    """
    Return a path for each name, all of them different.

    Namespaces are kept: ``rear/left`` is ``rear/left``.  Other characters than letters, digits
    and underscores are replaced, so that no name leads anywhere else in the tree.

    Parameters
    ----------
    names
        The names of cameras; the empty one has an empty path.
    """
    paths: dict[str, str] = {}
    taken = set(RESERVED_PATHS)
    for name in names:
        parts = [re.sub(r'[^A-Za-z0-9_]', '_', part) for part in name.split('/') if part]
        wanted = path = '/'.join(parts)[:MAX_PATH_CHARS].strip('/')
        number = 1
        while path in taken:
            number += 1
            path = f'{wanted}_{number}'
        taken.add(path)
        paths[name] = path
    return paths
