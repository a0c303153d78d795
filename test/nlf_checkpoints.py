"""A small NLF checkpoint with random weights, for tests of what does not depend on them."""

from __future__ import annotations

import numpy as np
import torch
from conftest import make_nlf_checkpoint
from torch import nn

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.crop_networks.efficientnet import ConvNormAct
from metrabs_ros.crop_networks.torch_engine import TorchEngine
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.nlf.checkpoint import NlfCheckpoint
from metrabs_ros.nlf.estimator import NlfEstimator
from metrabs_ros.nlf.network import FeatureNetwork, LocalizerField, NlfConfig
from metrabs_ros.skeletons.conventions import Convention, Skeleton

TINY_CHANNELS = 16


def _points() -> tuple[FloatArray, dict[str, Convention]]:
    """Return the canonical points, and the skeletons; the one of all points is the first."""
    conventions = {}
    for name, skeleton in make_nlf_checkpoint.skeleton_types().items():
        joints = Skeleton(name, tuple(skeleton['names']), tuple(skeleton['edges']))
        conventions[name] = Convention(joints, np.array(skeleton['indices']))
    names = make_nlf_checkpoint.JOINT_NAMES
    points_m = np.array([make_nlf_checkpoint.canonical_point(name) for name in names])
    return points_m, {'': conventions.pop(''), **conventions}


def tiny_estimator() -> NlfEstimator:
    """Return an estimator with a tiny network, and a detector without detections."""
    checkpoint = tiny_checkpoint()
    checkpoint.field.gps_net.mini.fill_(-1)
    engine = TorchEngine(checkpoint.crop_model, torch.device('cpu'), 'fp32')
    choice = Choice('torch', 'fp32', 'cpu', 'for tests')
    no_boxes = Boxes(np.zeros((0, 4)), np.zeros(0))
    return NlfEstimator(checkpoint, lambda *_: no_boxes, engine, choice)


def tiny_checkpoint() -> NlfCheckpoint:
    """Return made-up points, and a network that is exported in a second."""
    torch.manual_seed(0)
    config = NlfConfig('s', 256, 32, True, 8, 2200.0, TINY_CHANNELS)
    features = FeatureNetwork(config)
    link = nn.Conv2d(TINY_CHANNELS, TINY_CHANNELS, 1, bias=False)
    features.backbone = nn.Sequential(
        nn.Conv2d(3, TINY_CHANNELS, 32, stride=32), nn.SiLU(), ConvNormAct(link)
    )
    field = LocalizerField(16, 32, 8, (16, (TINY_CHANNELS + 1) * config.maps))
    return NlfCheckpoint(config, features.eval(), field.eval(), *_points())
