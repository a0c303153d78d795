"""Detection in photographs, geometric consistency of positions, and validation of arguments."""

from __future__ import annotations

import dataclasses
import fractions
import tracemalloc

import cv2
import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.movenet.detector import MAX_CANDIDATES
from metrabs_ros.options import Options, View
from metrabs_ros.people import implied_statures_mm
from metrabs_ros.pose_estimator import POSE_ARRAYS, Poses
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

FOCAL_PX = 900.0
MIN_MATCHED_SCORE = 0.6
"""Minimum detection score of the compared people."""


def intrinsics(image, focal_px=FOCAL_PX, centre_px=None):
    height, width = image.shape[:2]
    x, y = (width / 2, height / 2) if centre_px is None else centre_px
    return np.array([[focal_px, 0, x], [0, focal_px, y], [0, 0, 1]])


def hips_mm(prediction):
    return prediction['poses3d'][:, 23:25].mean(axis=1)


def match_people(before, after, to_before=lambda poses_px: poses_px):
    """
    Match people by their image poses.

    Returns the indices in `before` and `after`.  All people with a score above
    `MIN_MATCHED_SCORE` must have a match.
    """
    after_poses_px = to_before(after['poses2d'])
    pairs = []
    compared = np.flatnonzero(before['boxes'][:, 4] > MIN_MATCHED_SCORE)
    for i, pose in zip(compared, before['poses2d'][compared]):
        distances_px = np.median(np.linalg.norm(after_poses_px - pose, axis=-1), axis=-1)
        if distances_px.min(initial=np.inf) < 0.2 * np.linalg.norm(np.ptp(pose, axis=0)):
            pairs.append((i, int(np.argmin(distances_px))))
    assert len(pairs) == len(compared) > 0
    return np.array(pairs).T


def test_poses_without_values_that_a_network_does_not_estimate_are_selected_and_concatenated():
    poses3d_mm, poses2d_px = np.random.rand(3, 2, 5, 3), np.random.rand(3, 2, 5, 2)
    poses = Poses(np.random.rand(3, 4), np.array([0.1, 0.2, 0.3]), poses3d_mm, poses2d_px)
    assert poses.joint_confidence.shape == poses.joint_std_mm.shape == (3, 0)
    assert poses.network_poses2d_px is poses2d_px
    selected = poses.select(np.array([2, 0]))
    assert selected.joint_confidence.shape == (2, 0)
    np.testing.assert_array_equal(selected.network_poses2d_px, poses2d_px[[2, 0]])
    whole = Poses.concatenate([poses.select(slice(0)), selected])
    assert whole.joint_std_mm.shape == (2, 0)
    np.testing.assert_array_equal(whole.scores, [0.3, 0.1])


@pytest.fixture(scope='module', params=['street', 'office', 'player'])
def scene(request, model):
    """Return a photograph and the prediction for it."""
    image = request.getfixturevalue(request.param)
    return image, model.detect_poses(image, intrinsic_matrix=intrinsics(image))


def test_people_in_photographs_are_detected(model, street, office, player):
    counts = [
        len(model.detect_poses(image, intrinsic_matrix=intrinsics(image))['boxes'])
        for image in (street, office, player)
    ]
    assert counts == [7, 2, 1]


def test_a_portrait_without_visible_hips_is_detected(model):
    cbook = pytest.importorskip('matplotlib.cbook')
    with cbook.get_sample_data('grace_hopper.jpg') as file:
        portrait = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    portrait = np.ascontiguousarray(portrait[..., ::-1])
    prediction = model.detect_poses(portrait)
    assert len(prediction['boxes']) == 1
    joints = dict(zip(BLAZEPOSE_33.joint_names, prediction['poses2d'][0]))
    height = portrait.shape[0]
    np.testing.assert_allclose(joints['nose'], (264, 241), atol=60)
    assert joints['left_hip'][1] > height
    assert joints['right_hip'][1] > height


def test_black_and_noise_images_have_no_detections(model):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (480, 640, 3), np.uint8)
    for image in (np.zeros_like(noise), noise, cv2.GaussianBlur(noise, (31, 31), 0)):
        prediction = model.detect_poses(image)
        assert prediction['boxes'].shape == (0, 5)
        assert prediction['poses3d'].shape == (0, 33, 3)
        assert prediction['poses2d'].shape == (0, 33, 2)


def test_joints_have_the_correct_sides_and_order(model, player):
    prediction = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    joints = dict(zip(BLAZEPOSE_33.joint_names, prediction['poses2d'][0]))
    # The player faces the camera, leans to the right and kicks with the left foot.
    assert joints['nose'][1] < joints['left_hip'][1] < joints['left_ankle'][1]
    assert joints['right_wrist'][0] < joints['right_shoulder'][0] < joints['left_shoulder'][0]
    assert joints['right_ankle'][0] + 50 < joints['left_ankle'][0]


def test_pedestrians_have_plausible_heights_and_distances(model, street):
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


def test_image_points_of_the_network_are_near_the_projections(scene):
    _, prediction = scene
    apart_px = np.linalg.norm(prediction['network_poses2d'] - prediction['poses2d'], axis=-1)
    size_px = np.linalg.norm(np.ptp(prediction['poses2d'], axis=1), axis=-1)
    assert (np.median(apart_px, axis=1) < 0.02 * size_px).all()
    assert (apart_px > 0).any()


def test_each_joint_has_a_confidence(scene):
    _, prediction = scene
    confidences = prediction['joint_confidences']
    assert confidences.shape == prediction['poses3d'].shape[:2]
    assert (confidences >= 0).all()
    assert (confidences <= 1).all()
    assert np.ptp(confidences) > 0.1


def test_poses_have_the_given_stature(model, player):
    camera = {'intrinsic_matrix': intrinsics(player)}
    default = model.detect_poses(player, **camera)
    for stature in (1200.0, 1950):
        prediction = model.detect_poses(player, stature=stature, **camera)
        implied_mm = implied_statures_mm(prediction['poses3d'], BLAZEPOSE_33)
        np.testing.assert_allclose(implied_mm, stature * model.stature_bias, rtol=1e-6)
        # Scaled about the camera centre, so that the image points are the same.
        np.testing.assert_allclose(prediction['poses2d'], default['poses2d'])


def test_depth_is_proportional_to_the_focal_length(model, scene):
    image, before = scene
    after = model.detect_poses(image, intrinsic_matrix=intrinsics(image, 2 * FOCAL_PX))
    i, j = match_people(before, after)
    np.testing.assert_allclose(hips_mm(after)[j, 2], 2 * hips_mm(before)[i, 2], rtol=0.1)


def test_a_shift_of_the_principal_point_shifts_people_in_the_opposite_direction(model, scene):
    image, before = scene
    shift_px = np.array([60.0, -40.0])
    centre_px = np.array([image.shape[1], image.shape[0]]) / 2 + shift_px
    after = model.detect_poses(image, intrinsic_matrix=intrinsics(image, centre_px=centre_px))
    i, j = match_people(before, after)
    shift_mm = hips_mm(after)[j, :2] - hips_mm(before)[i, :2]
    expected_mm = -shift_px / FOCAL_PX * hips_mm(before)[i, 2:]
    distance_mm = np.linalg.norm(hips_mm(before)[i], axis=-1, keepdims=True)
    assert (np.abs(shift_mm - expected_mm) < 0.03 * distance_mm).all()


def test_mirrored_images_have_mirrored_poses(model, scene):
    image, before = scene
    last = image.shape[1] - 1
    mirrored = np.ascontiguousarray(image[:, ::-1])
    camera = intrinsics(image, centre_px=(last - image.shape[1] / 2, image.shape[0] / 2))
    after = model.detect_poses(mirrored, intrinsic_matrix=camera)

    def to_original(poses_px):
        return ((last, 0) + poses_px * (-1, 1))[:, BLAZEPOSE_33.mirror]

    i, j = match_people(before, after, to_original)
    mirrored_mm = hips_mm(after)[j] * (-1, 1, 1)
    distance_mm = np.linalg.norm(hips_mm(before)[i], axis=-1)
    error_mm = np.linalg.norm(mirrored_mm - hips_mm(before)[i], axis=-1)
    # The nearest person, in the office image, is truncated and turned away.
    tolerance = np.where(distance_mm > 2500, 0.05, 0.1)
    assert (error_mm < tolerance * distance_mm).all()


def test_poses_do_not_depend_on_the_image_resolution(model, scene):
    image, before = scene
    half = cv2.resize(
        image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA
    )
    camera = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]) @ intrinsics(image)
    after = model.detect_poses(half, intrinsic_matrix=camera)
    i, j = match_people(before, after, lambda poses_px: 2 * poses_px + 0.5)
    error_mm = np.linalg.norm(hips_mm(after)[j] - hips_mm(before)[i], axis=-1)
    assert (error_mm < 0.05 * np.linalg.norm(hips_mm(before)[i], axis=-1)).all()


def test_rotated_images_have_rotated_poses(model, player):
    rotated = np.ascontiguousarray(np.rot90(player, k=-1))
    height = player.shape[0]
    before = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    after = model.detect_poses(
        rotated,
        intrinsic_matrix=intrinsics(
            rotated, centre_px=(height - 1 - height / 2, player.shape[1] / 2)
        ),
        world_up_vector=(1, 0, 0),
    )
    x, y, z = hips_mm(before)[before['boxes'][:, 4].argmax()]
    error_mm = np.linalg.norm(hips_mm(after)[after['boxes'][:, 4].argmax()] - (-y, x, z))
    assert error_mm < 0.06 * np.linalg.norm((x, y, z))


@pytest.mark.parametrize('quarter_turns', [1, 2, 3])
def test_people_are_detected_by_a_camera_mounted_on_its_side_or_upside_down(
    model, street, quarter_turns
):
    turned = np.ascontiguousarray(np.rot90(street, quarter_turns))
    up = [(0, -1, 0), (-1, 0, 0), (0, 1, 0), (1, 0, 0)][quarter_turns]
    before = model.detect_poses(street, intrinsic_matrix=intrinsics(street))
    after = model.detect_poses(turned, intrinsic_matrix=intrinsics(turned), world_up_vector=up)
    # Of people at the limit of visibility, the score depends on fractions of a pixel.
    np.testing.assert_allclose(after['boxes'][:, 4], before['boxes'][:, 4], atol=0.1)
    # A turn about the optical axis; the principal point is half a pixel from the centre.
    x, y = after['poses2d'][..., 0], after['poses2d'][..., 1]
    for _ in range(quarter_turns):
        turned, (x, y) = np.rot90(turned, -1), (turned.shape[0] - 1 - y, x)
    apart_px = np.linalg.norm(np.stack([x, y], axis=-1) - before['poses2d'], axis=-1)
    assert np.median(apart_px) < 2


def test_poses_are_in_the_world_frame_with_an_extrinsic_matrix(model, player):
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = (100, -200, 300)
    camera = model.detect_poses(player, intrinsic_matrix=intrinsics(player))
    world = model.detect_poses(
        player, intrinsic_matrix=intrinsics(player), extrinsic_matrix=extrinsics
    )
    np.testing.assert_allclose(world['poses3d'], camera['poses3d'] - (100, -200, 300), atol=1e-6)
    np.testing.assert_allclose(world['poses2d'], camera['poses2d'], atol=1e-6)


def test_estimate_poses_returns_a_pose_for_each_box(model, player):
    boxes = [[80, 60, 300, 260], [90, 70, 290, 250]]
    prediction = model.estimate_poses(
        player, boxes, intrinsic_matrix=intrinsics(player), skeleton='coco_17'
    )
    assert prediction['poses3d'].shape == (2, 17, 3)
    assert set(prediction) == set(POSE_ARRAYS)
    first, second = prediction['poses3d'][:, 11:13].mean(axis=1)
    assert np.linalg.norm(first - second) < 0.05 * np.linalg.norm(first)


def test_poses_do_not_depend_on_other_boxes_or_the_batch_size(model, street):
    boxes = [[236, 155, 62, 150], [497, 180, 25, 75], [540, 245, 50, 105]]
    together = model.estimate_poses(street, boxes, intrinsic_matrix=intrinsics(street))
    for size in (1, 2):
        batched = model.estimate_poses(
            street, boxes, intrinsic_matrix=intrinsics(street), internal_batch_size=size
        )
        np.testing.assert_allclose(batched['poses3d'], together['poses3d'], rtol=1e-3, atol=1)
    alone = model.estimate_poses(street, boxes[1:2], intrinsic_matrix=intrinsics(street))
    np.testing.assert_allclose(alone['poses3d'][0], together['poses3d'][1], rtol=1e-3, atol=1)


def test_the_result_without_boxes_is_empty(model, player):
    prediction = model.estimate_poses(player, [])
    assert prediction['poses3d'].shape == (0, 33, 3)
    assert prediction['poses2d'].shape == (0, 33, 2)


@pytest.mark.slow
def test_batched_methods_return_the_results_of_single_images(model, player, office):
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


def test_max_detections_limits_the_number_of_people(model, street):
    everyone = model.detect_poses(street)
    for limit in (0, 2, 6, 50):
        limited = model.detect_poses(street, max_detections=limit)
        assert len(limited['boxes']) == min(limit, len(everyone['boxes']))
        expected = everyone['boxes'][:limit]
        np.testing.assert_allclose(limited['boxes'], expected, rtol=1e-3, atol=0.5)
    unfiltered = model.detect_poses(street, max_detections=2, suppress_implausible_poses=False)
    assert len(unfiltered['boxes']) == 2


def crowd_of(street, rows, columns, gap_px=30):
    """Return an image of copies of a pedestrian, 88 pixels tall, and the size of its cells."""
    person = street[212:312, 325:377]
    background = np.median(person, axis=(0, 1))
    cell = np.full((100 + gap_px, 52 + gap_px, 3), background, np.uint8)
    start = gap_px // 2
    cell[start : start + 100, start : start + 52] = person
    return np.tile(cell, (rows, columns, 1)), cell.shape[1::-1]


@pytest.mark.slow
def test_200_people_in_one_image_are_found(model, street):
    # They are 28 pixels tall in the detector's usual input, in which some of them are found.
    image, cell_px = crowd_of(street, 10, 20)
    prediction = model.detect_poses(image)
    hips_px = prediction['poses2d'][:, 23:25].mean(axis=1)
    cells = np.floor(hips_px / cell_px).astype(int)
    assert len(np.unique(cells, axis=0)) == len(cells) == 200


def test_joint_edges_refer_to_existing_joints(model):
    for name, joint_names in model.per_skeleton_joint_names.items():
        assert model.per_skeleton_joint_edges[name].max() < len(joint_names)
    assert set(model.per_skeleton_joint_names) == set(DEFINITIONS)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'skeleton': 'octopus_8'}, "'octopus_8'; it must be one of 'blazepose_33', 'coco_17'"),
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
def test_invalid_arguments_are_rejected_by_name(model, player, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.detect_poses(player, **arguments)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((480, 640), np.uint8), r'image has shape \(480, 640\)'),
        (np.zeros((480, 640, 4), np.uint8), r'image has shape \(480, 640, 4\)'),
        (np.zeros((480, 640, 3), np.float32), 'type float32'),
        (np.zeros((0, 640, 3), np.uint8), r'image has shape \(0, 640, 3\)'),
        (np.zeros((1, 1, 3), np.uint8), r'image has shape \(1, 1, 3\)'),
        ([[[1, 2, 3]]], 'type list'),
    ],
)
def test_invalid_images_are_rejected(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.detect_poses(image)


@pytest.mark.parametrize(
    ('box', 'message'),
    [
        ([0, 0, 0, 100], 'no area'),
        ([np.nan, 0, 50, 100], 'no area'),
        ([1000, 0, 50, 100], 'outside'),
        ([-100, 0, 50, 100], 'outside'),
    ],
)
def test_invalid_boxes_are_rejected(model, player, box, message):
    with pytest.raises(ValueError, match=message):
        model.estimate_poses(player, [box])


@pytest.mark.parametrize('shape', [(2, 2, 3), (2, 900, 3), (900, 2, 3)])
def test_images_with_extreme_aspect_ratios_are_processed(model, shape):
    assert len(model.detect_poses(np.full(shape, 127, np.uint8))['boxes']) == 0


K = [[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]
BOX = [[20, 20, 60, 80]]
NOISE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
read_only = NOISE.copy()
read_only.flags.writeable = False

IMAGES = {
    'wide': np.full((20, 10_000, 3), 90, np.uint8),
    'tall': np.full((10_000, 20, 3), 90, np.uint8),
    'wider than the limit of OpenCV': np.full((4, 70_000, 3), 90, np.uint8),
    'taller than the limit of OpenCV': np.full((70_000, 4, 3), 90, np.uint8),
    'mirrored': NOISE[::-1, ::-1],
    'blue first': NOISE[..., ::-1],
    'transposed': NOISE.transpose(1, 0, 2),
    'every second pixel': NOISE[::2, ::3],
    'not contiguous': np.zeros((50, 50, 6), np.uint8)[:, :, ::2],
    'read only': read_only,
    'one pixel repeated': np.broadcast_to(np.uint8(7), (120, 160, 3)),
    'Fortran order': np.asfortranarray(NOISE),
    'masked': np.ma.masked_array(NOISE, NOISE > 100),
}
INVALID_IMAGES = {
    'none': None,
    'text': 'image',
    'number': np.uint8(3),
    'empty': np.zeros((0, 0, 3), np.uint8),
    'no width': np.zeros((5, 0, 3), np.uint8),
    'signed': NOISE.astype(np.int8),
    'sixteen bits': NOISE.astype(np.uint16),
    'booleans': NOISE > 5,
    'objects': NOISE.astype(object),
    'several': NOISE[None],
    'a view of memory': memoryview(NOISE),
    'records': np.zeros((9, 9), [('a', 'u1', 3)]),
}


@pytest.fixture(params=['model', 'metrabs_model', 'nlf_model'])
def any_model(request):
    """Return a model of each kind."""
    return request.getfixturevalue(request.param)


def error_of(method, *arguments, **options):
    """Return the message of the ValueError that a call raises."""
    with pytest.raises(ValueError, match=r'\w+ \w+') as caught:
        method(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1500
    return message


@pytest.mark.slow
@pytest.mark.parametrize('name', IMAGES)
def test_images_of_any_memory_layout_and_aspect_ratio_are_processed(any_model, name):
    image = IMAGES[name]
    prediction = any_model.detect_poses(image, max_detections=2)
    prediction |= any_model.estimate_poses(image, [[0, 0, *image.shape[1::-1]]])
    assert all(np.isfinite(array).all() for array in prediction.values())


@pytest.mark.parametrize('name', INVALID_IMAGES)
def test_invalid_images_are_rejected_with_their_shape(any_model, name):
    image = INVALID_IMAGES[name]
    assert 'image has shape' in error_of(any_model.detect_poses, image)
    assert 'image has shape' in error_of(any_model.estimate_poses, image, BOX)


@pytest.mark.parametrize(
    'box',
    [
        *([[np.nan] * 4], [[0, 0, np.inf, 10]], [[10, 10, 1e-300, 0.5]], [[10, 10, -5, 5]]),
        *([1, 2, 3, 4], [[[1, 2, 3, 4]]], [[1, 2, 3]], 'x', [[None] * 4], [[1, 2, 3, 4], [1]]),
        *(None, 5, [[1j, 0, 5, 5]], [[10**400, 0, 5, 5]], {1}, [[159.5, 130, 10, 10]]),
        np.ones((100_000, 3)),
    ],
    ids=lambda box: repr(box)[:30],
)
def test_invalid_boxes_are_rejected_by_name(any_model, box):
    assert 'boxes' in error_of(any_model.estimate_poses, NOISE, box, K)


@pytest.mark.parametrize('coeffs', [[], [-0.3, 0.1, 0, 0, 0], [10] * 5, [1e12] * 8])
@pytest.mark.parametrize('size_px', [1e4, 1e6, 1e9, 1e30, 1e300])
def test_huge_boxes_have_finite_poses_or_are_rejected(any_model, coeffs, size_px):
    box = [-size_px, -size_px, 2 * size_px, 2 * size_px]
    message = ''
    try:
        poses = any_model.estimate_poses(NOISE, [box], K, coeffs)
    except ValueError as error:
        message, poses = str(error), {}
    assert message.startswith('boxes contains ') or poses
    assert all(np.isfinite(array).all() for array in poses.values())


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('default_fov_degrees', ['x', None, [55], True, np.nan, np.inf, 10**5000, 55j]),
        ('num_aug', [0, -1, 1.5, 'x', None, True, 10**9, np.nan]),
        ('average_aug', [None, 'no', [], np.zeros(3)]),
        ('stature', [0, -1700, 1.7, 'x', True, 10**400, np.nan, [1700]]),
        ('antialias_factor', [0, -1, 1.5, 'x', None, True, 10**6, 10**30]),
        ('internal_batch_size', [0, -1, 1.5, 'x', None, True, np.nan, [1]]),
        ('skeleton', ['nope', None, 5, [], {}, b'x', 'x' * 100_000, '\x1b', ('a',)]),
        ('intrinsic_matrix', ['x', 5, [], [[1, 2], [3]], np.zeros((999, 999)), np.eye(3) * 1e300]),
        ('distortion_coeffs', ['x', [np.nan] * 5, [1e300] * 5, [0] * 14, np.zeros(99_999)]),
        ('extrinsic_matrix', ['x', 5, [], np.eye(4) * np.nan, np.eye(4) * 1e300]),
        ('world_up_vector', ['x', None, 5, [0, 0, 0], [np.nan] * 3]),
    ],
)
def test_arguments_out_of_range_are_rejected_by_name(any_model, name, values):
    for value in values:
        options = {'intrinsic_matrix': None if name == 'default_fov_degrees' else K, name: value}
        assert name in error_of(any_model.estimate_poses, NOISE, BOX, **options)
        assert name in error_of(any_model.detect_poses, NOISE, **options)


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('detector_threshold', [np.nan, -1, 2, 'x', [0.5], np.inf, 0.5j, 10**400]),
        ('detector_nms_iou_threshold', [np.nan, -1, 2, 'x', [0.5], None]),
        ('max_detections', [-2, 1.5, 'x', None, True, np.nan, -(10**30)]),
        ('suppress_implausible_poses', [None, 'False', 3]),
        ('detector_flip_aug', ['False', 3]),
    ],
)
def test_detection_arguments_out_of_range_are_rejected_by_name(any_model, name, values):
    for value in values:
        assert name in error_of(any_model.detect_poses, NOISE, K, **{name: value})


def test_options_of_numpy_types_are_those_of_python():
    options = Options(
        *(np.uint8(7), np.uint8(16), np.int8(3)),
        max_detections=np.int8(-1),
        detector_threshold=np.float32(0.5),
        detector_flip_aug=np.True_,
        stature=fractions.Fraction(1700),
    )
    assert 64 * options.antialias_factor == 1024
    numbers = (int, int, int, float, float, int, bool, bool, float, bool, str)
    assert tuple(map(type, dataclasses.astuple(options))) == numbers


@pytest.mark.parametrize('images', [None, 5, NOISE, 'images'])
def test_batches_that_are_not_sequences_of_images_are_rejected(any_model, images):
    assert 'image' in error_of(any_model.detect_poses_batched, images)


@pytest.mark.parametrize('intrinsics', [5, 'K', [], [K, K, K], [K, 5]])
def test_batched_arguments_with_a_wrong_number_of_entries_are_rejected(any_model, intrinsics):
    boxes = [BOX, BOX]
    method = any_model.estimate_poses_batched
    error = error_of(method, [NOISE, NOISE], boxes, intrinsic_matrix=intrinsics)
    assert 'intrinsic_matrix' in error
    assert 'boxes' in error_of(method, [NOISE, NOISE], [BOX])
    assert 'boxes' in error_of(method, [NOISE, NOISE], None)


def test_batches_can_be_generators_and_mix_calibrated_and_uncalibrated_images(model):
    prediction = model.estimate_poses_batched(
        (image for image in (NOISE, NOISE)), [BOX, BOX], intrinsic_matrix=[K, None]
    )
    assert [len(poses) for poses in prediction['poses3d']] == [1, 1]


def test_memory_is_bounded_with_a_very_low_detector_threshold(model, street):
    view = View(street, Camera.from_fov(55, street.shape))
    tracemalloc.start()
    try:
        found = model.detect(view, Options(detector_threshold=1e-9))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < len(found) <= MAX_CANDIDATES
    assert peak_bytes < 500e6
