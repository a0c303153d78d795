"""The exported ONNX network has the points of torch, dynamic batches and a description."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from conftest import DATA

from metrabs_ros import cli
from metrabs_ros.crop_networks.described_network import INPUT
from metrabs_ros.crop_networks.onnx_export import metadata, to_onnx
from metrabs_ros.crop_networks.torch_engine import TorchEngine
from metrabs_ros.metrabs.checkpoint import read_checkpoint

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

CPU = torch.device('cpu')
OUTPUTS = ['image_points_px', 'metric_points_mm']
TORCH_FP16_ERRORS = (0.042, 0.758), (0.278, 7.25)
"""
Median and largest error of torch with a backbone in fp16, in pixels and in millimetres.

On CPUs torch needs 20 s for each crop in fp16, so that these were measured once.
"""


def golden_arrays(name):
    """Return an array of the crops 00 and 05, of which the official points are known."""
    golden = np.load(DATA / 'golden' / 'intermediates.npz')
    return np.concatenate([golden[f'{case}/{name}'] for case in ('00', '05')]).astype(np.float32)


def export(folder, file, precision):
    arguments = ['export', str(folder), '--onnx', str(file), '--precision', precision]
    assert cli.main(arguments) == 0
    return onnxruntime.InferenceSession(file)


def run(session, crops):
    return session.run(OUTPUTS, {INPUT: crops})


def torch_points(folder, crops, precision):
    engine = TorchEngine(read_checkpoint(folder).crop_model, CPU, precision)
    return [points.numpy() for points in engine(torch.from_numpy(crops))]


@pytest.mark.slow
def test_points_in_fp32_match_torch_and_the_official_implementation(checkpoint_folder, tmp_path):
    folder, crops = checkpoint_folder('s_centered'), golden_arrays('crops')
    session = export(folder, tmp_path / 'network.onnx', 'fp32')
    expected = torch_points(folder, crops, 'fp32')
    for count in (1, 3, len(crops)):
        for points, correct, tolerance in zip(run(session, crops[:count]), expected, (0.01, 0.02)):
            np.testing.assert_allclose(points, correct[:count], atol=tolerance, rtol=0)
    image_points_px, metric_points_mm = run(session, crops)
    # The tolerance is due to the crops, which are stored in half precision.
    np.testing.assert_allclose(image_points_px, golden_arrays('coords2d'), atol=0.2)
    np.testing.assert_allclose(metric_points_mm, golden_arrays('coords3d_rel'), atol=2)


@pytest.mark.slow
def test_errors_in_fp16_are_at_most_those_of_torch_in_fp16(checkpoint_folder, tmp_path):
    folder, crops = checkpoint_folder('s_centered'), golden_arrays('crops')
    session = export(folder, tmp_path / 'network.onnx', 'fp16')
    exact = torch_points(folder, crops, 'fp32')
    for points, correct, largest in zip(run(session, crops), exact, TORCH_FP16_ERRORS):
        error = np.abs(points - correct)
        assert 0 < np.median(error) <= largest[0]
        assert error.max() <= largest[1]

    file = onnx.load(tmp_path / 'network.onnx')
    onnx.checker.check_model(file)
    # The convolutions of the backbone, and the one of the heads.
    types = [tensor.data_type for tensor in file.graph.initializer if len(tensor.dims) == 4]
    assert set(types) == {onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT}
    assert types.count(onnx.TensorProto.FLOAT) == 1
    texts = {entry.key: entry.value for entry in file.metadata_props}
    assert texts == metadata(read_checkpoint(folder).engine_network, 'fp16')


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['s_legacy', 's_all_and_latents'])
def test_names_and_shapes_are_those_that_engines_expect(checkpoint_folder, variant):
    checkpoint = read_checkpoint(checkpoint_folder(variant))
    # A small backbone is exported in a second.
    checkpoint.crop_model.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 1280, 32, stride=32))
    network = checkpoint.exported_network('')
    file = onnx.load_from_string(to_onnx(network, 'fp32'))
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*file.graph.input, *file.graph.output)
    }
    points = 36 if variant == 's_legacy' else 12
    assert shapes == {
        'crops': ['batch', 3, 256, 256],
        'image_points_px': ['batch', points, 2],
        'metric_points_mm': ['batch', points, 3],
    }
    tensors = network.input, *network.outputs
    assert {tensor.name: ['batch', *tensor.shape] for tensor in tensors} == shapes


@pytest.mark.parametrize('variant', ['s_legacy', 's_all_and_latents'])
def test_joints_can_be_computed_from_the_metadata_alone(checkpoint_folder, variant):
    checkpoint = read_checkpoint(checkpoint_folder(variant))
    texts = metadata(checkpoint.engine_network, 'fp32')
    assert (float(texts['box_size_mm']), int(texts['stride_px'])) == (2200, 32)
    assert json.loads(texts['legacy_centered_stride_bug']) == (variant == 's_legacy')
    assert texts['size'] == 's'
    assert len(texts['weights']) == 64
    joints = json.loads(texts['joints'])
    assert tuple(joints) == checkpoint.joints.joint_names

    def apply(name, points, rows):
        result = np.zeros((rows, 3))
        for point, joint, weight in json.loads(texts[name]):
            result[joint] += weight * points[point]
        return result

    points = np.random.default_rng(0).normal(size=(int(texts['latents']) or len(joints), 3))
    decoded = expected = points
    if checkpoint.decoder is not None:
        decoded, expected = apply('decoder', points, len(joints)), checkpoint.decoder.T @ points
    everything = json.loads(texts['skeletons'])['']
    poses = apply('joint_transform_matrix', decoded, len(everything['joint_names']))
    expected = checkpoint.joint_transform_matrix.T @ expected
    for name, convention in checkpoint.conventions.items():
        skeleton = json.loads(texts['skeletons'])[name]
        assert skeleton['joint_names'] == list(convention.skeleton.joint_names)
        assert skeleton['edges'] == [list(edge) for edge in convention.skeleton.edges]
        np.testing.assert_allclose(poses[skeleton['indices']], expected[convention.indices])


def message_of(capsys, *arguments):
    """Return the error message of a command that fails."""
    assert cli.main(['export', *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_existing_files_and_invalid_arguments_are_rejected_before_the_export(
    checkpoint_folder, tmp_path, capsys
):
    folder, file = checkpoint_folder('s_centered'), tmp_path / 'network.onnx'
    file.write_text('mine')
    assert '--overwrite replaces it' in message_of(capsys, folder, '--onnx', file)
    assert file.read_text() == 'mine'
    new = tmp_path / 'new.onnx'
    error = message_of(capsys, folder, '--onnx', new, '--precision', 'bf16')
    assert "precision 'bf16' is not available for export; choose one of fp32, fp16" in error
    error = message_of(capsys, folder, '--onnx', tmp_path / 'missing' / 'new.onnx')
    assert 'its folder does not exist' in error
    error = message_of(capsys, folder, '--onnx', tmp_path, '--overwrite')
    assert 'is a folder; name the file to write' in error
    error = message_of(capsys, 'blazepose', '--onnx', new)
    assert "model 'blazepose' is not a MeTRAbs or NLF network; choose the path of" in error
    error = message_of(capsys, folder, '--onnx', new, '--skeleton', 'h36m_17')
    assert "skeleton is 'h36m_17', but MeTRAbs networks predict all joints; leave it" in error
    assert [path.name for path in tmp_path.iterdir()] == ['network.onnx']


def test_the_packages_to_install_are_named(checkpoint_folder, tmp_path, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'onnxscript' else find_spec(name)
    )
    folder = checkpoint_folder('s_centered')
    error = message_of(capsys, folder, '--onnx', tmp_path / 'network.onnx')
    assert 'pip install onnx onnxscript' in error
