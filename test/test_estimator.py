"""On real photographs, people are found, and their places follow the camera's geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metrabs_ros.skeleton import BLAZEPOSE_33

FOCAL_PX = 900.0
SURE = 0.6
"""Below that is the man in the office who turns away, cut off: his pose is half guessed."""


def intrinsics(image, focal_px=FOCAL_PX, centre_px=None):
    height, width = image.shape[:2]
    x, y = (width / 2, height / 2) if centre_px is None else centre_px
    return np.array([[focal_px, 0, x], [0, focal_px, y], [0, 0, 1]])


def hips_mm(prediction):
    return prediction['poses3d'][:, 23:25].mean(axis=1)


def matched(before, after, to_before=lambda poses_px: poses_px):
    """Return indices of the same people by their image poses; all the sure ones must be found."""
    there = to_before(after['poses2d'])
    pairs = []
    sure = np.flatnonzero(before['boxes'][:, 4] > SURE)
    for i, pose in zip(sure, before['poses2d'][sure]):
        apart_px = np.median(np.linalg.norm(there - pose, axis=-1), axis=-1)
        if apart_px.min(initial=np.inf) < 0.2 * np.linalg.norm(np.ptp(pose, axis=0)):
            pairs.append((i, int(np.argmin(apart_px))))
    assert len(pairs) == len(sure) > 0
    return np.array(pairs).T


@pytest.fixture(scope='module', params=['street', 'office', 'player'])
def scene(request, model):
    """Return a photograph and the people in it."""
    image = request.getfixturevalue(request.param)
    return image, model.detect_poses(image, intrinsic_matrix=intrinsics(image))


def test_people_are_found(model, street, office, player):
    counts = [
        len(model.detect_poses(image, intrinsic_matrix=intrinsics(image))['boxes'])
        for image in (street, office, player)
    ]
    assert counts[0] >= 5
    assert counts[1] >= 2
    assert counts[2] == 1


def test_nobody_is_found_where_nobody_is(model):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (480, 640, 3), np.uint8)
    for image in (np.zeros_like(noise), noise, cv2.GaussianBlur(noise, (31, 31), 0)):
        prediction = model.detect_poses(image)
        assert prediction['boxes'].shape == (0, 5)
        assert prediction['poses3d'].shape == (0, 33, 3)
        assert prediction['poses2d'].shape == (0, 33, 2)


def test_people_stand_upright_with_left_and_right_in_place(model, player):
    prediction = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    joints = dict(zip(BLAZEPOSE_33.joint_names, prediction['poses2d'][0]))
    # He faces the camera, leans to his right and kicks with his left foot.
    assert joints['nose'][1] < joints['left_hip'][1] < joints['left_ankle'][1]
    assert joints['right_wrist'][0] < joints['right_shoulder'][0] < joints['left_shoulder'][0]
    assert joints['right_ankle'][0] + 50 < joints['left_ankle'][0]


def test_walkers_are_of_human_size_and_some_twenty_metres_away(model, street):
    prediction = model.detect_poses(street, intrinsic_matrix=intrinsics(street))
    height_mm = np.ptp(prediction['poses3d'][..., 1], axis=1)
    assert ((height_mm > 1200) & (height_mm < 2000)).all()
    distance_mm = np.linalg.norm(hips_mm(prediction), axis=-1)
    assert ((distance_mm > 10_000) & (distance_mm < 35_000)).all()


def test_poses2d_are_the_projection_of_poses3d(scene):
    image, prediction = scene
    projected = prediction['poses3d'] @ intrinsics(image).T
    np.testing.assert_allclose(
        projected[..., :2] / projected[..., 2:], prediction['poses2d'], atol=1e-6
    )


def test_twice_the_focal_length_is_twice_the_depth(model, scene):
    image, before = scene
    after = model.detect_poses(image, intrinsic_matrix=intrinsics(image, 2 * FOCAL_PX))
    i, j = matched(before, after)
    np.testing.assert_allclose(hips_mm(after)[j, 2], 2 * hips_mm(before)[i, 2], rtol=0.1)


def test_people_move_against_the_principal_point(model, scene):
    image, before = scene
    shift_px = np.array([60.0, -40.0])
    centre_px = np.array([image.shape[1], image.shape[0]]) / 2 + shift_px
    after = model.detect_poses(image, intrinsic_matrix=intrinsics(image, centre_px=centre_px))
    i, j = matched(before, after)
    moved_mm = hips_mm(after)[j, :2] - hips_mm(before)[i, :2]
    expected_mm = -shift_px / FOCAL_PX * hips_mm(before)[i, 2:]
    distance_mm = np.linalg.norm(hips_mm(before)[i], axis=-1, keepdims=True)
    assert (np.abs(moved_mm - expected_mm) < 0.03 * distance_mm).all()


def test_the_mirrored_picture_gives_the_mirrored_people(model, scene):
    image, before = scene
    last = image.shape[1] - 1
    mirrored = np.ascontiguousarray(image[:, ::-1])
    camera = intrinsics(image, centre_px=(last - image.shape[1] / 2, image.shape[0] / 2))
    after = model.detect_poses(mirrored, intrinsic_matrix=camera)

    def back(poses_px):
        return ((last, 0) + poses_px * (-1, 1))[:, BLAZEPOSE_33.mirror]

    i, j = matched(before, after, back)
    mirrored_mm = hips_mm(after)[j] * (-1, 1, 1)
    distance_mm = np.linalg.norm(hips_mm(before)[i], axis=-1)
    apart_mm = np.linalg.norm(mirrored_mm - hips_mm(before)[i], axis=-1)
    assert (apart_mm < 0.05 * distance_mm).all()


def test_half_the_picture_and_intrinsics_change_nothing(model, scene):
    image, before = scene
    half = cv2.resize(
        image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA
    )
    camera = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]) @ intrinsics(image)
    after = model.detect_poses(half, intrinsic_matrix=camera)
    i, j = matched(before, after, lambda poses_px: 2 * poses_px + 0.5)
    apart_mm = np.linalg.norm(hips_mm(after)[j] - hips_mm(before)[i], axis=-1)
    assert (apart_mm < 0.05 * np.linalg.norm(hips_mm(before)[i], axis=-1)).all()


def test_a_rolled_camera_gives_the_rolled_people(model, player):
    turned = np.ascontiguousarray(np.rot90(player, k=-1))
    height = player.shape[0]
    before = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    after = model.detect_poses(
        turned,
        intrinsic_matrix=intrinsics(
            turned, centre_px=(height - 1 - height / 2, player.shape[1] / 2)
        ),
        world_up_vector=(1, 0, 0),
    )
    x, y, z = hips_mm(before)[before['boxes'][:, 4].argmax()]
    apart_mm = np.linalg.norm(hips_mm(after)[after['boxes'][:, 4].argmax()] - (-y, x, z))
    assert apart_mm < 0.06 * np.linalg.norm((x, y, z))


def test_extrinsics_give_the_world_frame(model, player):
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = (100, -200, 300)
    camera = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    world = model.detect_poses(
        player, intrinsic_matrix=intrinsics(player), extrinsic_matrix=extrinsics
    )
    np.testing.assert_allclose(world['poses3d'], camera['poses3d'] - (100, -200, 300), atol=1e-6)
    np.testing.assert_allclose(world['poses2d'], camera['poses2d'], atol=1e-6)


def test_estimate_poses_gives_a_pose_for_each_box(model, player):
    boxes = [[80, 60, 300, 260], [90, 70, 290, 250]]
    prediction = model.estimate_poses(
        player, boxes, intrinsic_matrix=intrinsics(player), skeleton='coco_17'
    )
    assert prediction['poses3d'].shape == (2, 17, 3)
    assert set(prediction) == {'poses3d', 'poses2d'}
    first, second = prediction['poses3d'][:, 11:13].mean(axis=1)
    assert np.linalg.norm(first - second) < 0.05 * np.linalg.norm(first)


def test_a_persons_pose_does_not_depend_on_the_other_boxes_or_the_batch(model, street):
    boxes = [[236, 155, 62, 150], [497, 180, 25, 75], [540, 245, 50, 105]]
    together = model.estimate_poses(street, boxes, intrinsic_matrix=intrinsics(street))
    for size in (1, 2):
        batched = model.estimate_poses(
            street, boxes, intrinsic_matrix=intrinsics(street), internal_batch_size=size
        )
        np.testing.assert_allclose(batched['poses3d'], together['poses3d'], rtol=1e-3, atol=1)
    alone = model.estimate_poses(street, boxes[1:2], intrinsic_matrix=intrinsics(street))
    np.testing.assert_allclose(alone['poses3d'][0], together['poses3d'][1], rtol=1e-3, atol=1)


def test_no_boxes_give_empty_arrays(model, player):
    prediction = model.estimate_poses(player, [])
    assert prediction['poses3d'].shape == (0, 33, 3)
    assert prediction['poses2d'].shape == (0, 33, 2)


def test_batched_forms_give_what_the_single_ones_give(model, player, office):
    cameras = np.stack([intrinsics(player), intrinsics(office)])
    single = [
        model.detect_poses(image, intrinsic_matrix=camera)
        for image, camera in zip((player, office), cameras)
    ]
    batched = model.detect_poses_batched([player, office], intrinsic_matrix=cameras)
    for i, prediction in enumerate(single):
        for name, array in prediction.items():
            np.testing.assert_allclose(batched[name][i], array, rtol=1e-3, atol=1)
    boxes = [prediction['boxes'][:, :4] for prediction in single]
    estimated = model.estimate_poses_batched([player, office], boxes, intrinsic_matrix=cameras)
    assert [len(poses) for poses in estimated['poses3d']] == [len(box) for box in boxes]


def test_max_detections_keeps_so_many_at_most(model, street):
    assert len(model.detect_poses(street, max_detections=2)['boxes']) <= 2
    assert len(model.detect_poses(street, max_detections=0)['boxes']) == 0


def test_joint_names_and_edges_belong_together(model):
    for name, joint_names in model.per_skeleton_joint_names.items():
        assert model.per_skeleton_joint_edges[name].max() < len(joint_names)
    assert set(model.per_skeleton_joint_names) == {'blazepose_33', 'coco_17'}


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ({'skeleton': 'octopus_8'}, "'octopus_8' is none of 'blazepose_33', 'coco_17'"),
        ({'intrinsic_matrix': np.zeros((3, 3))}, 'focal lengths'),
        ({'distortion_coeffs': [1, 2, 3]}, 'distortion_coeffs has 3 values'),
        ({'default_fov_degrees': 0}, 'default_fov_degrees is 0'),
        ({'num_aug': 5}, 'num_aug is 5'),
        ({'num_aug': 0}, 'num_aug is 0'),
        ({'antialias_factor': 1.5}, 'antialias_factor is 1.5'),
        ({'internal_batch_size': -1}, 'internal_batch_size is -1'),
        ({'max_detections': -2}, 'max_detections is -2'),
        ({'detector_threshold': np.nan}, 'detector_threshold is nan'),
        ({'extrinsic_matrix': np.eye(3)}, 'extrinsic_matrix has shape'),
        ({'intrinsic_matrix': 'K'}, 'intrinsic_matrix is not an array of numbers'),
    ],
)
def test_impossible_arguments_are_refused_by_name(model, player, arguments, says):
    with pytest.raises(ValueError, match=says):
        model.detect_poses(player, **arguments)


@pytest.mark.parametrize(
    ('image', 'says'),
    [
        (np.zeros((480, 640), np.uint8), r'image has shape \(480, 640\)'),
        (np.zeros((480, 640, 4), np.uint8), r'image has shape \(480, 640, 4\)'),
        (np.zeros((480, 640, 3), np.float32), 'type float32'),
        (np.zeros((0, 640, 3), np.uint8), r'image has shape \(0, 640, 3\)'),
        (np.zeros((1, 1, 3), np.uint8), r'image has shape \(1, 1, 3\)'),
        ([[[1, 2, 3]]], 'type list'),
    ],
)
def test_what_is_no_image_is_refused(model, image, says):
    with pytest.raises(ValueError, match=says):
        model.detect_poses(image)


@pytest.mark.parametrize(
    ('box', 'says'),
    [
        ([0, 0, 0, 100], 'no area'),
        ([np.nan, 0, 50, 100], 'no area'),
        ([1000, 0, 50, 100], 'outside'),
        ([-100, 0, 50, 100], 'outside'),
    ],
)
def test_impossible_boxes_are_refused(model, player, box, says):
    with pytest.raises(ValueError, match=says):
        model.estimate_poses(player, [box])


@pytest.mark.parametrize('shape', [(2, 2, 3), (2, 900, 3), (900, 2, 3)])
def test_images_of_odd_shapes_hold_nobody(model, shape):
    assert len(model.detect_poses(np.full(shape, 127, np.uint8))['boxes']) == 0
