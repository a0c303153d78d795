"""MeTRAbs poses match the official ones, are independent of each other, and checked."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from conftest import CAN_CALCULATE_IN_BF16
from golden_cases import CASES, estimate, official_result

import metrabs_ros
from metrabs_ros.options import Options

K = np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]])
STREET_BOXES = [[236, 155, 62, 150], [470, 190, 70, 150], [640, 240, 75, 160], [700, 60, 60, 130]]


@pytest.fixture(scope='module')
def model_of(checkpoint_folder):
    """Return a function that loads a variant of the model once."""
    return functools.cache(
        lambda variant, engine='auto', precision='fp32': metrabs_ros.load_model(
            checkpoint_folder(variant), engine, precision
        )
    )


def calls():
    """Return the cases with torch, and with OpenVINO one or two of each checkpoint."""
    variants = [case['variant'] for case in CASES]
    slow = sorted({variants.index(variant) for variant in variants} - {0, 3})
    return [
        *((i, 'torch') for i in range(len(CASES))),
        *((i, 'openvino') for i in (0, 3)),
        *(pytest.param(i, 'openvino', marks=pytest.mark.slow) for i in slow),
    ]


@pytest.mark.parametrize(('index', 'engine'), calls())
def test_poses_match_the_official_implementation(model_of, index, engine):
    case = CASES[index]
    official = official_result(index)
    official_mm = official['poses3d']
    result = estimate(model_of(case['variant'], engine), case)
    assert result['poses3d'].shape == official_mm.shape
    error_mm = np.linalg.norm(result['poses3d'] - official_mm, axis=-1)
    distance_mm = np.linalg.norm(official_mm, axis=-1)
    assert (error_mm <= np.maximum(1.0, 1e-4 * distance_mm)).all()
    assert np.median(error_mm) < 0.3
    np.testing.assert_allclose(result['poses2d'], official['poses2d'], atol=0.1)


def test_definitions_combine_joints_of_a_convention_of_the_checkpoint(checkpoint_folder, tmp_path):
    (tmp_path / 'own.json').write_text(
        '{"skeletons": [{"name": "own_2", "source": "kinect_4", "joints": '
        '{"middle": {"lkwri": 0.5, "rkwri": 0.5}, "left": {"lkwri": 1}}}]}'
    )
    model = metrabs_ros.load_model(
        checkpoint_folder('s_centered'), 'torch', skeletons=tmp_path / 'own.json'
    )
    case = {**CASES[0], 'num_aug': 2, 'average': True}
    wrists = estimate(model, {**case, 'skeleton': 'kinect_4'})
    own = estimate(model, {**case, 'skeleton': 'own_2'})
    left, right = (model.per_skeleton_joint_names['kinect_4'].index(s + 'kwri') for s in 'lr')
    expected_mm = wrists['poses3d'][..., [left, right], :].mean(axis=-2)
    np.testing.assert_allclose(own['poses3d'][..., 0, :], expected_mm, atol=1e-6)
    np.testing.assert_allclose(
        own['poses2d'][..., 1, :], wrists['poses2d'][..., left, :], atol=1e-2
    )


@pytest.mark.skipif(not CAN_CALCULATE_IN_BF16, reason='this processor has no bfloat16')
def test_the_error_in_bf16_is_below_a_hundredth_of_the_distance(model_of):
    official_mm = official_result(0)['poses3d']
    result = estimate(model_of(CASES[0]['variant'], 'openvino', 'bf16'), CASES[0])
    error_mm = np.linalg.norm(result['poses3d'] - official_mm, axis=-1)
    assert np.median(error_mm / np.linalg.norm(official_mm, axis=-1)) < 0.01


def test_a_pose_is_identical_whichever_other_boxes_are_given(metrabs_model):
    others = [[100, 100, 50, 120], STREET_BOXES[1], [300, 200, 80, 160], [10, 10, 700, 500]]
    case = {**CASES[0], 'num_aug': 2}
    before = estimate(metrabs_model, case, STREET_BOXES)
    after = estimate(metrabs_model, case, others)
    assert np.array_equal(before['poses3d'][1], after['poses3d'][1])
    assert np.array_equal(before['poses2d'][1], after['poses2d'][1])


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_the_torch_grad_mode_of_the_caller_does_not_matter(metrabs_model, mode):
    expected = estimate(metrabs_model, CASES[0])
    with mode():
        result = estimate(metrabs_model, CASES[0])
    assert np.array_equal(result['poses3d'], expected['poses3d'])


@pytest.mark.slow
@pytest.mark.parametrize('batch_size', [1, 2, 3, 64])
def test_a_pose_hardly_depends_on_the_batch_size(metrabs_model, batch_size):
    case = {**CASES[0], 'num_aug': 2}
    together = estimate(metrabs_model, case, internal_batch_size=batch_size)
    for i, box in enumerate(STREET_BOXES):
        alone = estimate(metrabs_model, case, [box])
        np.testing.assert_allclose(alone['poses3d'][0], together['poses3d'][i], rtol=2e-5, atol=1)


def test_averaged_poses_are_the_mean_of_the_augmentations(metrabs_model):
    case = {**CASES[0], 'num_aug': 3}
    apart = estimate(metrabs_model, {**case, 'average': False})
    mean = estimate(metrabs_model, case)
    assert apart['poses3d'].shape == (4, 3, 40, 3)
    for name in ('poses3d', 'poses2d'):
        np.testing.assert_allclose(apart[name].mean(axis=1), mean[name], rtol=1e-9)


def test_results_without_boxes_are_empty_arrays(metrabs_model):
    poses = estimate(metrabs_model, CASES[0], [])
    assert poses['poses3d'].shape == (0, 40, 3)
    assert poses['poses2d'].shape == (0, 40, 2)
    case = {**CASES[0], 'num_aug': 3, 'average': False, 'skeleton': 'kinect_4'}
    assert estimate(metrabs_model, case, [])['poses3d'].shape == (0, 3, 4, 3)


@pytest.mark.parametrize('num_aug', [1, 3])
def test_poses_of_several_cameras_match_those_of_single_cameras(
    metrabs_model, street, office, num_aug
):
    cameras = np.stack([K, [[500.0, 0, 300], [0, 510, 200], [0, 0, 1]], K])
    boxes = [STREET_BOXES, [[100, 50, 200, 300]], []]
    options = {'num_aug': num_aug, 'internal_batch_size': 4}
    together = metrabs_model.estimate_poses_batched(
        [street, office, street], boxes, intrinsic_matrix=cameras, **options
    )
    for i, image in enumerate((street, office, street)):
        alone = metrabs_model.estimate_poses(
            image, boxes[i], intrinsic_matrix=cameras[i], **options
        )
        np.testing.assert_allclose(together['poses3d'][i], alone['poses3d'], atol=0.2)


def test_the_batch_is_halved_if_the_gpu_is_out_of_memory(checkpoint_folder, street, caplog):
    model = metrabs_ros.load_model(checkpoint_folder('s_centered'), 'torch')
    network, sizes = model.network, []

    def out_of_memory(crops):
        sizes.append(len(crops))
        if len(crops) > 1:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return network(crops)

    whole = model.estimate_poses(street, STREET_BOXES, intrinsic_matrix=K)
    model.network = out_of_memory
    result = model.estimate_poses(street, STREET_BOXES, intrinsic_matrix=K, internal_batch_size=4)
    np.testing.assert_allclose(result['poses3d'], whole['poses3d'], atol=0.2)
    assert sizes == [4, 2, 1, 1, 1, 1]
    model.estimate_poses(street, STREET_BOXES, intrinsic_matrix=K)
    assert sizes[6:] == [1, 1, 1, 1]
    assert len(caplog.records) == 2


def test_results_without_detections_are_empty_arrays(metrabs_model):
    poses = metrabs_model.detect_poses(np.zeros((200, 300, 3), np.uint8), num_aug=2)
    assert poses['boxes'].shape == (0, 5)
    assert poses['poses3d'].shape == (0, 40, 3)
    assert poses['poses2d'].shape == (0, 40, 2)


def test_poses_of_detected_people_match_those_of_their_boxes(metrabs_model, street):
    result = metrabs_model.detect_poses(
        street, intrinsic_matrix=K, suppress_implausible_poses=False, skeleton='h36m_15'
    )
    assert len(result['boxes']) >= 4
    again = metrabs_model.estimate_poses(
        street, result['boxes'], intrinsic_matrix=K, skeleton='h36m_15'
    )
    np.testing.assert_allclose(result['poses3d'], again['poses3d'], rtol=2e-5, atol=1)


def test_batched_methods_match_the_single_image_methods(metrabs_model, street, player):
    cameras = [K, np.array([[620.0, 0, 274], [0, 620, 171], [0, 0, 1]])]
    boxes = [STREET_BOXES, [[110, 60, 320, 260]]]
    batched = metrabs_model.estimate_poses_batched(
        [street, player], boxes, intrinsic_matrix=cameras, num_aug=2
    )
    for i, image in enumerate((street, player)):
        single = metrabs_model.estimate_poses(
            image, boxes[i], intrinsic_matrix=cameras[i], num_aug=2
        )
        for name, array in single.items():
            np.testing.assert_allclose(batched[name][i], array, rtol=2e-5, atol=1)


def test_default_intrinsics_follow_from_the_field_of_view(metrabs_model, street):
    focal_px = 384 / np.tan(np.radians(30))
    intrinsics = [[focal_px, 0, 384], [0, focal_px, 288], [0, 0, 1]]
    known = metrabs_model.estimate_poses(street, STREET_BOXES, intrinsic_matrix=intrinsics)
    guessed = metrabs_model.estimate_poses(street, STREET_BOXES, default_fov_degrees=60)
    np.testing.assert_allclose(guessed['poses3d'], known['poses3d'], rtol=1e-6)


def test_skeletons_are_read_from_the_checkpoint(metrabs_model):
    assert list(metrabs_model.per_skeleton_joint_names) == [
        '',
        'h36m_15',
        'smpl+head_30',
        'kinect_4',
    ]
    names = metrabs_model.per_skeleton_joint_names['kinect_4']
    assert names == ['kpelv', 'kspin', 'lkwri', 'rkwri']
    assert metrabs_model.per_skeleton_joint_edges['kinect_4'].shape == (0, 2)
    assert metrabs_model.per_skeleton_joint_edges['h36m_15'].shape[1] == 2


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'boxes': [[900, 10, 50, 90]]}, r'boxes contains \[900.0, 10.0, 50.0, 90.0\], outside'),
        (
            {'boxes': [[10, 10, 0, 90]]},
            r'boxes contains \[10.0, 10.0, 0.0, 90.0\], which has no',
        ),
        ({'boxes': [[10, np.nan, 50, 90]]}, r'boxes contains \[10.0, nan, 50.0, 90.0\]'),
        ({'boxes': [[10, 10, np.inf, 90]]}, r'boxes contains \[10.0, 10.0, inf, 90.0\]'),
        ({'boxes': [[10, 10, 50]]}, r'boxes has shape \(1, 3\)'),
        ({'boxes': 'all'}, "boxes is not an array of numbers: 'all'"),
        ({'image': np.zeros((1, 1, 3), np.uint8)}, r'image has shape \(1, 1, 3\)'),
        ({'image': np.zeros((576, 768, 3), np.float32)}, 'type float32'),
        ({'image': np.zeros((576, 768, 4), np.uint8)}, r'image has shape \(576, 768, 4\)'),
        ({'intrinsic_matrix': np.zeros((3, 3))}, r'intrinsic_matrix has focal lengths 0 and 0'),
        ({'intrinsic_matrix': K * np.nan}, 'intrinsic_matrix contains a value that is not finite'),
        (
            {'intrinsic_matrix': [[9, 9, 1], [9, 9, 1], [0, 0, 1]]},
            'intrinsic_matrix cannot be inverted',
        ),
        (
            {'distortion_coeffs': [0.1, 0.2, 0.3]},
            r'distortion_coeffs has 3 values: \[0.1, 0.2',
        ),
        ({'distortion_coeffs': [np.inf] * 5}, 'distortion_coeffs contains a value'),
        ({'extrinsic_matrix': np.zeros((4, 4))}, 'extrinsic_matrix cannot be inverted'),
        ({'world_up_vector': [0, 0, 0]}, 'world_up_vector has no direction'),
        ({'skeleton': 'octopus_8'}, "skeleton is 'octopus_8'; it must be one of '', 'h36m_15'"),
        ({'num_aug': 0}, 'num_aug is 0'),
        ({'antialias_factor': 0}, 'antialias_factor is 0'),
        ({'internal_batch_size': 0}, 'internal_batch_size is 0'),
        ({'default_fov_degrees': 180, 'intrinsic_matrix': None}, 'default_fov_degrees is 180'),
    ],
)
def test_invalid_arguments_are_rejected_with_name_and_value(
    metrabs_model, street, arguments, message
):
    valid = {'image': street, 'boxes': STREET_BOXES, 'intrinsic_matrix': K}
    with pytest.raises(ValueError, match=message):
        metrabs_model.estimate_poses(**{**valid, **arguments})


def test_crops_that_need_too_much_memory_are_rejected_by_api_and_node(
    metrabs_model, street, monkeypatch
):
    side_px = metrabs_model._side_px
    monkeypatch.setattr('metrabs_ros.crop_networks.crops.MAX_SAMPLED_SIDE_PX', 3 * side_px)
    message = f'antialias_factor is 4; .* crops of {side_px} x .* it must be at most 3'
    for call in (
        lambda factor: metrabs_model.estimate_poses(
            street, STREET_BOXES, K, antialias_factor=factor
        ),
        lambda factor: metrabs_model.detect_poses(street, K, antialias_factor=factor),
        # The node checks its parameters with this method.
        lambda factor: metrabs_model.check(Options(antialias_factor=factor)),
    ):
        with pytest.raises(ValueError, match=message):
            call(4)
        call(3)


@pytest.mark.parametrize('distortion_coeffs', [[], [-0.28, 0.09, 0, 0, 0]])
@pytest.mark.parametrize(
    'box', [[-1e150, 0, 1e151, 100], [-1e300, -1e300, 1e301, 1e301], [-1e9, 5, 1e10, 9]]
)
def test_a_box_that_no_ray_intersects_is_named_in_the_error(
    metrabs_model, street, box, distortion_coeffs
):
    with pytest.raises(ValueError, match=r'boxes contains .* no ray'):
        metrabs_model.estimate_poses(
            street, [box], intrinsic_matrix=K, distortion_coeffs=distortion_coeffs
        )


@pytest.mark.parametrize(
    'box', [[-5000, -5000, 9000, 9000], [0, 0, 1, 1], [767, 575, 300, 2], [0, 287, 768, 1]]
)
def test_poses_of_extreme_boxes_are_finite(metrabs_model, street, box):
    poses = metrabs_model.estimate_poses(street, [box], intrinsic_matrix=K, num_aug=3)
    assert np.isfinite(poses['poses3d']).all()
    assert np.isfinite(poses['poses2d']).all()


@pytest.mark.parametrize('shape', [(2, 2, 3), (3, 5, 3), (2, 700, 3)])
def test_poses_in_tiny_images_are_finite(metrabs_model, shape):
    image = np.full(shape, 128, np.uint8)
    box = [0, 0, shape[1], shape[0]]
    poses = metrabs_model.estimate_poses(image, [box], distortion_coeffs=[-0.1, 0, 0, 0])
    assert np.isfinite(poses['poses3d']).all()


@pytest.mark.slow
def test_no_detector_is_loaded_if_boxes_are_given(
    checkpoint_folder, street, tmp_path, monkeypatch
):
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    model = metrabs_ros.load_model(checkpoint_folder('s_centered'), engine='torch')
    assert len(model.estimate_poses(street, STREET_BOXES)['poses3d']) == 4
    assert not (tmp_path / 'blazepose').exists()
