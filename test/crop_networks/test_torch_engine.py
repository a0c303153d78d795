"""The changes of the network for GPUs do not change its results."""

from __future__ import annotations

import torch
from torch import nn

from metrabs_ros.crop_networks.torch_engine import (
    PointwiseConvolution,
    fuse_norms,
    replace_pointwise_convolutions,
)
from metrabs_ros.metrabs.checkpoint import read_checkpoint


def test_pointwise_convolutions_as_matrix_products_give_the_same_points(checkpoint_folder):
    network = read_checkpoint(checkpoint_folder('s_centered')).crop_model
    crops = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    crops = crops.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(crops)
        fuse_norms(network)
        replace_pointwise_convolutions(network.backbone)
        points = network(crops)
    # The stem, 9 fused blocks with an expansion convolution of 3 x 3, and 30 with a depthwise one.
    convolutions = [m for m in network.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(convolution.kernel_size == (3, 3) for convolution in convolutions)
    assert sum(isinstance(m, PointwiseConvolution) for m in network.modules()) == 129
    for actual, wanted in zip(points, expected):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0.02)


def test_matrix_products_keep_the_memory_format():
    convolution = nn.Conv2d(5, 7, 1)
    features = torch.rand(2, 5, 4, 3).to(memory_format=torch.channels_last)
    result = PointwiseConvolution(convolution)(features)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, convolution(features))
