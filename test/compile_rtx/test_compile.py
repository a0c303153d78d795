"""
TensorRT engines of networks are compiled by torch_tensorrt's converters and TensorRT for RTX.

This shows that every operator is converted and that whole networks are compiled as requested.
Without a GPU the engine cannot run, so that neither its results nor its speed are tested.
"""

from __future__ import annotations

import without_gpu  # isort: skip, before torch_tensorrt

import time

import pytest
import torch
from nlf_checkpoints import tiny_checkpoint
from torch import nn

from metrabs_ros.crop_networks.crop_engine import MAX_BATCH, OPTIMAL_BATCH
from metrabs_ros.crop_networks.efficientnet import FEATURES
from metrabs_ros.crop_networks.tensorrt_engine import TensorRtEngine
from metrabs_ros.metrabs.checkpoint import read_checkpoint
from metrabs_ros.nlf import checkpoint as nlf

CPU = torch.device('cpu')
SIZES_MB = {'fp32': (80, 100), 'fp16': (40, 55)}
"""Limits of the size of an engine; the weights of EfficientNetV2-S have 83 MB in fp32."""
HEAD_OUTPUTS = {'SOFTMAX', 'MATRIX_MULTIPLY'}
"""Kinds of layers that only the heads have."""


class InMemory:
    """An engine cache without files, because an engine that is not loaded cannot be saved."""

    def load(self, key, build, read, make):
        return make()


def compile_network(model, config, precision):
    """Compile with the code of the engine; return its parts by name and the compiler's input."""
    without_gpu.COMPILED.clear()
    engine = TensorRtEngine(model, config, CPU, precision, InMemory())
    return dict(engine._network.named_children()), without_gpu.COMPILED


def network_of(kind, checkpoint_folder, nlf_folder):
    """Return a network with EfficientNetV2-S."""
    if kind == 'metrabs':
        return read_checkpoint(checkpoint_folder('s_centered')).engine_network
    checkpoint = nlf.read_checkpoint(nlf_folder('s'))
    is_whole = kind.startswith('points')
    return checkpoint.exported_network('smpl_24') if is_whole else checkpoint.engine_network


@pytest.mark.parametrize(
    ('kind', 'precision'),
    [
        *(('metrabs', 'fp32'), ('metrabs', 'fp16')),
        # Each takes half a minute.  The features are those of MeTRAbs without its heads, and the
        # heads are in fp32 for both precisions.
        *(('features of nlf', 'fp16'), ('points of nlf', 'fp32')),
    ],
)
def test_the_network_becomes_a_single_engine_with_the_requested_precision(
    checkpoint_folder, nlf_folder, kind, precision
):
    network = network_of(kind, checkpoint_folder, nlf_folder)
    convolutions, of_the_heads = (
        sum(isinstance(layer, nn.Conv2d) for layer in part.modules())
        for part in (network.model.backbone, network.model)
    )
    of_the_heads -= convolutions
    start_s = time.perf_counter()
    parts, compiled = compile_network(network.model, network.config, precision)
    seconds = time.perf_counter() - start_s
    (engine,), (given,) = parts.values(), compiled
    smallest, largest = SIZES_MB[precision]
    size_mb = len(engine.serialized_engine) / 1e6
    title = f'{network.name} with {len(network.outputs)} outputs'
    print(f'{title}, {precision}: {len(given.layers)} layers, {size_mb:.1f} MB, {seconds:.0f} s')
    assert smallest < size_mb < largest
    crop = network.input.shape
    assert given.profiles == [[(1, *crop), (OPTIMAL_BATCH, *crop), (MAX_BATCH, *crop)]]
    assert not given.tf32

    types = [layer.dtype for layer in given.layers if layer.kind == 'CONVOLUTION']
    assert set(types[:convolutions]) == {'FLOAT' if precision == 'fp32' else 'HALF'}
    assert types[convolutions:] == ['FLOAT'] * of_the_heads
    heads = [layer for layer in given.layers if layer.kind in HEAD_OUTPUTS]
    assert {layer.kind for layer in heads} == (HEAD_OUTPUTS if of_the_heads else set())
    assert {layer.dtype for layer in heads} <= {'FLOAT'}


@pytest.mark.parametrize('skeleton', [None, 'smpl_24'])
def test_an_engine_returns_a_tuple_also_of_a_single_output(skeleton):
    checkpoint = tiny_checkpoint()
    network = checkpoint.engine_network
    if skeleton is not None:
        network = checkpoint.exported_network(skeleton)
    engine = TensorRtEngine(network.model, network.config, CPU, 'fp32', InMemory())

    class Compiled(nn.Module):
        """Returns what a compiled engine returns, which cannot run here."""

        def forward(self, crops):
            outputs = [torch.ones(len(crops), *output.shape) for output in network.outputs]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

    ((name, _),) = engine._network.named_children()
    setattr(engine._network, name, Compiled())
    shapes = [tuple(output.shape) for output in engine(torch.zeros(5, *network.input.shape))]
    assert shapes == [(5, *output.shape) for output in network.outputs]


class Backbone(nn.Module):
    """A convolution and an operator."""

    def __init__(self, operator) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, FEATURES, 32, stride=32)
        self.operator = operator

    def forward(self, crops):
        return self.operator(self.features(crops))


def test_a_network_with_an_unsupported_operator_is_not_compiled(checkpoint_folder):
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    checkpoint.crop_model.backbone = Backbone(torch.sigmoid)
    parts, _ = compile_network(checkpoint.crop_model, checkpoint.config, 'fp32')
    assert len(parts) == 1
    checkpoint.crop_model.backbone = Backbone(torch.lgamma)
    with pytest.raises(AssertionError, match='model is not fully supported'):
        compile_network(checkpoint.crop_model, checkpoint.config, 'fp32')
