"""The exported network is compiled for named GPUs, and what cannot be used is rejected."""

from __future__ import annotations

import contextlib
import time

import onnx
import pytest
import tensorrt_rtx as trt
import torch
from torch import nn

from metrabs_ros import cli
from metrabs_ros.backends import tensorrt_rtx
from metrabs_ros.backends.tensorrt_plan import Plan, PlanError
from metrabs_ros.crop_networks.described_network import INPUT
from metrabs_ros.crop_networks.efficientnet import FEATURES
from metrabs_ros.crop_networks.onnx_export import to_onnx
from metrabs_ros.metrabs.checkpoint import read_checkpoint
from metrabs_ros.nlf import checkpoint as nlf

BATCHES = (1, 4, 64)
SIZES_MB = {'fp32': (80, 100), 'fp16': (40, 55)}
"""Limits of the size of a plan; the weights of EfficientNetV2-S have 83 MB in fp32."""


@pytest.fixture(scope='module')
def checkpoint(checkpoint_folder):
    """Return a checkpoint with a small backbone, which is exported and compiled in a second."""
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    checkpoint.crop_model.backbone = nn.Sequential(nn.Conv2d(3, FEATURES, 32, stride=32))
    return checkpoint


@pytest.fixture(scope='module')
def network(checkpoint):
    return to_onnx(checkpoint.engine_network, 'fp32')


@pytest.fixture(scope='module')
def plan(network):
    return tensorrt_rtx.compile_onnx(network, 'sm89', INPUT, BATCHES)


def test_build_engine_compiles_for_several_targets_and_finds_them_again(
    checkpoint_folder, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    folder = str(checkpoint_folder('s_centered'))
    command = ['build-engine', folder, '--precision', 'fp16', '--target', 'sm86,sm89,sm120']
    assert cli.main(command) == 0
    assert 'tensorrt_rtx for sm86, sm89, sm120' in capsys.readouterr().out
    plans = list(tmp_path.glob('engines/*/network.plan'))
    assert len(plans) == 3
    # The weights have 42 MB in fp16.
    assert all(40e6 < file.stat().st_size < 55e6 for file in plans)
    (exported,) = tmp_path.glob('engines/*/network.onnx')
    assert 40e6 < exported.stat().st_size < 50e6

    compiled = []
    compile_onnx = tensorrt_rtx.compile_onnx
    monkeypatch.setattr(
        tensorrt_rtx,
        'compile_onnx',
        lambda network, target, *rest: (
            compiled.append(target) or compile_onnx(network, target, *rest)
        ),
    )
    assert cli.main(command) == 0
    assert not compiled
    plans[0].write_bytes(plans[0].read_bytes()[:-100])
    assert cli.main(command) == 0
    assert len(compiled) == 1
    assert 'is rebuilt' in caplog.text


@pytest.mark.parametrize(
    ('kind', 'precision'), [('features', 'fp32'), ('features', 'fp16'), ('points', 'fp16')]
)
def test_the_exported_networks_of_nlf_are_compiled(nlf_folder, kind, precision):
    checkpoint = nlf.read_checkpoint(nlf_folder('s'))
    is_whole = kind == 'points'
    network = checkpoint.exported_network('') if is_whole else checkpoint.engine_network
    exported = to_onnx(network, precision)
    start_s = time.perf_counter()
    plan = tensorrt_rtx.compile_onnx(exported, 'sm89', INPUT, BATCHES)
    size_mb, seconds = len(plan) / 1e6, time.perf_counter() - start_s
    print(f'nlf {kind}, {precision}: {size_mb:.1f} MB, {seconds:.0f} s')
    smallest, largest = SIZES_MB[precision]
    assert smallest < size_mb < largest
    tensorrt_rtx.check_plan(plan)


def test_the_package_has_all_targets(network):
    for target in tensorrt_rtx.TARGETS:
        assert hasattr(trt.ComputeCapability, target.upper())
    assert tensorrt_rtx.compile_onnx(network, 'sm121', INPUT, BATCHES)


@pytest.mark.parametrize(
    ('target', 'reason'),
    [
        ('sm75', 'cannot compile the network for sm75: .*FP32 GEMM is not supported'),
        ('sm90', 'does not have the target sm90'),
        ('sm87', 'does not have the target sm87'),
    ],
)
def test_targets_that_are_not_offered_are_rejected_by_the_compiler_too(network, target, reason):
    assert target not in tensorrt_rtx.TARGETS
    with pytest.raises(PlanError, match=reason):
        tensorrt_rtx.compile_onnx(network, target, INPUT, BATCHES)


def test_a_network_with_an_unknown_operator_is_rejected_by_name(network):
    model = onnx.load_from_string(network)
    next(node for node in model.graph.node if node.op_type == 'Softmax').op_type = 'Hardmax2'
    with pytest.raises(PlanError, match='cannot read the ONNX network: Hardmax2:'):
        tensorrt_rtx.compile_onnx(model.SerializeToString(), 'sm89', INPUT, BATCHES)


@pytest.mark.parametrize('content', [b'', b'not a network', bytes(1000)])
def test_files_that_are_not_onnx_are_rejected(content):
    with pytest.raises(PlanError, match='ONNX network'):
        tensorrt_rtx.compile_onnx(content, 'sm89', INPUT, BATCHES)


def test_plans_are_recognised_by_their_header(plan):
    tensorrt_rtx.check_plan(plan)
    damaged = bytearray(plan)
    damaged[0] ^= 0xFF
    for content in (b'', b'ftrt' + bytes(1000), bytes(damaged)):
        with pytest.raises(PlanError, match='not a plan of TensorRT for RTX, or it is damaged'):
            tensorrt_rtx.check_plan(content)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_the_reason_why_the_runtime_cannot_load_a_plan_is_reported(plan, checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device', lambda device: contextlib.nullcontext())
    version = trt.__version__.replace('.', r'\.')
    message = f'cannot be loaded by tensorrt_rtx {version}: .*CUDA driver'
    network = checkpoint.engine_network
    with pytest.raises(PlanError, match=message):
        Plan('tensorrt_rtx', plan, [network.input], network.outputs, torch.device('cpu'))
