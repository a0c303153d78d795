"""Poses from .npz files: validation and hostile content."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hostile import NOT_FILES, put_sparse_file, run_in_child

from metrabs_ros.skeletons.pose_samples import PoseSamples, read_samples

NAMES = ('left_a', 'right_a', 'b')
POSES = np.random.default_rng(0).normal(0, 500, (6, 3, 3))


def write(file, **changes):
    arrays = {'poses3d': POSES, 'joint_names': np.array(NAMES), **changes}
    np.savez(file, **{name: values for name, values in arrays.items() if values is not None})
    return file


def test_poses_names_and_pairs_are_read(tmp_path):
    samples = read_samples(write(tmp_path / 'a.npz'))
    np.testing.assert_array_equal(samples.poses_mm, POSES)
    assert samples.joint_names == NAMES
    assert samples.skeleton.mirror.tolist() == [1, 0, 2]
    for pairs in ([[0, 2]], [['left_a', 'b']]):
        file = write(tmp_path / 'a.npz', mirror_pairs=np.array(pairs))
        assert read_samples(file).skeleton.mirror.tolist() == [2, 1, 0]


def test_missing_joints_stay_missing(tmp_path):
    poses = POSES.astype(np.float32)
    poses[2, 1] = np.nan
    samples = read_samples(write(tmp_path / 'a.npz', poses3d=poses))
    np.testing.assert_array_equal(samples.poses_mm, poses)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'poses3d': None}, 'it lacks the array poses3d; expected: joint_names, poses3d'),
        ({'joint_names': None}, 'it lacks the array joint_names'),
        ({'poses3d': POSES[0]}, r'have the shape \(3, 3\) and there are 3 names; expected'),
        ({'joint_names': np.array(['a', 'b'])}, 'there are 2 names; expected'),
        ({'joint_names': np.array(['a', 'a', 'b'])}, "joint 'a' occurs twice"),
        ({'joint_names': np.array(['a', '', 'b'])}, 'joint_names has the name ""'),
        ({'joint_names': np.array([1, 2, 3])}, 'joint_names has the name 1'),
        ({'poses3d': np.full((6, 3, 3), np.nan)}, "the joint 'left_a' is NaN in all poses"),
        ({'poses3d': POSES / 1e5}, 'poses must be in millimetres'),
        ({'poses3d': POSES * 1e9}, 'coordinates above 1e.07 mm; mark missing joints with NaN'),
        ({'poses3d': np.full((6, 3, 3), 'x')}, 'poses3d has the type <U1; expected: numbers'),
        ({'poses3d': POSES + np.inf}, 'coordinates above'),
        ({'mirror_pairs': np.array([[0, 3]])}, 'mirror_pairs has the unknown joint 3'),
        ({'mirror_pairs': np.array([[0, -1]])}, 'mirror_pairs has the unknown joint -1'),
        ({'mirror_pairs': np.array([['b', 'c']])}, "mirror_pairs has the unknown joint 'c'"),
        ({'mirror_pairs': np.array([0, 1])}, r'mirror_pairs is int64 of shape \(2,\)'),
        ({'mirror_pairs': np.array([[0, 1], [1, 2]])}, "joint 'right_a' with 'left_a', 'b'"),
        ({'mirror_pairs': np.array([[0, 0]])}, "mirror pairs joint 'left_a' with 'left_a'"),
    ],
)
def test_invalid_arrays_are_named_in_one_sentence(tmp_path, changes, message):
    file = write(tmp_path / 'a.npz', **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_samples(file)
    assert str(file) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return pathlib_touch, (str(tmp_path / 'touched'),)

    file = tmp_path / 'a.npz'
    file.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r'is not a valid .npz file of poses'):
        read_samples(file)
    np.savez(file, poses3d=np.array([Attack()], object), joint_names=np.array(NAMES))
    with pytest.raises(ValueError, match='does not describe an array of numbers or strings'):
        read_samples(file)
    assert not (tmp_path / 'touched').exists()


def pathlib_touch(name):
    open(name, 'w').close()


def test_an_array_that_unpacks_to_much_more_is_rejected(tmp_path):
    file = tmp_path / 'a.npz'
    np.savez_compressed(file, poses3d=np.zeros((2_000_000, 3, 3)), joint_names=np.array(NAMES))
    message = run_in_child(lambda: read_samples(file), memory_bytes=100 << 20)
    assert 'more than the limit of 200 times' in message


@pytest.mark.parametrize('put', [*NOT_FILES, put_sparse_file], ids=lambda put: put.__name__)
def test_paths_that_are_not_files_of_poses_are_rejected(tmp_path, put):
    file = tmp_path / 'a.npz'
    put(file)
    message = run_in_child(lambda: read_samples(file), memory_bytes=200 << 20)
    assert message.startswith(f'ValueError: {file} '), message


def test_samples_may_be_empty():
    assert len(PoseSamples(np.zeros((0, 3, 3)), NAMES).poses_mm) == 0
