"""Crop checkpoints and multi-person archives give the same networks, points and skeletons."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import make_nlf_checkpoint
from nlf_archives import (
    OTHER_BYTES,
    crop_tensors,
    modules_of,
    multiperson_model,
    rewrite,
    save_archive,
    with_half_backbone,
    with_old_names,
)
from nlf_golden_cases import canonical_points

import metrabs_ros
from metrabs_ros.nlf.canonical import BODY_MODELS
from metrabs_ros.nlf.checkpoint import NlfCheckpoint, read_checkpoint
from metrabs_ros.people import implied_statures_mm
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.weights.store import WeightsError

WEIGHTS = 'nlf_s_crop.pt'
TABLE = ('joint_info_866.pkl', 'canonical_loc_symmetric_init_866.npy')
SKELETONS = 'skeleton_types_huge8.pkl'
BOX = [236, 155, 62, 150]


@pytest.fixture
def folder(nlf_folder, tmp_path):
    """Return a copy of a checkpoint without settings; its files are hard links."""
    shutil.copytree(nlf_folder(), tmp_path / 'nlf', copy_function=os.link)
    (tmp_path / 'nlf' / 'config.yaml').unlink()
    return tmp_path / 'nlf'


@pytest.fixture(scope='module')
def checkpoint(nlf_folder) -> NlfCheckpoint:
    return read_checkpoint(nlf_folder())


@pytest.fixture(scope='module')
def archive(nlf_folder, tmp_path_factory) -> pathlib.Path:
    """Return an archive with the content of the checkpoint."""
    file = tmp_path_factory.mktemp('archive') / 'nlf_s_multi_0.3.2.torchscript'
    tensors = with_half_backbone(crop_tensors(nlf_folder()))
    return save_archive(multiperson_model(nlf_folder(), tensors), file)


def test_all_parts_of_a_crop_checkpoint_are_read(checkpoint):
    config = checkpoint.config
    assert (config.size, config.side_px, config.stride_px, config.depth) == ('s', 256, 32, 8)
    assert config.centered_stride
    assert config.box_size_mm == 2200
    assert config.channels == 512
    assert (config.min_uncertainty_m, config.uncertainty_factor) == (0.001, 3)
    assert config.white_background
    assert not checkpoint.crop_model.training
    assert not any(p.requires_grad for p in checkpoint.field.parameters())
    assert next(iter(checkpoint.conventions)) == ''
    assert checkpoint.conventions[''].indices.tolist() == list(range(len(checkpoint.points_m)))
    names = checkpoint.conventions[''].skeleton.joint_names
    assert len(set(names)) == len(names) == len(checkpoint.points_m) == 74 + 24 + 55


@pytest.mark.parametrize('name', ['h36m_17', 'coco_19', 'smpl+head_30', ''])
def test_points_of_the_table_are_those_of_the_official_code(checkpoint, name):
    expected = canonical_points(name)
    convention = checkpoint.conventions[name]
    points_m = checkpoint.points_m[convention.indices][: len(expected)]
    np.testing.assert_allclose(points_m, expected, atol=1e-7)
    table = make_nlf_checkpoint.skeleton_types()[name]
    assert convention.skeleton.joint_names[: len(expected)] == tuple(table['names'])
    assert convention.skeleton.edges[: len(table['edges'])] == tuple(table['edges'])


@pytest.mark.parametrize('model', ['smpl', 'smplx'])
def test_joints_of_body_models_have_the_canonical_points_of_these_models(checkpoint, model):
    joints = make_nlf_checkpoint.body_model_joints()[model]
    convention = checkpoint.conventions[f'{model}_{len(joints)}']
    points_m = checkpoint.points_m[convention.indices]
    np.testing.assert_allclose(points_m, joints, atol=1e-6)
    # Bones are shorter than between joints of wrong names.
    edges = np.array(BODY_MODELS[model].skeleton.edges)
    assert len(edges) == len(joints) - 1
    assert np.linalg.norm(np.diff(points_m[edges], axis=1), axis=-1).max() < 0.45
    assert convention.skeleton.joint_names[0].startswith('pelv')


def test_names_of_the_other_side_are_those_of_mirrored_points(checkpoint):
    for convention in checkpoint.conventions.values():
        points_m = checkpoint.points_m[convention.indices]
        mirrored_m = points_m[convention.skeleton.mirror] * (-1, 1, 1)
        np.testing.assert_allclose(mirrored_m, points_m, atol=0.07)
        is_lateral = np.abs(points_m[:, 0]) > 0.06
        own = np.arange(len(points_m))[is_lateral]
        assert (convention.skeleton.mirror[is_lateral] != own).all()


def test_landmarks_of_people_are_found_among_all_joints(checkpoint):
    skeleton = checkpoint.conventions[''].skeleton
    for name in COCO_17.joint_names:
        side, _, part = name.rpartition('_')
        found = skeleton.part(part, side)
        assert len(found), name
        if side:
            assert (np.sign(checkpoint.points_m[found, 0]) == (1 if side == 'left' else -1)).all()
    stature_mm = implied_statures_mm(1000 * checkpoint.points_m, skeleton)
    assert 1400 < stature_mm < 2000


def test_settings_replace_the_published_ones(folder):
    changes = {
        'proc_side': 384,
        'centered_stride': False,
        'box_size_m': 2,
        'weak_perspective': True,
        'uncert_bias': -0.5,
        'uncert_bias2': 0.002,
        'fix_uncert_factor': True,
        'pad_white_pixels': False,
        'other': [1, 2],
    }
    (folder / 'config.yaml').write_text(yaml.safe_dump(changes))
    config = read_checkpoint(folder).config
    assert config.side_px == 384
    assert not config.centered_stride
    assert config.box_size_mm == 2000
    assert config.weak_perspective
    assert (config.uncertainty_bias, config.min_uncertainty_m) == (-0.5, 0.002)
    assert config.uncertainty_factor == 1
    assert not config.white_background


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'proc_side': 31}, 'has proc_side: 31; expected: at least 32 and at most 1024'),
        ({'stride_test': 'a'}, "has stride_test: 'a'; expected: int"),
        ({'box_size_m': float('nan')}, 'has box_size_m: nan'),
        ({'uncert_bias2': -1.0}, 'has uncert_bias2: -1.0'),
        ({'pad_white_pixels': 1}, 'has pad_white_pixels: 1; expected: bool'),
    ],
)
def test_an_invalid_setting_is_explained(folder, changes, message):
    (folder / 'config.yaml').write_text(yaml.safe_dump(changes))
    with pytest.raises(WeightsError, match=rf'config\.yaml {message}'):
        read_checkpoint(folder)


def test_a_wrapped_state_dict_is_read(folder, checkpoint):
    state = torch.load(folder / WEIGHTS, weights_only=True)
    (folder / WEIGHTS).unlink()
    optimizer = {'state': {0: {'step': torch.tensor(1)}}, 'lr': 0.1}
    wrapped = {'model_state_dict': state, 'optimizer_state_dict': optimizer, 'epoch': 3}
    torch.save(wrapped, folder / WEIGHTS)
    assert_same(read_checkpoint(folder), checkpoint)


@pytest.mark.parametrize('missing', TABLE)
def test_without_the_joints_of_the_network_those_of_body_models_remain(folder, missing):
    (folder / missing).unlink()
    checkpoint = read_checkpoint(folder)
    assert list(checkpoint.conventions) == ['', 'smpl_24', 'smplx_55']
    skeleton = checkpoint.conventions[''].skeleton
    assert skeleton.joint_names[:2] == ('pelv_smpl_24', 'lhip_smpl_24')
    for part in ('hip', 'knee', 'ankle', 'shoulder', 'elbow', 'wrist', 'eye'):
        assert len(skeleton.part(part, 'left')) == 2 - (part == 'eye')


def test_without_the_table_of_skeletons_all_joints_have_their_names(folder):
    (folder / SKELETONS).unlink()
    conventions = read_checkpoint(folder).conventions
    assert list(conventions) == ['', 'smpl_24', 'smplx_55']
    names = make_nlf_checkpoint.JOINT_NAMES
    assert conventions[''].skeleton.joint_names[: len(names)] == tuple(names)


def test_without_joints_of_body_models_the_table_remains(folder):
    shutil.rmtree(folder / 'canonical_joints')
    checkpoint = read_checkpoint(folder)
    assert len(checkpoint.points_m) == len(make_nlf_checkpoint.JOINT_NAMES)
    points_m = checkpoint.points_m[checkpoint.conventions['smpl_24'].indices]
    np.testing.assert_allclose(points_m, canonical_points('smpl_24'), atol=1e-7)


def test_a_checkpoint_without_any_joints_is_rejected(folder):
    shutil.rmtree(folder / 'canonical_joints')
    (folder / TABLE[0]).unlink()
    with pytest.raises(WeightsError, match=r'canonical_joints/smpl\.npy .* joint_info_866\.pkl'):
        read_checkpoint(folder)


@pytest.mark.parametrize('missing', ['canonical_eigval3.npy', 'canonical_nodes3.npy', WEIGHTS])
def test_a_missing_file_is_named_in_the_error(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=missing.replace('.pt', '').replace('.', r'\.')):
        metrabs_ros.load_model(folder)


def test_one_of_two_checkpoints_in_a_folder_is_selected_by_its_file(folder, checkpoint):
    os.link(folder / WEIGHTS, folder / 'nlf_s_crop_2.pt')
    with pytest.raises(WeightsError, match=r'nlf_s_crop\.pt, nlf_s_crop_2\.pt; give the path'):
        read_checkpoint(folder)
    assert_same(read_checkpoint(folder / 'nlf_s_crop_2.pt'), checkpoint)


def assert_same(actual: NlfCheckpoint, expected: NlfCheckpoint, tolerance: float = 0.0) -> None:
    """Compare checkpoints; the tolerance applies to the weights of the features."""
    assert actual.config == expected.config
    np.testing.assert_allclose(actual.points_m, expected.points_m, rtol=0, atol=1e-9)
    assert list(actual.conventions) == list(expected.conventions)
    for name, convention in expected.conventions.items():
        assert actual.conventions[name].skeleton == convention.skeleton
        np.testing.assert_array_equal(actual.conventions[name].indices, convention.indices)
    for networks, rtol in (
        ((actual.crop_model, expected.crop_model), tolerance),
        ((actual.field, expected.field), 0.0),
    ):
        state, reference = (network.state_dict() for network in networks)
        assert list(state) == list(reference)
        shapes, expected_shapes = (
            {name: value.shape for name, value in weights.items()}
            for weights in (state, reference)
        )
        assert shapes == expected_shapes
        # All at once, because most tensors are small.
        values, expected_values = (
            torch.cat([value.double().flatten() for value in weights.values()])
            for weights in (state, reference)
        )
        # The smallest numbers in half precision are 6e-8.
        torch.testing.assert_close(values, expected_values, rtol=rtol, atol=rtol and 1e-7)


def test_an_archive_gives_the_same_as_a_crop_checkpoint(archive, checkpoint):
    assert_same(read_checkpoint(archive), checkpoint, tolerance=1e-3)


def test_an_archive_with_old_names_gives_the_same(nlf_folder, tmp_path, checkpoint):
    tensors = with_old_names(with_half_backbone(crop_tensors(nlf_folder())))
    model = multiperson_model(nlf_folder(), tensors, old_field=True)
    del model.skeleton_joint_indices_table
    file = save_archive(model, tmp_path / 'nlf_s_multi.torchscript')
    assert_same(read_checkpoint(file), checkpoint, tolerance=1e-3)


def test_parameters_of_an_old_crop_checkpoint_are_read(folder, checkpoint):
    state = with_old_names(torch.load(folder / WEIGHTS, weights_only=True))
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / WEIGHTS)
    assert_same(read_checkpoint(folder), checkpoint)


def test_only_the_data_of_the_crop_network_is_read(archive, tmp_path, checkpoint):
    removed = []

    def without_others(name, content):
        is_other = len(content) in OTHER_BYTES and name.startswith('data/')
        removed.extend([name] * is_other)
        return None if is_other else content

    rewrite(archive, tmp_path / 'nlf_s_multi.torchscript', without_others)
    assert len(removed) == len(OTHER_BYTES)
    assert_same(read_checkpoint(tmp_path), checkpoint, tolerance=1e-3)


def test_settings_of_an_archive_are_read_and_it_needs_no_table(nlf_folder, tmp_path):
    tensors = crop_tensors(nlf_folder())
    del tensors['canonical_locs_init']
    model = multiperson_model(nlf_folder(), tensors)
    model.pad_white_pixels = False
    head = model.crop_model.heatmap_head
    head.proc_side, head.centered_stride, head.box_size_m = 384, False, 2.5
    head.uncert_bias, head.fix_uncert_factor, head.weak_perspective = 0.25, True, True
    checkpoint = read_checkpoint(save_archive(model, tmp_path / 'a.torchscript'))
    config = checkpoint.config
    assert (config.side_px, config.centered_stride, config.box_size_mm) == (384, False, 2500)
    assert (config.uncertainty_bias, config.uncertainty_factor) == (0.25, 1)
    assert config.weak_perspective
    assert not config.white_background
    assert list(checkpoint.conventions) == ['', 'smpl_24', 'smplx_55']


def test_another_script_is_rejected(tmp_path):
    file = tmp_path / 'other.torchscript'
    save_archive(modules_of({'layer.weight': torch.zeros(2, 2)}), file)
    with pytest.raises(WeightsError, match=r'other\.torchscript .* expected: a multi-person'):
        metrabs_ros.load_model(file)


def test_a_skeleton_gives_the_same_poses_as_the_array_of_its_points(nlf_folder, archive, street):
    for path in (nlf_folder(), archive):
        model = metrabs_ros.load_model(path, engine='torch', device='cpu', threads=1)
        convention = model.convention('smpl_24')
        points_m = read_checkpoint(path).points_m[convention.indices]
        by_name = model.estimate_poses(street, [BOX], skeleton='smpl_24')
        by_points = model.estimate_poses(street, [BOX], skeleton=points_m)
        assert by_name['poses3d'].shape == (1, 24, 3)
        for name, values in by_name.items():
            np.testing.assert_allclose(by_points[name], values, rtol=1e-5)
        assert next(iter(model.per_skeleton_joint_names)) == ''
        assert len(model.per_skeleton_joint_edges['smplx_55']) == 54
