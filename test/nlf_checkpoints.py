"""NLF checkpoints with random weights that depend on the image; see data/nlf."""

from __future__ import annotations

import importlib.util
import tempfile

import numpy as np
import torch
from conftest import DATA
from torch import nn

from metrabs_ros.arrays import FloatArray
from metrabs_ros.metrabs.efficientnet import ConvNormAct
from metrabs_ros.nlf.checkpoint import NlfCheckpoint, read_checkpoint
from metrabs_ros.nlf.network import FeatureNetwork, LocalizerField, NlfConfig
from metrabs_ros.skeletons.conventions import Convention, Skeleton

_spec = importlib.util.spec_from_file_location(
    'make_nlf_checkpoint', DATA / 'nlf' / 'make_nlf_checkpoint.py'
)
assert _spec is not None
assert _spec.loader is not None
make_nlf_checkpoint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_nlf_checkpoint)

TINY_CHANNELS = 16


def small_checkpoint() -> NlfCheckpoint:
    """Return a checkpoint with EfficientNetV2-S and made-up points."""
    with tempfile.TemporaryDirectory() as folder:
        return read_checkpoint(make_nlf_checkpoint.write_checkpoint(folder, 's'))


def _points() -> tuple[FloatArray, dict[str, Convention]]:
    """Return the canonical points, and the skeletons; the one of all points is the first."""
    conventions = {}
    for name, skeleton in make_nlf_checkpoint.skeleton_types().items():
        joints = Skeleton(name, tuple(skeleton['names']), tuple(skeleton['edges']))
        conventions[name] = Convention(joints, np.array(skeleton['indices']))
    names = make_nlf_checkpoint.JOINT_NAMES
    points_m = np.array([make_nlf_checkpoint.canonical_point(name) for name in names])
    return points_m, {'': conventions.pop(''), **conventions}


def tiny_checkpoint() -> NlfCheckpoint:
    """Return the same points with two convolutions as backbone, which is exported in a second."""
    torch.manual_seed(0)
    config = NlfConfig('s', 256, 32, True, 8, 2200.0, TINY_CHANNELS)
    features = FeatureNetwork(config)
    link = nn.Conv2d(TINY_CHANNELS, TINY_CHANNELS, 1, bias=False)
    features.backbone = nn.Sequential(
        nn.Conv2d(3, TINY_CHANNELS, 32, stride=32), nn.SiLU(), ConvNormAct(link)
    )
    field = LocalizerField(16, 32, 8, (16, (TINY_CHANNELS + 1) * config.maps))
    return NlfCheckpoint(config, features.eval(), field.eval(), *_points())
