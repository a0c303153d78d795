"""The exported ONNX network has the points and features of torch, and a description of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import DATA
from nlf_checkpoints import tiny_checkpoint
from nlf_golden_cases import canonical_points

from metrabs_ros import cli
from metrabs_ros.crop_networks.crop_engine import weights_hash
from metrabs_ros.crop_networks.described_network import INPUT
from metrabs_ros.crop_networks.onnx_export import metadata, to_onnx
from metrabs_ros.nlf.checkpoint import read_checkpoint
from metrabs_ros.nlf.network import point_head

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

official = np.load(DATA / 'nlf' / 'intermediates.npz')
OUTPUTS = ['image_points_px', 'metric_points_mm', 'uncertainties_m', 'features']
TORCH_FP16_ERRORS = (0.162, 1.52), (0.824, 13.4), (3.15e-4, 0.0184), (8.86e-4, 0.0644)
"""
Median and largest error of torch with a backbone in fp16, in pixels, millimetres and metres, and
those of the features.

On CPUs torch needs many seconds for each crop in fp16, so that these were measured once.
"""


@pytest.fixture(scope='module')
def crops():
    """Return the crops of two calls of the official implementation."""
    parts = [official[f'{case}/crops'].reshape(-1, 3, 256, 256) for case in ('03', '05')]
    return np.concatenate(parts).astype(np.float32)


def official_outputs(case):
    """Return the official image points, metric points and uncertainties of all crops of a call."""
    factors = {'coords2d': 1, 'coords3d': 1000, 'uncertainties': 1}
    return [
        factor * np.concatenate(list(official[f'{case}/{name}']))
        for name, factor in factors.items()
    ]


@pytest.fixture(scope='module')
def checkpoint():
    return tiny_checkpoint()


@pytest.fixture(scope='module')
def exported(checkpoint):
    """Return the content of the file for the default skeleton."""
    return to_onnx(checkpoint.exported_network(''), 'fp32')


def shapes_of(content):
    """Return the shape of each input and output by name."""
    graph = onnx.load_from_string(content).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def torch_outputs(network, crops):
    with torch.inference_mode():
        return [values.numpy() for values in network.model(torch.from_numpy(crops))]


def test_the_outputs_are_points_uncertainties_and_features_in_batches_of_any_size(
    checkpoint, exported, crops
):
    assert shapes_of(exported) == {
        'crops': ['batch', 3, 256, 256],
        'image_points_px': ['batch', 24, 2],
        'metric_points_mm': ['batch', 24, 3],
        'uncertainties_m': ['batch', 24],
        'features': ['batch', 16, 8, 8],
    }
    session = onnxruntime.InferenceSession(exported)
    network = checkpoint.exported_network('smpl_24')
    expected = torch_outputs(network, crops)
    for count in (1, 3, len(crops)):
        outputs = session.run(OUTPUTS, {INPUT: crops[:count]})
        for tensor, values, correct in zip(network.outputs, outputs, expected):
            assert values.shape == (count, *tensor.shape)
            np.testing.assert_allclose(values, correct[:count], atol=1e-3, rtol=1e-4)


def test_the_network_of_the_engines_has_features_only(checkpoint):
    shapes = shapes_of(to_onnx(checkpoint.engine_network, 'fp32'))
    assert shapes == {'crops': ['batch', 3, 256, 256], 'features': ['batch', 16, 8, 8]}


def test_the_points_can_be_localised_in_the_features_with_the_metadata_alone(checkpoint, exported):
    model = onnx.load_from_string(exported)
    assert model.graph.name == 'nlf'
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts['precision'] == 'fp32'
    assert json.loads(texts['uncertainty_factor']) == 3.0
    assert 'negative x' in texts['mirrored_crops']
    joints, skeletons = json.loads(texts['joints']), json.loads(texts['skeletons'])
    (skeleton,) = skeletons.values()
    assert list(skeletons) == ['smpl_24']
    convention = checkpoint.conventions['smpl_24'].skeleton
    assert skeleton['joint_names'] == list(convention.joint_names)
    assert skeleton['edges'] == [list(edge) for edge in convention.edges]
    assert [joints[i] for i in skeleton['indices']][:2] == ['pelv_smpl', 'lhip_smpl']

    # The canonical points give the weights of the convolution in the file.
    points_m = np.array(json.loads(texts['canonical_points_m']))
    head = point_head(checkpoint.config, checkpoint.field, points_m, mirrored=False)
    (weights,) = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tuple(tensor.dims) == tuple(head.convolution.weight.shape)
    ]
    np.testing.assert_allclose(weights, head.convolution.weight.numpy(), atol=1e-6)


def test_each_skeleton_has_other_weights_in_the_same_format():
    checkpoint = tiny_checkpoint()
    networks = [checkpoint.exported_network(name) for name in ('smpl_24', 'h36m_17')]
    texts = [metadata(network, 'fp16') for network in networks]
    assert [text['precision'] for text in texts] == ['fp16', 'fp16']
    assert texts[0].keys() == texts[1].keys()
    assert texts[0]['weights'] != texts[1]['weights']
    assert [network.outputs[0].shape for network in networks] == [(24, 2), (17, 2)]
    assert networks[0].outputs[3] == networks[1].outputs[3] == checkpoint.engine_network.outputs[0]


def test_a_file_of_canonical_points_is_exported_like_a_skeleton(checkpoint, tmp_path):
    file = tmp_path / 'points.npy'
    points_m = checkpoint.conventions['h36m_17'].positions(checkpoint.points_m)
    np.save(file, points_m)
    own, named = (checkpoint.exported_network(name) for name in (str(file), 'h36m_17'))
    assert weights_hash(own.model) == weights_hash(named.model)
    assert own.description['joints'][16] == 'point_16'
    np.testing.assert_array_equal(own.description['canonical_points_m'], points_m)


def test_unknown_skeletons_and_files_are_rejected_with_the_valid_ones(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"skeleton is 'smpl'; .* \.npy file .*smpl_24, h36m_17"):
        checkpoint.exported_network('smpl')
    with pytest.raises(ValueError, match=r'missing\.npy cannot be read'):
        checkpoint.exported_network(str(tmp_path / 'missing.npy'))


@pytest.fixture(scope='module')
def small_network(nlf_folder, tmp_path_factory):
    """Return the network for the points of the official results, and the file of the points."""
    file = tmp_path_factory.mktemp('points') / 'points.npy'
    np.save(file, canonical_points('smpl_24'))
    return read_checkpoint(nlf_folder('s')).exported_network(str(file)), file


def export(folder, points_file, file, precision):
    arguments = ['export', str(folder), '--onnx', str(file), '--precision', precision]
    assert cli.main([*arguments, '--skeleton', str(points_file)]) == 0
    return onnxruntime.InferenceSession(file)


@pytest.mark.slow
def test_points_in_fp32_match_torch_and_the_official_implementation(
    nlf_folder, small_network, tmp_path, crops
):
    network, points_file = small_network
    session = export(nlf_folder('s'), points_file, tmp_path / 'network.onnx', 'fp32')
    outputs = session.run(OUTPUTS, {INPUT: crops})
    tolerances = 0.005, 0.05, 5e-5, 5e-4
    for values, correct, tolerance in zip(outputs, torch_outputs(network, crops), tolerances):
        np.testing.assert_allclose(values, correct, atol=tolerance, rtol=0)
    # The crops of case 05 are not mirrored.  The tolerances are due to the crops, which are stored
    # in half precision.
    for values, correct, tolerance in zip(outputs, official_outputs('05'), (0.5, 4, 1e-3)):
        np.testing.assert_allclose(values[-len(correct) :], correct, atol=tolerance, rtol=0)


@pytest.mark.slow
def test_errors_in_fp16_are_at_most_those_of_torch_in_fp16(
    nlf_folder, small_network, tmp_path, crops
):
    network, points_file = small_network
    session = export(nlf_folder('s'), points_file, tmp_path / 'network.onnx', 'fp16')
    exact = torch_outputs(network, crops)
    for values, correct, limits in zip(
        session.run(OUTPUTS, {INPUT: crops}), exact, TORCH_FP16_ERRORS
    ):
        error = np.abs(values - correct)
        assert 0 < np.median(error) <= limits[0]
        assert error.max() <= limits[1]


def test_the_command_rejects_unknown_skeletons_with_the_valid_ones(nlf_folder, tmp_path, capsys):
    command = ['export', str(nlf_folder('s')), '--onnx', str(tmp_path / 'network.onnx')]
    assert cli.main([*command, '--skeleton', 'smpl']) == 1
    error = capsys.readouterr().err
    assert "skeleton is 'smpl'; it must be a .npy file with canonical points, or one of" in error
    assert 'smpl_24, h36m_17' in error
    assert 'smplx_55' in error
    assert not list(tmp_path.iterdir())
