"""The exported ONNX network has the points and features of torch, and a description of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import DATA
from nlf_checkpoints import small_checkpoint, tiny_checkpoint

from metrabs_ros.metrabs.crop_engine import weights_hash
from metrabs_ros.metrabs.described_network import INPUT
from metrabs_ros.metrabs.onnx_export import metadata, to_onnx
from metrabs_ros.nlf.network import point_head

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

OUTPUTS = ['image_points_px', 'metric_points_mm', 'uncertainties_m', 'features']


@pytest.fixture(scope='module')
def crops():
    """Return crops of photographs, which the random weights are scaled for."""
    golden = np.load(DATA / 'golden' / 'intermediates.npz')
    return np.concatenate([golden[f'{case}/crops'] for case in ('00', '05')]).astype(np.float32)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ('precision', 'tolerances'),
    [
        # Median and largest errors in pixels, millimetres, metres, and those of the features.
        ('fp32', ((1e-3, 1e-2), (1e-2, 0.1), (1e-5, 1e-3), (1e-5, 1e-3))),
        ('fp16', ((0.1, 2), (1, 20), (1e-3, 0.1), (1e-3, 0.1))),
    ],
)
def test_the_exported_small_network_matches_torch(crops, precision, tolerances):
    network = small_checkpoint().exported_network('')
    expected = torch_outputs(network, crops)
    session = onnxruntime.InferenceSession(to_onnx(network, precision))
    for name, values, correct, (median, largest) in zip(
        OUTPUTS, session.run(OUTPUTS, {INPUT: crops}), expected, tolerances
    ):
        error = np.abs(values - correct)
        print(f'{precision} {name}: median {np.median(error):.3g}, largest {error.max():.3g}')
        assert np.median(error) <= median, name
        assert error.max() <= largest, name
