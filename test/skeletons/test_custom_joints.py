"""Custom joints from examples: accuracy in new poses, warnings, symmetry, files."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from metrabs_ros.skeletons.custom_joints import (
    Examples,
    _folds,
    different_postures,
    fit_custom_joints,
    read_examples,
)
from metrabs_ros.skeletons.pose_samples import PoseSamples

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))
import synthetic_skeletons

FEW_JOINTS = 80
"""Joints of all conventions where the accuracy does not matter; fitting is much faster."""


def examples_of(count, seed=3, joints=180):
    """Return examples of the first of eight conventions from the others."""
    synthetic = synthetic_skeletons.make(count, seed, convention_count=8, joints=joints)
    is_custom = synthetic.conventions == 0
    parts = []
    for own in (~is_custom, is_custom):
        index = np.cumsum(own) - 1
        pairs = [(int(index[a]), int(index[b])) for a, b in synthetic.mirror_pairs if own[a]]
        names = tuple(synthetic.joint_names[own].tolist())
        parts.append(PoseSamples(synthetic.poses_mm[:, own].astype(float), names, pairs))
    return Examples(*parts, edges=((0, 1),)), synthetic.is_affine[is_custom]


def numbered(poses):
    """Return names of the joints without sides."""
    return [f'joint {i}' for i in range(len(poses.joint_names))]


def positions(definition, poses):
    index = [poses.joint_names.index(name) for name in definition.source_joints]
    return definition.weights @ poses.poses_mm[:, index]


def test_50_frames_give_joints_within_8_mm_in_new_poses():
    examples, is_affine = examples_of(50)
    result = fit_custom_joints(examples, 'mine_23', 'all_157')
    new, _ = examples_of(500, seed=8)
    errors_mm = np.linalg.norm(
        positions(result.definition, new.model) - new.custom.poses_mm, axis=-1
    ).mean(axis=0)
    assert errors_mm[is_affine].max() < 8
    assert errors_mm.mean() < 8
    assert result.errors_mm.mean() == pytest.approx(errors_mm.mean(), rel=0.3)
    np.testing.assert_allclose(
        result.definition.deviations_mm, result.errors_mm / np.sqrt(8 / np.pi), rtol=0.15
    )
    assert not result.warnings
    assert ((result.definition.weights != 0).sum(axis=1) <= 16).all()


def test_the_definition_has_names_edges_and_counterparts():
    examples, _ = examples_of(20, joints=FEW_JOINTS)
    definition = fit_custom_joints(examples, 'mine_10', 'all_70').definition
    assert definition.skeleton.joint_names == examples.custom.joint_names
    assert definition.skeleton.edges == ((0, 1),)
    mirror = definition.skeleton.mirror
    assert (mirror != np.arange(len(mirror))).any()
    source_mirror = [
        definition.source_joints.index(
            examples.model.joint_names[examples.model.skeleton.mirror[own]]
        )
        for own in map(examples.model.joint_names.index, definition.source_joints)
    ]
    np.testing.assert_allclose(
        definition.weights[mirror][:, source_mirror], definition.weights, atol=1e-12
    )
    assert 'fitted to 20 frames; error in frames that were left out' in definition.notes[0]


def test_few_frames_and_similar_frames_give_warnings():
    few, _ = examples_of(5, joints=FEW_JOINTS)
    assert '5 frames are few' in fit_custom_joints(few, 'a', '').warnings[0]
    one, _ = examples_of(2, joints=FEW_JOINTS)
    noise = np.random.default_rng(0).normal(0, 2, (60, 1, 3))
    same = Examples(
        PoseSamples(one.model.poses_mm[:1] + noise, one.model.joint_names),
        PoseSamples(one.custom.poses_mm[:1] + noise, one.custom.joint_names),
    )
    (warning,) = fit_custom_joints(same, 'a', '').warnings
    assert 'only 1 of 60 frames show different postures' in warning


def test_joints_that_do_not_follow_the_model_give_a_warning():
    examples, _ = examples_of(40)
    other = np.random.default_rng(0).normal(0, 500, (40, 1, 3)) + examples.model.poses_mm[:, :1]
    unrelated = Examples(examples.model, PoseSamples(other, ('balloon',)))
    (warning,) = fit_custom_joints(unrelated, 'a', '').warnings
    assert "'balloon'" in warning
    assert 'not combinations of the joints' in warning


def test_frames_with_missing_joints_are_left_out():
    examples, _ = examples_of(60, joints=FEW_JOINTS)
    poses_mm = examples.custom.poses_mm.copy()
    poses_mm[:40, 0] = np.nan
    custom = PoseSamples(poses_mm, examples.custom.joint_names)
    result = fit_custom_joints(Examples(examples.model, custom), 'a', '')
    assert result.errors_mm[0] < 30
    poses_mm[:59, 0] = np.nan
    poses_mm[59, 1] = np.nan
    plain = PoseSamples(examples.model.poses_mm, numbered(examples.model), [])
    custom = PoseSamples(poses_mm, numbered(examples.custom), [])
    with pytest.raises(ValueError, match="joint 'joint 0' has 1 frames in which all joints"):
        fit_custom_joints(Examples(plain, custom), 'a', '')


def test_postures_are_counted_wherever_the_people_stand():
    examples, _ = examples_of(30)
    poses_mm = examples.model.poses_mm
    assert different_postures(poses_mm) == 10
    turned = np.repeat(poses_mm[:1], 20, axis=0) + 5000 * np.arange(20)[:, None, None]
    assert different_postures(turned) == 1


def test_a_file_of_examples_is_read(tmp_path):
    file = tmp_path / 'examples.npz'
    examples, _ = examples_of(10)
    arrays = {
        'poses3d': examples.model.poses_mm,
        'joint_names': np.array(examples.model.joint_names),
        'custom3d': examples.custom.poses_mm,
        'custom_names': np.array(examples.custom.joint_names),
        'custom_edges': np.array([examples.custom.joint_names[:2]]),
        'custom_mirror_pairs': np.array(examples.custom.mirror_pairs),
    }
    np.savez(file, **arrays)
    read = read_examples(file)
    assert read.edges == ((0, 1),)
    assert read.custom.mirror_pairs == examples.custom.mirror_pairs
    np.testing.assert_array_equal(read.model.poses_mm, examples.model.poses_mm)
    for changes, message in (
        ({'custom3d': examples.custom.poses_mm[:4]}, '10 frames of the model and 4 of the custom'),
        ({'custom_edges': np.array([['a', 'b']])}, "custom_edges has the unknown joint 'a'"),
        ({'joint_names': np.array(['a'])}, 'and there are 1 names'),
    ):
        np.savez(file, **{**arrays, **changes})
        with pytest.raises(ValueError, match=message) as caught:
            read_examples(file)
        assert str(file) in str(caught.value)
    del arrays['custom3d']
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match='it lacks the array custom3d'):
        read_examples(file)


def body_with_probe(name):
    """Return examples of a joint at the right hand without a counterpart."""
    names, body_mm, _ = synthetic_skeletons.body_poses(50, np.random.default_rng(0))
    wrist, index = names.index('right_wrist'), names.index('right_index')
    probe_mm = 1.5 * body_mm[:, [index]] - 0.5 * body_mm[:, [wrist]]
    return Examples(PoseSamples(body_mm, tuple(names)), PoseSamples(probe_mm, (name,)))


@pytest.mark.parametrize('name', ['probe', 'right_probe'])
def test_a_joint_on_one_side_needs_no_counterpart(name):
    result = fit_custom_joints(body_with_probe(name), 'a', '')
    assert result.errors_mm[0] < 1
    assert not result.warnings


def test_frames_that_lack_joints_of_the_model_do_not_count():
    examples = body_with_probe('probe')
    poses_mm = examples.model.poses_mm.copy()
    poses_mm[5:, 3] = np.nan
    model = PoseSamples(poses_mm, examples.model.joint_names)
    result = fit_custom_joints(Examples(model, examples.custom), 'a', '')
    assert '5 frames are few' in result.warnings[0]
    assert 'fitted to 5 frames' in result.definition.notes[0]


@pytest.mark.parametrize('count', [2, 7, 50])
def test_a_frame_and_its_mirror_image_are_left_out_together(count):
    frames = np.repeat(np.arange(count), 2)
    seen = []
    for fitted, held_out in _folds(frames):
        assert not set(frames[fitted]) & set(frames[held_out])
        seen.extend(held_out.tolist())
    assert seen == list(range(2 * count))
