"""
torch_tensorrt is called with valid arguments, and the engines are cached.

No GPU is needed: the calls are checked against the signatures in the source of the real package,
and a fake module exports the network instead of compiling it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.machinery
import inspect
import pathlib
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from nlf_checkpoints import tiny_checkpoint

from metrabs_ros import cli
from metrabs_ros.backends import selection
from metrabs_ros.backends.engine_cache import EngineCache
from metrabs_ros.backends.selection import Choice
from metrabs_ros.crop_networks import tensorrt_engine
from metrabs_ros.crop_networks.tensorrt_engine import TensorRtEngine
from metrabs_ros.metrabs.checkpoint import read_checkpoint

CPU = torch.device('cpu')
WHEEL = 'torch-tensorrt==2.13.0'
SOURCES = {
    'compile': 'torch_tensorrt/dynamo/_compiler.py',
    'save': 'torch_tensorrt/_compile.py',
    'load': 'torch_tensorrt/_compile.py',
}
DEFAULTS = 'torch_tensorrt/dynamo/_defaults.py'
INPUT_SOURCE = 'torch_tensorrt/_Input.py'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Return the archive of the real package, which cannot be imported without TensorRT."""
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', WHEEL]
    if subprocess.run([*command, '--dest', folder], check=False).returncode:
        pytest.skip(f'{WHEEL} cannot be downloaded here')
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as archive:
        yield archive


def signature_of(source, name):
    """Return the signature of a function in a source file."""
    tree = ast.parse(source)
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    kinds = inspect.Parameter
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        kinds(a.arg, kinds.POSITIONAL_OR_KEYWORD, default=kinds.empty if i < required else None)
        for i, a in enumerate(positional)
    ]
    parameters += [
        kinds(a.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults)
    ]
    return inspect.Signature(parameters)


@dataclasses.dataclass
class Compiled:
    """Result of compilation with the fake module."""

    exported: torch.export.ExportedProgram


class TorchTensorRt(types.ModuleType):
    """A fake torch_tensorrt that accepts the arguments of the real one, and exports with torch."""

    __version__ = '2.13.0'

    def __init__(self, wheel):
        super().__init__('torch_tensorrt')
        self.__spec__ = importlib.machinery.ModuleSpec('torch_tensorrt', None)
        self.wheel = wheel
        self.calls = []
        self.dynamo = types.SimpleNamespace(compile=self._compile)

    def _check(self, name, arguments, keywords):
        source = self.wheel.read(SOURCES[name]).decode()
        # Without **kwargs, so that misspelled keyword arguments are detected.
        signature_of(source, name).bind(*arguments, **keywords)
        self.calls.append((name, keywords))

    def Input(self, **keywords):
        documented = self.wheel.read(INPUT_SOURCE).decode()
        assert all(f'{name} (' in documented for name in keywords)
        return types.SimpleNamespace(**keywords)

    def _compile(self, *arguments, **keywords):
        self._check('compile', arguments, keywords)
        assert arguments[0].range_constraints
        return Compiled(arguments[0])

    def save(self, *arguments, **keywords):
        self._check('save', arguments, keywords)
        torch.export.save(arguments[0].exported, arguments[1])

    def load(self, *arguments, **keywords):
        self._check('load', arguments, keywords)
        return torch.export.load(arguments[0])


@pytest.fixture
def torch_tensorrt(wheel, monkeypatch):
    package = TorchTensorRt(wheel)
    monkeypatch.setitem(sys.modules, 'torch_tensorrt', package)
    gpu = types.SimpleNamespace(name='NVIDIA Fake', major=9, minor=0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: gpu)
    return package


@pytest.fixture
def checkpoint(checkpoint_folder):
    return read_checkpoint(checkpoint_folder('s_centered'))


def engine(checkpoint, root, precision='fp32'):
    return TensorRtEngine(
        checkpoint.crop_model, checkpoint.config, CPU, precision, EngineCache(root)
    )


@pytest.mark.slow
def test_the_engine_is_built_once_and_its_points_match_torch(torch_tensorrt, checkpoint, tmp_path):
    crops = torch.rand(3, 3, 256, 256)
    with torch.inference_mode():
        expected = checkpoint.crop_model(crops)
    for result in (engine(checkpoint, tmp_path)(crops), engine(checkpoint, tmp_path)(crops)):
        for points, correct in zip(result, expected):
            np.testing.assert_allclose(points, correct, atol=0.05)
    assert [name for name, _ in torch_tensorrt.calls] == ['compile', 'save', 'load', 'load']
    compiled = torch_tensorrt.calls[0][1]
    assert compiled['require_full_compilation'] is True
    (shapes,) = compiled['arg_inputs']
    assert (shapes.min_shape[0], shapes.max_shape[0]) == (1, 64)
    assert compiled['disable_tf32'] is True


def test_the_features_of_nlf_are_compiled_and_loaded_like_points(torch_tensorrt, tmp_path):
    crops = torch.rand(3, 3, 256, 256)
    with torch.inference_mode():
        (expected,) = tiny_checkpoint().crop_model(crops)
    for _ in range(2):
        (features,) = engine(tiny_checkpoint(), tmp_path)(crops)
        torch.testing.assert_close(features, expected)
    assert [name for name, _ in torch_tensorrt.calls] == ['compile', 'save', 'load', 'load']


@pytest.mark.slow
def test_no_files_are_shared_with_other_users(torch_tensorrt, checkpoint, tmp_path):
    engine(checkpoint, tmp_path)
    (_, compiled), *_ = torch_tensorrt.calls
    assert tmp_path in pathlib.Path(compiled['timing_cache_path']).parents
    for default in ('cache_built_engines', 'reuse_cached_engines'):
        assert default not in compiled
        assert f'{default.upper()} = False' in torch_tensorrt.wheel.read(DEFAULTS).decode()


def test_batches_have_at_most_the_maximum_size_of_the_engine(torch_tensorrt, checkpoint):
    sizes = []

    def network(crops):
        sizes.append(len(crops))
        return crops[:, 0, :2, :2], crops[:, 0, :2, :3]

    class Ready:
        def load(self, *arguments):
            return network

    run = TensorRtEngine(checkpoint.crop_model, checkpoint.config, CPU, 'fp32', Ready())
    points, _ = run(torch.arange(130.0).view(-1, 1, 1, 1).expand(130, 3, 8, 8))
    assert sizes == [64, 64, 2]
    assert (points[:, 0, 0] == torch.arange(130.0)).all()


def test_the_cache_key_contains_all_properties_that_an_engine_depends_on(
    torch_tensorrt, checkpoint, monkeypatch
):
    def key(precision='fp16'):
        return tensorrt_engine.cache_key(checkpoint.crop_model, checkpoint.config, CPU, precision)

    keys = [key(), key('fp32')]
    monkeypatch.setattr(tensorrt_engine, '_version', lambda package: '1.2.3')
    keys.append(key('fp16'))
    gpu = types.SimpleNamespace(name='NVIDIA Other', major=8, minor=7)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: gpu)
    keys.append(key('fp16'))
    with torch.no_grad():
        checkpoint.crop_model.heatmap_heads.conv_final.bias[0] += 1e-3
    keys.append(key('fp16'))
    assert len({str(key) for key in keys}) == len(keys)
    assert 'compute capability 8.7' in keys[-1]['gpu']
    # Both builds of torch_tensorrt: an upgrade of either one must not leave its engines in use.
    for package in ('torch_tensorrt', 'tensorrt', 'torch_tensorrt_rtx', 'tensorrt_rtx'):
        assert keys[-1][package] == '1.2.3'


@pytest.mark.slow
def test_build_engine_stores_the_engine_in_the_cache(
    torch_tensorrt, checkpoint_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    on_cpu = Choice('tensorrt', 'fp32', 'cpu', 'the fake module runs there')
    monkeypatch.setattr(selection, 'choose', lambda *arguments: on_cpu)
    folder = str(checkpoint_folder('s_centered'))
    assert cli.main(['build-engine', folder, '--precision', 'fp32']) == 0
    assert 'tensorrt in fp32 on cpu' in capsys.readouterr().out
    assert list(tmp_path.glob('engines/*/engine.ep'))


def test_build_engine_does_not_compile_if_the_cache_cannot_be_used(
    torch_tensorrt, checkpoint_folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / 'engines').write_text('')
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    on_cpu = Choice('tensorrt', 'fp32', 'cpu', 'the fake module runs there')
    monkeypatch.setattr(selection, 'choose', lambda *arguments: on_cpu)
    assert cli.main(['build-engine', str(checkpoint_folder('s_centered'))]) == 1
    output = capsys.readouterr()
    assert 'engines cannot be used' in output.err
    assert 'in the cache' not in output.out
    assert not torch_tensorrt.calls


def test_build_engine_without_a_gpu_names_the_missing_gpu(checkpoint_folder, capsys):
    assert cli.main(['build-engine', str(checkpoint_folder('s_centered'))]) == 1
    assert 'needs an NVIDIA GPU' in capsys.readouterr().err
