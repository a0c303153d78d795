"""The commands fit-joints, fit-skeletons and convert-skeleton."""

from __future__ import annotations

import functools
import pathlib
import sys

import cv2
import numpy as np
import pytest

from metrabs_ros.cli import main
from metrabs_ros.skeletons import affine_autoencoder
from metrabs_ros.skeletons.definition_file import read_definitions

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))
import synthetic_skeletons


@pytest.fixture
def poses(tmp_path):
    synthetic = synthetic_skeletons.make(200, convention_count=2, joints=40)
    file = tmp_path / 'poses.npz'
    np.savez(
        file,
        poses3d=synthetic.poses_mm,
        joint_names=synthetic.joint_names,
        mirror_pairs=synthetic.mirror_pairs,
    )
    return file


def test_fit_skeletons_prints_errors_and_writes_a_file_and_a_picture(
    poses, tmp_path, capsys, monkeypatch
):
    fast = functools.partial(affine_autoencoder.fit_autoencoder, steps=(5, 3))
    monkeypatch.setattr(affine_autoencoder, 'fit_autoencoder', fast)
    output = tmp_path / 'autoencoder.npz'
    arguments = ['fit-skeletons', str(poses), '-o', str(output), '--latents', '20']
    assert main(arguments) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert sum(line.endswith(' mm') for line in lines) == 41
    assert 'mean error in poses that were left out' in lines[40]
    assert 'fitting' in printed.err
    fitted = affine_autoencoder.AffineAutoencoder.read(output)
    assert fitted.encoder.shape == (20, 40)
    picture = cv2.imread(str(tmp_path / 'autoencoder.png'))
    assert picture is not None
    assert (picture < 200).any(axis=-1).mean() > 0.01
    assert main(arguments) == 1
    assert 'already exists; --overwrite replaces it' in capsys.readouterr().err
    assert main(['fit-skeletons', str(poses), '-o', str(tmp_path / 'a.png')]) == 1
    assert 'its name must end in .npz' in capsys.readouterr().err


def test_fit_joints_writes_a_definition_that_can_be_read(poses, tmp_path, capsys):
    with np.load(poses) as arrays:
        names, poses3d = arrays['joint_names'], arrays['poses3d']
    examples = tmp_path / 'examples.npz'
    np.savez(
        examples,
        poses3d=poses3d[:30],
        joint_names=names,
        custom3d=poses3d[:30, :2].mean(axis=1, keepdims=True),
        custom_names=np.array(['middle']),
    )
    output = tmp_path / 'own.json'
    arguments = ['fit-joints', str(examples), '--name', 'own_1', '-o', str(output)]
    assert main([*arguments, '--source', '']) == 0
    error_mm = float(capsys.readouterr().out.removeprefix('middle: ').split()[0])
    assert error_mm < 5
    (definition,) = read_definitions(output)
    assert definition.skeleton.name == 'own_1'
    assert set(definition.source_joints) >= set(names[:2].tolist())
    assert main(arguments) == 1
    assert 'already exists' in capsys.readouterr().err
    np.savez(examples, poses3d=poses3d[:3], joint_names=names, custom_names=names[:1])
    assert main([*arguments, '--overwrite']) == 1
    assert 'lacks the array custom3d' in capsys.readouterr().err
    np.savez(
        examples,
        poses3d=poses3d[:3],
        joint_names=names,
        custom3d=poses3d[:3, :1] + 9,
        custom_names=np.array(['x']),
    )
    assert main([*arguments, '--overwrite']) == 0
    assert 'warning: 3 frames are few' in capsys.readouterr().err


def test_convert_skeleton_reports_errors_in_one_line(tmp_path, capsys):
    arguments = ['convert-skeleton', str(tmp_path / 'none'), '-o', str(tmp_path / 'out')]
    assert main([*arguments, '--skeleton', 'octopus_8']) == 1
    assert "skeleton is 'octopus_8'; it must be one of" in capsys.readouterr().err
    assert main([*arguments, '--skeleton', 'smpl_24']) == 1
    assert capsys.readouterr().err.count('\n') == 1
