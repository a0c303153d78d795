"""Points computed by OpenVINO match those of torch for any number of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from metrabs_ros.backends.engine_cache import EngineCache
from metrabs_ros.crop_networks.efficientnet import FEATURES
from metrabs_ros.crop_networks.openvino_engine import OpenVinoCropEngine
from metrabs_ros.metrabs.checkpoint import read_checkpoint


@pytest.fixture
def checkpoint(checkpoint_folder):
    """Return a checkpoint with a small backbone; the golden cases run the whole network."""
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    torch.manual_seed(0)
    checkpoint.crop_model.backbone = nn.Sequential(
        nn.Conv2d(3, FEATURES, 32, stride=32), nn.BatchNorm2d(FEATURES), nn.SiLU()
    )
    return checkpoint


@pytest.fixture
def expected(checkpoint):
    """Return five crops, and their points computed by torch."""
    network = checkpoint.crop_model.eval()
    crops = torch.from_numpy(np.random.default_rng(0).random((5, 3, 256, 256), np.float32))
    with torch.inference_mode():
        return crops, network(crops)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """Return a cache, so that the network is converted once."""
    return EngineCache(tmp_path_factory.mktemp('engines'))


@pytest.mark.parametrize('threads', [1, 2])
def test_points_match_torch_for_any_number_of_crops(checkpoint, expected, cache, threads):
    crops, expected_points = expected
    run = OpenVinoCropEngine(checkpoint.crop_model, checkpoint.config, 'fp32', cache, threads)
    for count in (1, 2, 3, 5):
        for points, correct in zip(run(crops[:count]), expected_points):
            np.testing.assert_allclose(points, correct[:count], atol=0.05)
