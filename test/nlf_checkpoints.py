"""NLF checkpoints with random weights that depend on the image; see data/nlf."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from conftest import DATA

from metrabs_ros.nlf.checkpoint import NlfCheckpoint
from metrabs_ros.nlf.network import FeatureNetwork, LocalizerField, NlfConfig
from metrabs_ros.skeletons.conventions import Convention, Skeleton

_spec = importlib.util.spec_from_file_location(
    'make_nlf_checkpoint', DATA / 'nlf' / 'make_nlf_checkpoint.py'
)
assert _spec is not None
assert _spec.loader is not None
make_nlf_checkpoint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_nlf_checkpoint)

CONFIG = NlfConfig('s', 256, 32, True, 8, 2200.0, 512, uncertainty_bias=-0.5)
HEAD = 'heatmap_head.layer.'
FIELD = 'heatmap_head.weight_field.'


def small_checkpoint() -> NlfCheckpoint:
    """Return a checkpoint with EfficientNetV2-S and made-up points."""
    state = make_nlf_checkpoint.state_dict('s')
    features = FeatureNetwork(CONFIG)
    renamed = {
        name.replace(HEAD, 'backbone.2.'): value
        for name, value in state.items()
        if name.startswith(('backbone.', HEAD))
    }
    features.load_state_dict(renamed)
    field = LocalizerField(512, 2048, 1024, (384, 513 * 10))
    field.load_state_dict(
        {name.removeprefix(FIELD): v for name, v in state.items() if name.startswith(FIELD)},
        strict=False,
    )
    nodes = torch.from_numpy(make_nlf_checkpoint.nodes()).float()
    field.gps_net.mini.copy_(nodes.amin(dim=0))
    field.gps_net.maxi.copy_(nodes.amax(dim=0))
    eigenvalues = make_nlf_checkpoint.eigenvalues()[1 : 1 + len(field.r_sqrt_eigva)]
    field.r_sqrt_eigva.copy_(torch.from_numpy(eigenvalues**-0.5))
    names = make_nlf_checkpoint.JOINT_NAMES
    conventions = {}
    for name, skeleton in make_nlf_checkpoint.skeleton_types().items():
        joints = Skeleton(name, tuple(skeleton['names']), tuple(skeleton['edges']))
        conventions[name] = Convention(joints, np.array(skeleton['indices']))
    points_m = np.array([make_nlf_checkpoint.canonical_point(name) for name in names])
    ordered = {'': conventions.pop(''), **conventions}
    return NlfCheckpoint(CONFIG, features.eval(), field.eval(), points_m, ordered)
