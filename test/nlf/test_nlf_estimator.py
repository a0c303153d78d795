"""NLF poses match the official ones, are independent of each other, and checked."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from nlf_golden_cases import (
    CASES,
    canonical_points,
    estimate,
    official_filter,
    official_result,
)

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.nlf.plausibility import plausible_poses
from metrabs_ros.options import Options, View
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

K = np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]])
IMAGE_WIDTH_PX = 1920
"""Width of the widest image of the cases."""
OPENVINO_CASES = 0, 4, 16
"""Cases that OpenVINO computes: the engine matters for the network only, of sizes S and L."""
STREET_BOXES = [[236, 155, 62, 150], [470, 190, 70, 150], [640, 240, 75, 160], [700, 60, 60, 130]]


@pytest.fixture(scope='module')
def model_of(nlf_folder):
    """Return a function that loads a model once."""
    return functools.cache(
        lambda size, pad_white_pixels, engine: metrabs_ros.load_model(
            nlf_folder(size, pad_white_pixels), engine, 'fp32'
        )
    )


@pytest.mark.parametrize(
    ('index', 'engine'),
    [
        pytest.param(i, engine, marks=pytest.mark.slow if CASES[i]['size'] == 'l' else ())
        for engine, indices in (('torch', range(len(CASES))), ('openvino', OPENVINO_CASES))
        for i in indices
    ],
)
def test_poses_match_the_official_implementation(model_of, index, engine):
    case, official = CASES[index], official_result(index)
    # Boxes outside of the image are rejected here.
    inside = [i for i, (left, *_) in enumerate(case['boxes']) if left < IMAGE_WIDTH_PX]
    official = {name: rows[inside] for name, rows in official.items()}
    model = model_of(case['size'], case['pad_white_pixels'], engine)
    result = estimate(model, case, [case['boxes'][i] for i in inside])
    assert result['poses3d'].shape == official['poses3d'].shape
    error_mm = np.linalg.norm(result['poses3d'] - official['poses3d'], axis=-1)
    distance_mm = np.linalg.norm(official['poses3d'], axis=-1)
    assert (error_mm <= np.maximum(1.0, 1e-4 * distance_mm)).all()
    # Half a pixel moves these points by 223 mm, five times as far as those of MeTRAbs's cases.
    assert np.median(error_mm) < max(0.3, 4e-5 * np.median(distance_mm))
    np.testing.assert_allclose(result['poses2d'], official['poses2d'], atol=0.1)
    np.testing.assert_allclose(result['uncertainties'], official['uncertainties'], atol=1e-3)


@pytest.mark.parametrize('name', ['filter_0', 'filter_1'])
def test_plausible_people_match_the_official_implementation(name):
    given = official_filter(name)
    poses = Poses(
        given['boxes'][:, :4],
        given['boxes'][:, 4],
        given['poses3d'][:, None].astype(float),
        given['poses2d'][:, None].astype(float),
        joint_std_mm=1000 * given['uncertainties'].astype(float),
    )
    assert plausible_poses(poses).tolist() == given['kept'].tolist()
    assert 0 < len(given['kept']) < len(given['boxes'])


def test_a_named_skeleton_equals_its_canonical_points(nlf_model, nlf_folder):
    points_m = np.load(nlf_folder() / 'canonical_joints' / 'smplx.npy')
    by_name = estimate(nlf_model, CASES[0], skeleton='smplx_55')
    by_points = estimate(nlf_model, CASES[0], skeleton=points_m)
    for name, values in by_name.items():
        np.testing.assert_allclose(by_points[name], values, rtol=1e-5, atol=1e-3)


def test_points_from_a_file_and_from_an_array_are_the_same(nlf_model, tmp_path):
    points_m = canonical_points('coco_19')
    np.save(tmp_path / 'points.npy', points_m)
    from_file = estimate(nlf_model, CASES[0], skeleton=str(tmp_path / 'points.npy'))
    from_array = estimate(nlf_model, CASES[0], skeleton=points_m)
    for name, values in from_array.items():
        np.testing.assert_array_equal(from_file[name], values)


def test_points_in_a_definition_file_are_a_skeleton_of_the_model(nlf_folder, tmp_path):
    names = ('left_hip', 'right_hip', 'nose')
    points = dict(zip(names, canonical_points('smpl_24')[[1, 2, 15]].astype(float).tolist()))
    own = {'name': 'own_3', 'points': points, 'edges': [['left_hip', 'right_hip']]}
    (tmp_path / 'own.json').write_text(json.dumps({'skeletons': [own]}))
    plain = metrabs_ros.load_model(nlf_folder(), 'torch')
    model = metrabs_ros.load_model(nlf_folder(), 'torch', skeletons=tmp_path / 'own.json')
    assert model.per_skeleton_joint_names['own_3'] == list(names)
    assert len(model.skeleton) == len(plain.skeleton) + 3
    by_name = estimate(model, CASES[0], skeleton='own_3')
    by_points = estimate(plain, CASES[0], skeleton=np.array(list(points.values())))
    np.testing.assert_allclose(by_name['poses3d'], by_points['poses3d'], atol=1e-3)
    everything = estimate(model, CASES[0], skeleton='')
    assert everything['poses3d'].shape == (4, len(model.skeleton), 3)


@pytest.mark.parametrize(
    ('skeleton', 'message'),
    [
        ('octopus_8', "skeleton is 'octopus_8'; it must be one of ''"),
        ('missing.npy', 'skeleton file missing.npy cannot be read'),
        (np.zeros((3, 2)), r'skeleton has shape \(3, 2\)'),
        ([[0, 0, 1e6]], 'skeleton contains coordinates up to 1e'),
    ],
)
def test_other_skeletons_are_rejected(nlf_model, skeleton, message):
    with pytest.raises(ValueError, match=message):
        estimate(nlf_model, CASES[0], skeleton=skeleton)


def test_other_models_reject_canonical_points(model, street):
    with pytest.raises(ValueError, match=r'skeleton is .* it must be the name of a skeleton'):
        model.estimate_poses(street, STREET_BOXES, skeleton=np.zeros((3, 3)))


def test_a_pose_is_identical_whichever_other_boxes_are_given(nlf_model):
    others = [[100, 100, 50, 120], STREET_BOXES[1], [300, 200, 80, 160], [10, 10, 700, 500]]
    before = estimate(nlf_model, CASES[0], STREET_BOXES, num_aug=2)
    after = estimate(nlf_model, CASES[0], others, num_aug=2)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][1], values[1])


@pytest.mark.parametrize('batch_size', [1, 3])
def test_mirrored_crops_are_located_in_any_batch(nlf_model, batch_size):
    together = estimate(nlf_model, CASES[0], num_aug=3)
    apart = estimate(nlf_model, CASES[0], num_aug=3, internal_batch_size=batch_size)
    np.testing.assert_allclose(apart['poses3d'], together['poses3d'], rtol=1e-4, atol=1)


def test_augmentations_that_are_not_combined_have_an_axis(nlf_model):
    result = estimate(nlf_model, CASES[0], num_aug=3, average_aug=False)
    assert result['poses3d'].shape == (4, 3, 24, 3)
    assert result['poses2d'].shape == (4, 3, 24, 2)
    assert result['uncertainties'].shape == (4, 24)
    empty = estimate(nlf_model, CASES[0], [], num_aug=3, average_aug=False)
    assert empty['poses3d'].shape == (0, 3, 24, 3)
    assert empty['uncertainties'].shape == (0, 24)


def test_a_known_stature_scales_skeletons_without_the_joints_that_it_needs(nlf_model):
    wrists_m = canonical_points('smpl_24')[20:22]
    (small, large), everything = (
        [
            estimate(nlf_model, CASES[0], skeleton=skeleton, stature=stature_mm)['poses3d']
            for stature_mm in (1500.0, 1900.0)
        ]
        for skeleton in (wrists_m, '')
    )
    np.testing.assert_allclose(large / small, 1.9 / 1.5)
    people = People.from_detections(
        nlf_model.skeleton,
        np.zeros((4, 4)),
        np.ones(4),
        everything[0],
        everything[0][..., :2],
        (1, 1),
    )
    np.testing.assert_allclose(people.statures_mm, 1500)


def test_batched_methods_match_the_single_image_methods(nlf_model, street, player):
    boxes = [STREET_BOXES, [[110, 60, 320, 260]]]
    batched = nlf_model.estimate_poses_batched(
        [street, player], boxes, intrinsic_matrix=K, skeleton='smpl_24'
    )
    assert 'uncertainties' in batched
    for i, image in enumerate((street, player)):
        single = nlf_model.estimate_poses(image, boxes[i], intrinsic_matrix=K, skeleton='smpl_24')
        for name, array in single.items():
            np.testing.assert_allclose(batched[name][i], array, rtol=2e-5, atol=1)


def test_detected_people_have_the_poses_of_their_boxes(nlf_model, street):
    result = nlf_model.detect_poses(
        street, K, skeleton='smpl_24', suppress_implausible_poses=False
    )
    again = nlf_model.estimate_poses(street, result['boxes'], K, skeleton='smpl_24')
    assert len(result['boxes']) >= 4
    np.testing.assert_allclose(result['poses3d'], again['poses3d'], rtol=2e-5, atol=1)
    plausible = nlf_model.detect_poses(street, K, skeleton='smpl_24')
    assert len(plausible['boxes']) <= len(result['boxes'])


def test_the_standard_deviations_of_people_are_the_uncertainties(nlf_model, street):
    result = nlf_model.detect_poses(
        street, K, skeleton='smpl_24', suppress_implausible_poses=False
    )
    skeleton = nlf_model.convention('smpl_24').skeleton
    people = People.of_prediction(result, skeleton, street.shape)
    np.testing.assert_allclose(people.joint_std_mm, 1000 * result['uncertainties'])


def test_tracked_people_have_all_points_and_their_standard_deviations(nlf_model, street):
    options = Options(suppress_implausible_poses=False)
    tracker = PersonTracker(nlf_model, options, min_hits=1)
    view = TimedView(View(street, Camera(K)), 1.0)
    (people,) = tracker.process([view])
    assert people.poses3d_mm.shape[1:] == (len(nlf_model.skeleton), 3)
    assert len(people) >= 4
    (poses,) = nlf_model.pose_people([view.view], [people.boxes_px], options)
    np.testing.assert_allclose(people.joint_std_mm, poses.joint_std_mm, rtol=1e-3)
    hips_mm = people.midpoint('hip')
    assert np.isfinite(hips_mm).all()
    assert np.isfinite(people.statures_mm).all()


@pytest.mark.parametrize('box', [[-5000, -5000, 9000, 9000], [0, 0, 1, 1], [0, 287, 768, 1]])
def test_poses_of_extreme_boxes_are_finite(nlf_model, street, box):
    poses = nlf_model.estimate_poses(street, [box], K, num_aug=3, skeleton='smpl_24')
    for values in poses.values():
        assert np.isfinite(values).all()
