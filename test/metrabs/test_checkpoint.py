"""Checkpoints are read completely, or rejected with file and reason; they cannot run code."""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import torch
import yaml

import metrabs_ros
from metrabs_ros.metrabs.checkpoint import FILES, read_checkpoint
from metrabs_ros.weights.plain_pickle import read_plain
from metrabs_ros.weights.store import WeightsError


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """Return a copy of a checkpoint that tests can damage; its files are hard links."""
    for file in checkpoint_folder('s_latents').iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path


def replace(file: pathlib.Path, content: bytes) -> None:
    # Not in place, because the file is a hard link to the original checkpoint.
    file.unlink()
    file.write_bytes(content)


def change_config(folder: pathlib.Path, **changes: object) -> None:
    config = yaml.safe_load((folder / 'config.yaml').read_text())
    config |= changes
    config = {name: value for name, value in config.items() if value is not ...}
    replace(folder / 'config.yaml', yaml.safe_dump(config).encode())


def test_all_parts_of_a_checkpoint_are_read(checkpoint_folder):
    checkpoint = read_checkpoint(checkpoint_folder('s_all_and_latents'))
    assert len(checkpoint.joints) == 36
    assert checkpoint.joints.joint_names[:3] == ('pelv', 'spin', 'neck')
    assert checkpoint.decoder is not None
    assert checkpoint.decoder.shape == (12, 36)
    assert checkpoint.outputs.weights is not None
    assert checkpoint.outputs.weights.shape == (40, 36)
    assert checkpoint.conventions['kinect_4'].indices.tolist() == [36, 37, 38, 39]
    assert checkpoint.config.latents == 12
    assert checkpoint.config.predicts_joints_too
    assert not checkpoint.crop_model.training


@pytest.mark.parametrize('name', [*FILES, 'affine_weights.npz'])
def test_a_missing_file_is_named_in_the_error(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace('.', r'\.')):
        metrabs_ros.load_model(folder)


@pytest.mark.parametrize('name', [*FILES, 'affine_weights.npz'])
@pytest.mark.parametrize('kept', [0, 0.3, 0.9], ids=['empty', 'start', 'most'])
def test_a_truncated_file_is_named_with_the_expected_content(folder, name, kept):
    content = (folder / name).read_bytes()
    if name == 'config.yaml':
        content = content.replace(b'box_size_mm', b'box')
    replace(folder / name, content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=name.replace('.', r'\.')) as caught:
        read_checkpoint(folder)
    assert 'expected' in str(caught.value) or 'lacks' in str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'proc_side': ...}, 'lacks proc_side of type int'),
        ({'centered_stride': 1}, 'has centered_stride: 1; expected: bool'),
        ({'box_size_mm': 'large'}, "has box_size_mm: 'large'; expected: float"),
        ({'depth': 0}, 'has depth: 0; expected: at least 1'),
        ({'mix_3d_inside_fov': 'half'}, "has mix_3d_inside_fov: 'half'"),
        ({'efficientnet_size': 'xl'}, "config.yaml: there is no EfficientNetV2-'xl'"),
        ({'affine_weights': None}, 'has affine_weights: None'),
        ({'affine_weights': 'other.npz'}, 'other.npz is missing; it is named by affine_weights'),
        ({'depth': 7}, r'ckpt.pt does not fit config.yaml \(EfficientNetV2-S, depth 7\)'),
        ({'efficientnet_size': 'm'}, r'it lacks backbone\..* and 341 more; it has unknown'),
    ],
)
def test_an_invalid_config_is_explained(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(folder)


def test_the_size_is_read_from_the_backbone_name_without_efficientnet_size(folder):
    change_config(folder, efficientnet_size=...)
    assert read_checkpoint(folder).config.size == 's'


def test_weights_that_are_not_finite_are_rejected(folder):
    state = torch.load(folder / 'ckpt.pt', weights_only=True)
    state['heatmap_heads.conv_final.bias'][3] = torch.nan
    (folder / 'ckpt.pt').unlink()
    torch.save(state, folder / 'ckpt.pt')
    with pytest.raises(WeightsError, match=r'not finite in heatmap_heads.conv_final.bias'):
        read_checkpoint(folder)


def test_a_joint_transform_matrix_of_another_network_is_rejected(folder):
    (folder / 'joint_transform_matrix.npy').unlink()
    np.save(folder / 'joint_transform_matrix.npy', np.eye(17))
    with pytest.raises(WeightsError, match=r'shape \(17, 17\); expected: a matrix \[36, '):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ('infos', 'message'),
    [
        ({'a': {'indices': [40], 'names': ['x'], 'edges': []}}, 'an index 40'),
        ({'a': {'indices': [0, 1], 'names': ['x'], 'edges': []}}, '1 names, but indices'),
        ({'a': {'indices': [0], 'names': ['x'], 'edges': [(0, 1)]}}, 'an edge refers to joint 1'),
        ({'a': {'indices': [0], 'names': ['x'], 'edges': []}}, "no skeleton ''"),
        ({'a': {'names': ['x'], 'edges': []}}, "KeyError: 'indices'"),
        ([], 'AttributeError'),
    ],
)
def test_invalid_skeletons_are_explained(folder, infos, message):
    replace(folder / 'skeleton_infos.pkl', pickle.dumps(infos))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(folder)


class Hostile:
    """An object that is pickled as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('name', ['skeleton_infos.pkl', 'ckpt.pt', 'joint_info.npz'])
@pytest.mark.parametrize('function', [os.mkdir, shutil.rmtree, exec, getattr, print])
def test_files_cannot_run_code(folder, tmp_path, name, function):
    victim = tmp_path / 'victim'
    victim.mkdir()
    argument = {exec: f'import os; os.rmdir({str(victim)!r})'}.get(function, str(victim))
    hostile = (
        Hostile(function, argument)
        if function is not os.mkdir
        else Hostile(os.mkdir, str(victim / 'made'))
    )
    if name == 'ckpt.pt':
        (folder / name).unlink()
        torch.save({'weight': hostile}, folder / name)
    elif name == 'joint_info.npz':
        (folder / name).unlink()
        objects = np.array([hostile], object)
        np.savez(folder / name, joint_names=objects, joint_edges=objects)
    else:
        replace(folder / name, pickle.dumps({'': hostile}))
    with pytest.raises(WeightsError, match=name):
        read_checkpoint(folder)
    assert victim.is_dir()
    assert not any(victim.iterdir())


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_arrays_are_read_from_a_pickle(protocol):
    value = {
        'list': [1, 2.5, 'three', None, True],
        'tuple': (1, 2),
        'ordered': collections.OrderedDict(a=1),
        'set': {1, 2},
        'frozen': frozenset({3}),
        'array': np.arange(6).reshape(2, 3),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'names': np.array(['a', 'bc']),
        'scalar': np.float32(1.5),
    }
    loaded = read_plain(pickle.dumps(value, protocol))
    assert isinstance(loaded, dict)
    for name, plain in value.items():
        np.testing.assert_array_equal(loaded[name], plain)
        assert type(loaded[name]) is type(plain)


@pytest.mark.parametrize(
    'forbidden',
    [os.system, eval, getattr, __import__, np.load, np.fromfile, np.memmap, pathlib.Path, type],
)
def test_other_objects_in_a_pickle_are_rejected(forbidden):
    with pytest.raises(pickle.UnpicklingError, match='neither a plain container nor'):
        read_plain(pickle.dumps(forbidden))


def test_a_pickle_cannot_modify_the_functions_of_the_reader():
    # GLOBAL loads the function that reads buffers, BUILD sets its state.
    tampering = b"cnumpy._core.numeric\n_frombuffer\n(S'__call__'\nS'x'\nd(d\x86b."
    before = read_plain(pickle.dumps(np.arange(3), 5))
    with pytest.raises(pickle.UnpicklingError):
        read_plain(tampering)
    np.testing.assert_array_equal(read_plain(pickle.dumps(np.arange(3), 5)), before)
