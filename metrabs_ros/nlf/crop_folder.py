"""Reader for crop checkpoints: a state dict, and small data files next to it."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.nlf.canonical import (
    BODY_MODELS,
    JointTable,
    canonical_locations,
    checked_points,
    is_trained,
    read_joint_names,
    side_order,
)
from metrabs_ros.nlf.parameters import (
    EIGENVALUES,
    HIGH,
    LOW,
    Networks,
    Parameters,
    read_networks,
    with_official_names,
)
from metrabs_ros.regular_file import read_limited, shown
from metrabs_ros.skeletons.skeleton_table import conventions_of_table
from metrabs_ros.weights.array_file import read_npy
from metrabs_ros.weights.checkpoint_checks import read_untrusted
from metrabs_ros.weights.plain_pickle import MAX_PICKLE_BYTES, read_plain
from metrabs_ros.weights.settings import Settings, read_settings
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import open_weights, state_items

_LOGGER = logging.getLogger(__name__)

CONFIG = 'config.yaml'
EIGENVALUES_FILE, NODES_FILE = 'canonical_eigval3.npy', 'canonical_nodes3.npy'
JOINTS, SKELETONS = 'joint_info_866.pkl', 'skeleton_types_huge8.pkl'
INITIAL_POINTS = 'canonical_loc_symmetric_init_866.npy'
TABLE_FILES = (JOINTS, INITIAL_POINTS, SKELETONS)
BODY_JOINTS = {model: f'canonical_joints/{model}.npy' for model in BODY_MODELS}
WRAPPED_STATE = 'model_state_dict'
LEFTS, CENTERS = 'canonical_lefts', 'canonical_centers'


def read_folder(
    file: pathlib.Path,
) -> tuple[Networks, JointTable | None, dict[str, FloatArray]]:
    """
    Read a crop checkpoint.

    Parameters
    ----------
    file
        The state dict; the other files are in the same folder.

    Returns
    -------
    The networks, the joints that they were trained with, and the canonical points of the joints of
    body models by name.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, or does not fit the other files.
    """
    folder = file.parent
    missing = [
        name for name in (EIGENVALUES_FILE, NODES_FILE) if not os.path.lexists(folder / name)
    ]
    if missing:
        raise WeightsError(
            f'{shown(folder)} lacks {" and ".join(missing)}; {shown(file)} needs the eigenvalues '
            'and nodes of the canonical body'
        )
    buffers = {
        EIGENVALUES: read_untrusted(
            folder / EIGENVALUES_FILE, _inverse_roots, 'an array of positive eigenvalues'
        ),
        **read_untrusted(folder / NODES_FILE, _bounds, 'points [N, 3] in metres'),
    }
    settings: dict[str, Any] = {}
    if os.path.lexists(folder / CONFIG):
        settings = read_untrusted(folder / CONFIG, read_settings, 'settings in YAML')
    body_points_m = {
        model: _body_points(folder / name, len(BODY_MODELS[model].skeleton))
        for model, name in BODY_JOINTS.items()
        if os.path.lexists(folder / name)
    }
    untrained = _joint_table(folder)

    def read(file: pathlib.Path) -> tuple[Networks, JointTable | None]:
        with open_weights(file) as weights:
            state = state_items(weights.content)
            if WRAPPED_STATE in state:
                state = state_items(state[WRAPPED_STATE])
            parameters = Parameters(file, weights, with_official_names(state))
            networks = read_networks(parameters, buffers, Settings(folder / CONFIG, settings))
            if untrained is None or LEFTS not in parameters:
                return networks, None
            return networks, _with_trained_points(untrained, parameters)

    networks, table = read_untrusted(file, read, "tensors of the network's parameters")
    if table is None and not body_points_m:
        raise WeightsError(
            f'{shown(folder)} has no canonical points of joints; expected: '
            f'{" or ".join(BODY_JOINTS.values())} with the joints of body models, or '
            f'{", ".join(TABLE_FILES)} with the joints of the network'
        )
    return networks, table, body_points_m


def _inverse_roots(file: pathlib.Path) -> NDArray[Any]:
    """Return the reciprocal square roots of the eigenvalues, without the first one, which is 0."""
    eigenvalues = read_npy(file)
    if eigenvalues.ndim != 1 or eigenvalues.dtype.kind not in 'fiu':
        raise ValueError(f'it contains {eigenvalues.dtype} of shape {eigenvalues.shape}')
    used = eigenvalues[1:].astype(np.float32)
    # The condition also rejects NaN.
    if not ((used > 0) & (used < np.inf)).all():
        raise ValueError('an eigenvalue is not positive')
    inverse: NDArray[Any] = 1 / np.sqrt(used)
    return inverse


def _bounds(file: pathlib.Path) -> dict[str, NDArray[Any]]:
    nodes = read_npy(file)
    if nodes.ndim != 2 or nodes.shape[1] != 3 or not len(nodes) or nodes.dtype.kind not in 'fiu':
        raise ValueError(f'it contains {nodes.dtype} of shape {nodes.shape}')
    return {LOW: nodes.min(axis=0), HIGH: nodes.max(axis=0)}


def _body_points(file: pathlib.Path, joints: int) -> FloatArray:
    return read_untrusted(
        file,
        lambda file: checked_points(read_npy(file), joints).astype(np.float32).astype(np.float64),
        f'canonical points [{joints}, 3] in metres',
    )


def _joint_table(folder: pathlib.Path) -> JointTable | None:
    """Return the joints with the points before training; None if files are missing."""
    missing = [name for name in (JOINTS, INITIAL_POINTS) if not os.path.lexists(folder / name)]
    if missing:
        _LOGGER.info(
            '%s lacks %s: only the skeletons of body models are available',
            shown(folder),
            ' and '.join(missing),
        )
        return None
    names = read_untrusted(folder / JOINTS, _joint_names, 'an object with the names of joints')
    points_m = read_untrusted(
        folder / INITIAL_POINTS,
        lambda file: checked_points(read_npy(file), len(names)),
        f'canonical points [{len(names)}, 3] in metres, of the joints in {JOINTS}',
    )
    if not os.path.lexists(folder / SKELETONS):
        _LOGGER.info('%s lacks %s: most skeletons are not available', shown(folder), SKELETONS)
        return JointTable(names, points_m, {})
    conventions = read_untrusted(
        folder / SKELETONS,
        lambda file: conventions_of_table(
            read_plain(read_limited(file, MAX_PICKLE_BYTES)), len(names)
        ),
        'indices, names and edges of each skeleton, in plain containers or numpy arrays',
    )
    return JointTable(names, points_m, conventions)


def _joint_names(file: pathlib.Path) -> tuple[str, ...]:
    names = read_joint_names(read_limited(file, MAX_PICKLE_BYTES))
    # Each left joint needs a counterpart.
    side_order(names)
    return names


def _with_trained_points(table: JointTable, parameters: Parameters) -> JointTable:
    points_m = canonical_locations(
        parameters.array(LEFTS, (None, 3)),
        parameters.array(CENTERS, (None, 2)),
        np.argsort(side_order(table.names)),
        is_trained(table.names).astype(np.float32),
        table.points_m.astype(np.float32),
    )
    return dataclasses.replace(table, points_m=points_m)
