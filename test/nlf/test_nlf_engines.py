"""The engines run the part of NLF that does not depend on the points."""

from __future__ import annotations

import copy
import re
import sys
import types

import fake_tensorrt
import numpy as np
import pytest
import torch
from nlf_checkpoints import tiny_checkpoint
from torch import nn

from metrabs_ros import loading
from metrabs_ros.backends import tensorrt_rtx
from metrabs_ros.backends.engine_cache import EngineCache
from metrabs_ros.backends.selection import Choice
from metrabs_ros.backends.tensorrt_plan import PlanError
from metrabs_ros.crop_networks import openvino_engine, tensorrt_engine, tensorrt_rtx_plans
from metrabs_ros.crop_networks.torch_engine import fuse_norms, replace_pointwise_convolutions
from metrabs_ros.metrabs.checkpoint import read_checkpoint
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig

CPU = torch.device('cpu')
ON_CPU = Choice('tensorrt', 'the precision of the plan', 'cpu', 'the substitute runs there')


@pytest.fixture
def package(monkeypatch):
    return fake_tensorrt.install(monkeypatch, 'tensorrt')


def plan_file(network, folder):
    """Write a plan with the input and the outputs of a network."""
    tensors = {tensor.name: ('OUTPUT', [-1, *tensor.shape], 'FLOAT') for tensor in network.outputs}
    tensors[network.input.name] = ('INPUT', [-1, *network.input.shape], 'FLOAT')
    file = folder / 'network.plan'
    file.write_bytes(fake_tensorrt.plan(tensors))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(('skeleton', 'index'), [(None, 0), ('', 3), ('h36m_17', 3)])
def test_plans_of_the_features_and_of_all_points_give_the_features(
    package, tmp_path, skeleton, index
):
    checkpoint = tiny_checkpoint()
    network = checkpoint.engine_network
    if skeleton is not None:
        network = checkpoint.exported_network(skeleton)
    run = loading.start_plan(checkpoint, ON_CPU, plan_file(network, tmp_path))
    (features,) = run(torch.arange(20.0).view(-1, 1, 1, 1).expand(20, 3, 256, 256))
    assert features.shape == (20, 16, 8, 8)
    # The substitute returns the mean of each crop plus the index of the output.
    torch.testing.assert_close(features[:, 3, 2, 1], torch.arange(20.0) + index)


def test_a_plan_of_metrabs_is_rejected(package, checkpoint_folder, tmp_path):
    network = read_checkpoint(checkpoint_folder('s_centered')).engine_network
    message = 'inputs and outputs image_points_px, metric_points_mm, crops; .*features float32'
    with pytest.raises(PlanError, match=message):
        loading.start_plan(tiny_checkpoint(), ON_CPU, plan_file(network, tmp_path))


def test_plans_for_tensorrt_rtx_are_compiled_from_the_features_only(monkeypatch, tmp_path):
    exported, compiled = [], []

    def to_onnx(network, precision):
        exported.append([output.name for output in network.outputs])
        return b'onnx'

    def compile_onnx(network, target, input_name, batches):
        compiled.append((network, target))
        return b'plan'

    version = types.SimpleNamespace(__version__='1.7', __spec__=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', version)
    replaced = {'to_onnx': to_onnx, 'require_packages': int, 'package_versions': dict}
    for name, replacement in replaced.items():
        monkeypatch.setattr(tensorrt_rtx_plans, name, replacement)
    monkeypatch.setattr(tensorrt_rtx, 'compile_onnx', compile_onnx)
    monkeypatch.setattr(tensorrt_rtx, 'check_plan', lambda content: None)
    network = tiny_checkpoint().engine_network
    targets = ['sm86', 'sm89']
    plans = tensorrt_rtx_plans.load_plans(network, 'fp16', targets, EngineCache(tmp_path))
    assert plans == [b'plan', b'plan']
    assert exported == [['features']]
    assert compiled == [(b'onnx', 'sm86'), (b'onnx', 'sm89')]


def test_openvino_gives_the_features_of_torch_also_from_the_cache(tmp_path):
    crops = torch.from_numpy(np.random.default_rng(0).random((5, 3, 256, 256), np.float32))
    with torch.inference_mode():
        (expected,) = tiny_checkpoint().crop_model(crops)
    choice = Choice('openvino', 'fp32', 'cpu', '')
    for _ in range(2):
        run = loading.start_engine(tiny_checkpoint(), choice, EngineCache(tmp_path), threads=1)
        (features,) = run(crops)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)
    assert len(list(tmp_path.glob('*/network.xml'))) == 1


def test_the_link_convolution_as_a_matrix_product_gives_the_same_features():
    model = tiny_checkpoint().crop_model
    crops = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (expected,) = model(crops)
        fuse_norms(model)
        replace_pointwise_convolutions(model.backbone)
        (features,) = model(crops)
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 1
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


def test_networks_with_the_same_backbone_never_share_an_entry_of_the_cache(monkeypatch):
    gpu = types.SimpleNamespace(name='NVIDIA Fake', major=8, minor=9)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: gpu)
    checkpoint = tiny_checkpoint()
    features, points = checkpoint.engine_network, checkpoint.exported_network('')
    metrabs = CropModel(MetrabsConfig('s', 256, 32, True, False, 8, 2200.0), 24)
    metrabs.backbone = features.model.backbone
    other_link = copy.deepcopy(features.model)
    with torch.no_grad():
        other_link.backbone[2][0].weight[0, 0] += 1e-3
    networks = [
        (features.model, features.config),
        (points.model, points.config),
        (checkpoint.exported_network('h36m_17').model, points.config),
        (other_link, features.config),
        (metrabs, MetrabsConfig('s', 256, 32, True, False, 8, 2200.0)),
    ]
    for key in (
        openvino_engine.cache_key,
        lambda model, config: tensorrt_engine.cache_key(model, config, CPU, 'fp16'),
    ):
        assert len({str(key(*network)) for network in networks}) == len(networks)
    keys = [tensorrt_rtx_plans.network_key(network, 'fp16') for network in (features, points)]
    assert keys[0]['outputs'] == 'features float32 [batch, 16, 8, 8]'
    assert re.fullmatch(r'image_points_px .*, features float32 .*', keys[1]['outputs'])
    assert keys[0]['weights'] != keys[1]['weights']
    # The configurations differ, even if networks had the same weights.
    assert repr(features.config).startswith('NlfConfig')
