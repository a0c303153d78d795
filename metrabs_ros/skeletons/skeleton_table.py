"""Tables of skeletons in checkpoints, as published for the official implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.weights.checkpoint_checks import as_edges, as_indices, as_names

MAX_SKELETONS = 256


def conventions_of_table(infos: Mapping[Any, Any], joints: int) -> dict[str, Convention]:
    """
    Return the skeletons of a table by name.

    Parameters
    ----------
    infos
        For the name of each skeleton, a mapping with the ``indices``, ``names`` and ``edges`` of
        its joints; untrusted.
    joints
        Number of joints of the network.

    Raises
    ------
    ValueError, LookupError, TypeError
        If the content is not as expected.
    """
    if len(infos) > MAX_SKELETONS:
        raise ValueError(f'it has {len(infos)} skeletons, more than {MAX_SKELETONS}')
    conventions = {}
    for name, info in infos.items():
        (checked_name,) = as_names([name])
        indices = as_indices(info['indices'])
        names = as_names(info['names'])
        if indices.shape != (len(names),):
            raise ValueError(f'{name!r} has {len(names)} names, but indices {indices.shape}')
        if len(indices) and not (indices.min() >= 0 and indices.max() < joints):
            raise ValueError(
                f'{name!r} has an index {indices.max()}, but there are {joints} joints'
            )
        skeleton = Skeleton(checked_name, names, as_edges(info['edges'], len(names)))
        conventions[checked_name] = Convention(skeleton, indices.astype(np.intp))
    return conventions
