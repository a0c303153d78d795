"""Which points are localised for a skeleton, and how many sets of points are kept."""

from __future__ import annotations

import numpy as np
import pytest
from nlf_checkpoints import tiny_estimator

from metrabs_ros.nlf.estimator import MAX_HEAD_POINTS, MAX_SETS
from metrabs_ros.nlf.points import MAX_POINTS
from metrabs_ros.options import Options
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import PointSkeleton

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
BOXES = [[40, 10, 50, 90], [80, 20, 60, 100]]
POCKETS_M = np.array([[0.12, -0.05, 0.09], [-0.12, -0.05, 0.09]])
POCKETS = PointSkeleton(Skeleton('pockets_2', ('left', 'right'), ()), POCKETS_M)


@pytest.fixture(scope='module')
def estimator():
    model = tiny_estimator()
    model.add_skeletons([POCKETS])
    return model


@pytest.mark.parametrize('num_aug', [1, 2])
def test_points_of_a_small_part_of_the_body_are_placed_with_all_points(estimator, num_aug):
    arguments = {'num_aug': num_aug, 'average_aug': False}
    pockets = estimator.estimate_poses(IMAGE, BOXES, skeleton='pockets_2', **arguments)
    everything = estimator.estimate_poses(IMAGE, BOXES, **arguments)
    indices = [len(estimator.skeleton) - 2, len(estimator.skeleton) - 1]
    np.testing.assert_allclose(pockets['poses3d'], everything['poses3d'][:, :, indices])
    assert pockets['poses3d'].shape == (2, num_aug, 2, 3)


@pytest.mark.parametrize('points_m', [POCKETS_M, POCKETS_M[:1], np.zeros((5, 3))])
def test_an_array_of_few_points_is_placed_with_all_points(estimator, points_m):
    options = Options(skeleton=estimator.skeleton_name(points_m))
    assert len(estimator.posed_skeleton(options)) == len(points_m) + len(estimator.skeleton)
    poses = estimator.estimate_poses(IMAGE, BOXES, skeleton=points_m)
    assert poses['poses3d'].shape == (2, len(points_m), 3)


def test_a_skeleton_without_joints_has_empty_poses():
    model = tiny_estimator()
    empty = Convention(Skeleton('empty_0', (), ()), np.zeros(0, np.intp))
    model._conventions['empty_0'] = empty
    poses = model.estimate_poses(IMAGE, BOXES, skeleton='empty_0')
    assert poses['poses3d'].shape == (2, 0, 3)
    assert poses['uncertainties'].shape == (2, 0)


def test_points_of_the_whole_body_alone_determine_its_position(estimator):
    count = len(estimator.per_skeleton_joint_names['smpl_24'])
    assert len(estimator.posed_skeleton(Options(skeleton='smpl_24'))) == count
    with_stature = Options(skeleton='smpl_24', stature=1700.0)
    assert len(estimator.posed_skeleton(with_stature)) == len(estimator.skeleton)


def test_points_with_negative_strides_are_localised(estimator):
    points_m = np.random.default_rng(0).uniform(-1, 1, (30, 3))
    assert len(estimator.posed_skeleton(Options(skeleton=estimator.skeleton_name(points_m)))) == 30
    poses = estimator.estimate_poses(IMAGE, BOXES, skeleton=points_m)['poses3d']
    reverse = estimator.estimate_poses(IMAGE, BOXES, skeleton=points_m[::-1])['poses3d']
    np.testing.assert_allclose(reverse[:, ::-1], poses, rtol=1e-4, atol=0.1)


def test_a_file_of_points_is_read_once_for_all_images(estimator, tmp_path, monkeypatch):
    files = []
    monkeypatch.setattr(
        'metrabs_ros.nlf.estimator.read_points',
        lambda file: files.append(file) or np.load(file),
    )
    file = tmp_path / 'points.npy'
    np.save(file, POCKETS_M)
    poses = estimator.estimate_poses_batched([IMAGE] * 3, [BOXES] * 3, skeleton=file)
    assert files == [file]
    expected = estimator.estimate_poses(IMAGE, BOXES, skeleton=POCKETS_M)
    for own in poses['poses3d']:
        np.testing.assert_allclose(own, expected['poses3d'], rtol=1e-3)


def test_the_memory_for_sets_of_points_is_limited():
    model, rng = tiny_estimator(), np.random.default_rng(0)
    for count in [*[30] * (MAX_SETS + 10), *[MAX_POINTS] * 6]:
        points_m = rng.uniform(-1, 1, (count, 3))
        first = model.estimate_poses(IMAGE, BOXES[:1], skeleton=points_m)
        again = model.estimate_poses(IMAGE, BOXES[:1], skeleton=points_m)
        np.testing.assert_array_equal(first['poses3d'], again['poses3d'])
    assert sum(map(len, model._heads.values())) <= MAX_HEAD_POINTS
    assert len(model._sets) <= MAX_SETS


def test_definitions_cannot_add_any_number_of_points():
    model = tiny_estimator()
    names = tuple(f'p{i}' for i in range(MAX_POINTS))
    many = PointSkeleton(Skeleton('many', names, ()), np.zeros((MAX_POINTS, 3)))
    with pytest.raises(ValueError, match=r"'many' has 4096 points, .* at most 4096"):
        model.add_skeletons([many])
    assert 'many' not in model.per_skeleton_joint_names


def test_the_names_of_all_points_of_a_model_differ():
    model = tiny_estimator()
    first, second = (
        PointSkeleton(Skeleton(name, (joint,), ()), np.zeros((1, 3)))
        for name, joint in (('b', 'x_a'), ('a_b', 'x'))
    )
    with pytest.raises(ValueError, match=r"'a_b' would add the point 'x_a_b', .* another name"):
        model.add_skeletons([first, second])


@pytest.mark.parametrize('skeleton', [None, 7, POCKETS_M])
def test_the_skeleton_of_options_is_a_name(skeleton):
    with pytest.raises(ValueError, match=r'skeleton is .* it must be the name of a skeleton'):
        Options(skeleton=skeleton)


def test_a_file_of_points_is_not_a_skeleton_of_streams(estimator):
    with pytest.raises(ValueError, match=r"skeleton is 'own\.npy'; .* definition file"):
        estimator.convention('own.npy')
