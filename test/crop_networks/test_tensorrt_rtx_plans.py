"""
Plans for TensorRT for RTX are compiled once for each target, and found again in the cache.

The compiler is replaced; test/compile_rtx runs the real one where it is installed.
"""

from __future__ import annotations

import re
import sys
import types

import fake_tensorrt
import pytest
import torch

from metrabs_ros import cli, loading
from metrabs_ros.backends import tensorrt_rtx
from metrabs_ros.backends.engine_cache import EngineCache
from metrabs_ros.backends.selection import Choice
from metrabs_ros.backends.tensorrt_plan import PlanError
from metrabs_ros.crop_networks import plan_engine, tensorrt_rtx_plans
from metrabs_ros.metrabs.checkpoint import read_checkpoint


@pytest.fixture
def compiled(monkeypatch):
    """Replace the compiler and the export, and return the list of their calls."""
    calls = []

    def compile_onnx(network, target, input_name, batches):
        assert (network, input_name, batches) == (b'onnx', 'crops', (1, 4, 64))
        calls.append(target)
        return f'plan for {target}'.encode()

    def to_onnx(network, precision):
        calls.append(f'onnx {precision}')
        # As the export does: the key of the cache must be computed before.
        network.model.half()
        return b'onnx'

    package = types.SimpleNamespace(__version__='1.7.1.116', __spec__=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', package)
    monkeypatch.setattr(tensorrt_rtx, 'compile_onnx', compile_onnx)
    monkeypatch.setattr(tensorrt_rtx, 'check_plan', lambda content: None)
    monkeypatch.setattr(tensorrt_rtx_plans, 'to_onnx', to_onnx)
    monkeypatch.setattr(tensorrt_rtx_plans, 'require_packages', lambda: None)
    monkeypatch.setattr(tensorrt_rtx_plans, 'package_versions', lambda: {'onnx': '1'})
    return calls


@pytest.fixture
def build(compiled, checkpoint_folder, tmp_path, monkeypatch):
    """Return a function that runs build-engine with a cache in `tmp_path`."""
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    folder = str(checkpoint_folder('s_centered'))
    return lambda *arguments: cli.main(['build-engine', folder, *arguments])


def test_each_target_is_compiled_once_from_the_same_export(build, compiled, tmp_path, capsys):
    assert build('--target', 'SM89, sm120,sm89') == 0
    assert compiled == ['onnx fp16', 'sm89', 'sm120']
    assert 'in the cache: tensorrt_rtx for sm89, sm120' in capsys.readouterr().out
    assert build('--target', 'sm89,sm86') == 0
    assert compiled == ['onnx fp16', 'sm89', 'sm120', 'sm86']
    assert build('--target', 'sm89', '--precision', 'fp32') == 0
    assert compiled[4:] == ['onnx fp32', 'sm89']
    assert len(list(tmp_path.glob('engines/*/network.onnx'))) == 2


def test_a_damaged_plan_is_compiled_again(build, compiled, tmp_path, caplog):
    build('--target', 'sm89')
    (plan,) = tmp_path.glob('engines/*/network.plan')
    plan.write_bytes(b'plan for sm80')
    build('--target', 'sm89')
    assert compiled == ['onnx fp16', 'sm89', 'sm89']
    assert 'is rebuilt' in caplog.text
    assert plan.read_bytes() == b'plan for sm89'


def test_a_plan_that_the_package_rejects_is_compiled_again(
    build, compiled, tmp_path, caplog, monkeypatch
):
    build('--target', 'sm89')

    def reject(content):
        if len(compiled) == 2:
            raise tensorrt_rtx.PlanError('it was not built by tensorrt_rtx 1.7.1.116')

    monkeypatch.setattr(tensorrt_rtx, 'check_plan', reject)
    build('--target', 'sm89')
    assert compiled == ['onnx fp16', 'sm89', 'sm89']
    assert 'it was not built by tensorrt_rtx 1.7.1.116' in caplog.text


def test_the_engine_uses_the_plan_that_another_machine_built_for_its_gpu(
    build, compiled, checkpoint_folder, monkeypatch
):
    build('--target', 'sm86,sm89')
    # A build of torch with CUDA has another suffix.
    monkeypatch.setattr(torch, '__version__', torch.__version__.partition('+')[0] + '+cu130')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 9))
    started = []

    class PlanEngine:
        def __init__(self, package, content, network, device):
            started.append((package, content, str(device)))

    monkeypatch.setattr(plan_engine, 'PlanEngine', PlanEngine)
    choice = Choice('tensorrt_rtx', 'fp16', 'cuda:1', '')
    loading.start_engine(read_checkpoint(checkpoint_folder('s_centered')), choice, EngineCache())
    assert started == [('tensorrt_rtx', b'plan for sm89', 'cuda:1')]
    assert compiled == ['onnx fp16', 'sm86', 'sm89']


@pytest.mark.parametrize(
    ('diagnostics', 'message'),
    [
        (32, 'not a plan'),
        (33, 'not a plan'),
        (1, 'not built by tensorrt_rtx 1.7'),
        (2, ''),
        (0, ''),
    ],
)
def test_plans_are_checked_for_damage_and_version_but_not_for_the_gpu_of_this_machine(
    monkeypatch, diagnostics, message
):
    """A plan for a target is built on any machine, also on one with another GPU."""
    package = fake_tensorrt.install(monkeypatch, 'tensorrt_rtx')
    package.__version__ = '1.7'
    package.__spec__ = types.SimpleNamespace()
    package.EngineInvalidityDiagnostics = types.SimpleNamespace(
        VERSION_MISMATCH=1, UNSUPPORTED_CC=2, MALFORMED_ENGINE=32
    )
    package.Runtime = lambda logger: types.SimpleNamespace(
        get_engine_validity=lambda content: (None, diagnostics)
    )
    if message:
        with pytest.raises(PlanError, match=message):
            tensorrt_rtx.check_plan(b'plan')
    else:
        tensorrt_rtx.check_plan(b'plan')


def test_the_key_of_a_plan_contains_all_properties_that_it_depends_on(
    compiled, checkpoint_folder, monkeypatch
):
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))

    def key(precision='fp16', target='sm89'):
        properties = tensorrt_rtx_plans.network_key(checkpoint.engine_network, precision)
        return tensorrt_rtx_plans.plan_key(properties, target)

    keys = [key(), key('fp32'), key(target='sm86')]
    monkeypatch.setattr(sys.modules['tensorrt_rtx'], '__version__', '1.8')
    keys.append(key())
    monkeypatch.setattr(torch, '__version__', '2.99.0')
    keys.append(key())
    with torch.no_grad():
        checkpoint.crop_model.heatmap_heads.conv_final.bias[0] += 1e-3
    keys.append(key())
    assert len({str(key) for key in keys}) == len(keys)


def test_a_cache_that_cannot_be_written_is_reported(compiled, checkpoint_folder, tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    cache = EngineCache(tmp_path / 'file')
    network = read_checkpoint(checkpoint_folder('s_centered')).engine_network
    plans = tensorrt_rtx_plans.load_plans(network, 'fp16', ['sm80'], cache)
    assert plans == [b'plan for sm80']
    assert 'cannot be used' in caplog.text


def test_build_engine_does_not_compile_if_the_cache_cannot_be_used(
    build, compiled, tmp_path, capsys
):
    (tmp_path / 'engines').write_text('')
    assert build('--target', 'sm89') == 1
    output = capsys.readouterr()
    assert re.search(r'the engine cache in .*engines cannot be used: .*exists', output.err)
    assert 'in the cache' not in output.out
    assert not compiled


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--target', 'sm75'], 'target sm75: TensorRT for RTX is not available .* 7.5: Turing'),
        (['--target', 'sm90'], "9.0: it does not support Hopper GPUs .*choose engine 'torch'"),
        (['--target', 'sm87'], '8.7: it does not support Jetson modules; .*engine_file'),
        (['--target', 'sm86,'], "target is ''; it must be one or several of sm80, sm86"),
        (['--target', 'rtx4090'], "target is 'rtx4090'; it must be"),
        (['--target', 'sm86', '--precision', 'bf16'], "precision 'bf16' is not available"),
        (['--target', 'sm86', '--engine', 'tensorrt'], 'remove --engine and --device'),
        (['--target', 'sm86', '--device', 'cuda:1'], 'remove --engine and --device'),
        (['--engine', 'openvino'], "engine 'openvino' is not available for build-engine"),
        (['--engine', 'tensorrt_rtx'], "engine 'tensorrt_rtx' needs an NVIDIA GPU"),
    ],
)
def test_invalid_arguments_are_rejected_with_the_valid_ones(
    build, compiled, capsys, arguments, message
):
    assert build(*arguments) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not compiled


def test_the_packages_to_install_are_named(build, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, 'tensorrt_rtx')
    monkeypatch.setattr(tensorrt_rtx.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(loading, '_require_torch', lambda: None)
    # The weights are neither read nor downloaded before.
    monkeypatch.delattr(loading, '_read_checkpoint')
    assert build('--target', 'sm89') == 1
    assert 'pip install tensorrt-rtx onnx onnxscript' in capsys.readouterr().err
