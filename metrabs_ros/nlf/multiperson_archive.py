"""
Reader for the published multi-person archives of TorchScript.

They contain the crop network, a person detector, and fits of body models; only the data of the
crop network and of its skeletons is read.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from metrabs_ros.arrays import FloatArray
from metrabs_ros.nlf.canonical import (
    BODY_MODELS,
    JointTable,
    canonical_locations,
    checked_points,
    joint_names,
)
from metrabs_ros.nlf.parameters import (
    SETTINGS,
    WHITE_BACKGROUND,
    Networks,
    Parameters,
    read_array,
    read_networks,
    with_official_names,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.skeleton_table import MAX_SKELETONS, conventions_of_table
from metrabs_ros.weights.checkpoint_checks import described, read_untrusted
from metrabs_ros.weights.script_archive import (
    MAX_PICKLE_BYTES,
    attributes,
    module_tensors,
    unwrapped,
)
from metrabs_ros.weights.settings import Settings
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import WeightsFile, open_weights

CROP_MODEL, HEAD = 'crop_model', 'heatmap_head'
POINTS = {
    'canonical_lefts': (None, 3),
    'canonical_centers': (None, 2),
    'inv_permutation': (None,),
    'canonical_delta_mask': (None,),
    'canonical_locs_init': (None, 3),
}
"""Tensors of the crop model and their shapes: the arguments of `canonical_locations`."""
BODY_POINTS = 'cano_all'
INDICES, EDGES = 'per_skeleton_indices', 'per_skeleton_joint_edges'
NAMES, INDEX_LISTS = 'per_skeleton_joint_names', 'skeleton_joint_indices_table'


def read_archive(
    file: pathlib.Path,
) -> tuple[Networks, JointTable | None, dict[str, FloatArray]]:
    """
    Read a multi-person archive.

    Returns
    -------
    As of `crop_folder.read_folder`.

    Raises
    ------
    WeightsError
        If the file is damaged or contains something else.
    """
    return read_untrusted(file, _read, 'a multi-person model of NLF, saved by torch.jit.save')


def _read(file: pathlib.Path) -> tuple[Networks, JointTable | None, dict[str, FloatArray]]:
    with open_weights(file, MAX_PICKLE_BYTES) as weights:
        model = attributes(weights.content)
        crop_model = attributes(model.get(CROP_MODEL))
        head = attributes(crop_model.get(HEAD))
        settings = {name: _setting(head[name]) for name in SETTINGS if name in head}
        if WHITE_BACKGROUND in model:
            settings[WHITE_BACKGROUND] = _setting(model[WHITE_BACKGROUND])
        recorded = with_official_names(module_tensors(model[CROP_MODEL]))
        parameters = Parameters(file, weights, recorded)
        networks = read_networks(parameters, {}, Settings(file, settings))
        table = _joint_table(parameters, model)
        body_points_m = _body_points(weights, model)
    if table is None and not body_points_m:
        raise WeightsError(
            f'{shown(file)} has no canonical points of joints; expected: {BODY_POINTS} with the '
            f'joints of body models, or {CROP_MODEL} with {", ".join(POINTS)}'
        )
    return networks, table, body_points_m


def _setting(value: Any) -> Any:
    """Return a number or truth value, or a description of something else."""
    return value if isinstance(value, int | float) else described(value)


def _body_points(weights: WeightsFile, model: Mapping[Any, Any]) -> dict[str, FloatArray]:
    """Return the canonical points of the joints of body models, which follow their vertices."""
    recorded = _dictionary(model, BODY_POINTS)
    points_m = {}
    for name, body in BODY_MODELS.items():
        if name in recorded:
            joints = len(body.skeleton)
            array = read_array(weights, f'{BODY_POINTS}[{name}]', recorded[name], (None, 3))
            points_m[name] = checked_points(array[-joints:], joints)
    return points_m


def _joint_table(parameters: Parameters, model: Mapping[Any, Any]) -> JointTable | None:
    """Return the joints that the network was trained with; None if they are not in the file."""
    if not all(name in parameters for name in POINTS):
        return None
    lefts, centers, positions, trained, initial_m = (
        parameters.array(name, shape) for name, shape in POINTS.items()
    )
    checked_points(initial_m, len(initial_m))
    points_m = canonical_locations(lefts, centers, positions, trained, initial_m)
    conventions = conventions_of_table(_skeletons(parameters.weights, model), len(points_m))
    return JointTable(joint_names(conventions, len(points_m)), points_m, conventions)


def _skeletons(weights: WeightsFile, model: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the skeletons as `conventions_of_table` expects them."""
    names, edges = _dictionary(model, NAMES), _dictionary(model, EDGES)
    indices, index_lists = _dictionary(model, INDICES), _dictionary(model, INDEX_LISTS)
    # Each of them has to be read.
    if len(names) > MAX_SKELETONS:
        raise ValueError(f'it has {len(names)} skeletons, more than {MAX_SKELETONS}')

    def array(recorded: Mapping[Any, Any], name: Any) -> Any:
        return read_array(weights, f'skeleton {name}', recorded[name]) if name in recorded else ()

    return {
        name: {
            'indices': unwrapped(index_lists[name])
            if name in index_lists
            else array(indices, name),
            'names': unwrapped(recorded_names),
            'edges': array(edges, name),
        }
        for name, recorded_names in names.items()
    }


def _dictionary(model: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """Return a dictionary among the attributes of a module; empty if there is none."""
    value = unwrapped(model.get(name, {}))
    if not isinstance(value, dict):
        raise ValueError(f'{name} is {described(value)} instead of a dictionary')
    return value
