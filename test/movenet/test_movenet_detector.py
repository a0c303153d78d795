"""MoveNet detects people in images of any size, each once, in image pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import MAX_CANDIDATES
from metrabs_ros.loading import load_detector, load_movenet
from metrabs_ros.movenet.decoding import KEYPOINTS, Keypoints
from metrabs_ros.movenet.detector import (
    BOTH_SIDES_PX,
    LARGE_PEOPLE_PX,
    SMALL_PEOPLE_PX,
    MoveNetBoxes,
    MoveNetDetector,
    is_duplicate,
    quarter_turns_to_upright,
    resize_to,
)
from metrabs_ros.movenet.network import STRIDE_PX, Heads
from metrabs_ros.options import Options


@pytest.fixture(scope='module')
def detector():
    """Return the detector with the bundled network."""
    return load_movenet()


@pytest.fixture(scope='module')
def detect_boxes(detector):
    """Return a function that detects boxes, with options as keyword arguments."""

    def detect(image, **options):
        return MoveNetBoxes(detector)(image, Camera.from_fov(55, image.shape), Options(**options))

    return detect


def nearest(people, others):
    """Return, for each person, the index of the one with the nearest keypoints among others."""
    apart_px = np.linalg.norm(people.points_px[:, None] - others.points_px, axis=-1)
    return np.median(apart_px, axis=-1).argmin(axis=1)


def test_the_people_in_photographs_are_detected(detector, detect_boxes, street, office, player):
    assert [len(detect_boxes(image)) for image in (street, office, player)] == [7, 2, 1]
    assert len(detector(street, sides_px=[SMALL_PEOPLE_PX])) == 7
    assert len(detector(office)) == 2


@pytest.mark.parametrize('sides_px', [[LARGE_PEOPLE_PX], [SMALL_PEOPLE_PX], BOTH_SIDES_PX])
def test_a_large_person_is_not_reported_in_parts(detector, player, sides_px):
    assert len(detector(player, sides_px=sides_px)) == 1
    assert len(detector(player, sides_px=sides_px, flip_aug=True)) == 1


def test_a_person_found_by_two_passes_is_reported_once_with_the_higher_score(detector, office):
    small, large = (detector(office, sides_px=[side_px]) for side_px in BOTH_SIDES_PX)
    both = detector(office)
    assert len(small) == len(large) == len(both) == 2
    np.testing.assert_array_equal(
        both.scores, np.sort(np.maximum(small.scores, large.scores))[::-1]
    )
    assert len(detector(office, sides_px=[512, 512, 512])) == 2


def test_a_pass_for_large_people_leaves_small_ones_to_the_other_pass(detector, street):
    # These people fill a tenth to a sixth of the longer side of the image.
    assert len(detector(street, sides_px=[LARGE_PEOPLE_PX])) == 0
    assert len(detector(street, sides_px=[SMALL_PEOPLE_PX])) == 7


@pytest.mark.parametrize('name', ['office', 'player', 'street'])
def test_keypoints_do_not_depend_on_the_input_size(detector, request, name):
    image = request.getfixturevalue(name)
    first, second = (detector(image, 0.3, sides_px=[side_px]) for side_px in (384, 480))
    assert len(first) == len(second) > 0
    second = second.select(nearest(first, second))
    is_clear = (first.point_scores > 0.4) & (second.point_scores > 0.4)
    assert is_clear.sum() >= 5 * len(first)
    apart_px = np.linalg.norm(first.points_px - second.points_px, axis=-1)
    assert np.median(apart_px[is_clear]) < 3


def test_mirrored_images_have_mirrored_people(detector, office):
    people = detector(office)
    mirrored = detector(office[:, ::-1]).mirrored(office.shape[1])
    assert len(mirrored) == len(people)
    mirrored = mirrored.select(nearest(people, mirrored))
    is_clear = (people.point_scores > 0.4) & (mirrored.point_scores > 0.4)
    apart_px = np.linalg.norm(mirrored.points_px - people.points_px, axis=-1)
    assert is_clear.sum() > 10
    assert np.median(apart_px[is_clear]) < 5


class BrightSpot:
    """Network that detects a person with all keypoints in the centre of the bright pixels."""

    def __call__(self, image):
        height, width = image.shape[:2]
        assert height % 32 == width % 32 == 0
        shape = (height // STRIDE_PX, width // STRIDE_PX)
        weights = image[..., 0].astype(float)
        rows, columns = np.mgrid[:height, :width] + 0.5
        position = np.array([(weights * rows).sum(), (weights * columns).sum()])
        position /= STRIDE_PX * weights.sum()
        cell = tuple(position.astype(int))
        heads = Heads(
            np.full(shape, -10, np.float32),
            np.zeros((*shape, 2)),
            np.zeros((*shape, 2)),
            np.zeros((*shape, KEYPOINTS, 2)),
            np.zeros((*shape, KEYPOINTS)),
            np.zeros((*shape, KEYPOINTS, 2)),
        )
        heads.centre_logits[cell] = heads.keypoint_logits[cell] = 5
        heads.box_sizes[cell] = (3, 3)
        heads.box_offsets[cell] = heads.keypoint_cell_offsets[cell] = position - cell
        return heads


@pytest.mark.parametrize('side_px', [300, 500, 512])
@pytest.mark.parametrize('shape', [(700, 1000), (1001, 333), (60, 80), (40, 400)])
@pytest.mark.parametrize('flip_aug', [False, True])
def test_positions_are_those_of_image_pixels(shape, side_px, flip_aug):
    height, width = shape
    image = np.zeros((*shape, 3), np.uint8)
    y, x = height // 3, width // 2
    image[y : y + max(height // 5, 1), x : x + width // 7] = 255
    position_px = [x + (width // 7 - 1) / 2, y + (max(height // 5, 1) - 1) / 2]
    people = MoveNetDetector(BrightSpot())(image, sides_px=[side_px], flip_aug=flip_aug)
    # Resizing rounds the grey levels.
    tolerance_px = 0.1 + 0.02 * max(shape) / side_px
    assert len(people) == 1
    expected_px = np.broadcast_to(position_px, (1, KEYPOINTS, 2))
    np.testing.assert_allclose(people.points_px, expected_px, atol=tolerance_px)
    # Boxes refer to the edges of pixels.
    centre_px = people.boxes_px[0, :2] + people.boxes_px[0, 2:] / 2
    np.testing.assert_allclose(centre_px, np.add(position_px, 0.5), atol=tolerance_px)


@pytest.mark.parametrize('quarter_turns', [0, 1, 2, 3])
def test_people_are_found_in_images_that_are_turned_for_the_detection(
    detector, office, quarter_turns
):
    people = detector(office)
    turned = np.rot90(office, -quarter_turns)
    found = detector(turned, quarter_turns=quarter_turns)
    for i in range(quarter_turns):
        people = people.turned_clockwise(office.shape[i % 2])
    np.testing.assert_allclose(found.points_px, people.points_px, atol=1e-6)
    np.testing.assert_allclose(found.boxes_px, people.boxes_px, atol=1e-6)


@pytest.mark.parametrize('quarter_turns', [0, 1, 2, 3])
def test_the_up_direction_of_the_camera_says_how_the_image_is_turned(
    detector, office, quarter_turns
):
    turned = np.ascontiguousarray(np.rot90(office, -quarter_turns))
    up = [(0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0)][quarter_turns]
    camera = Camera.from_fov(55, turned.shape)
    camera = Camera(camera.intrinsic_matrix, world_up_vector=np.array(up, float))
    assert quarter_turns_to_upright(camera) == quarter_turns
    assert len(MoveNetBoxes(detector)(turned, camera, Options())) == 2


def test_images_of_cameras_that_look_down_are_not_turned(office):
    camera = Camera(Camera.from_fov(55, office.shape).intrinsic_matrix)
    looking_down = Camera(camera.intrinsic_matrix, world_up_vector=np.array([0.1, 0, -1]))
    assert quarter_turns_to_upright(looking_down) == 0


@pytest.mark.parametrize('shape', [(576, 768), (1, 1), (10, 3000), (333, 77), (32, 32)])
@pytest.mark.parametrize('side_px', BOTH_SIDES_PX)
def test_inputs_are_padded_to_multiples_of_32_with_black(shape, side_px):
    resized, factors = resize_to(np.full((*shape, 3), 200, np.uint8), side_px)
    assert resized.dtype == np.uint8
    assert resized.shape[0] % 32 == resized.shape[1] % 32 == 0
    assert max(resized.shape) == side_px
    columns, rows = np.rint(factors * shape[::-1]).astype(int)
    assert np.all(resized[:rows, :columns] == 200)
    assert not resized[rows:].any()
    assert not resized[:, columns:].any()
    assert resized.shape[0] - rows < 32
    assert resized.shape[1] - columns < 32


def test_boxes_obey_the_threshold(detect_boxes, street):
    for threshold in (0.2, 0.5, 0.8):
        boxes = detect_boxes(street, detector_threshold=threshold)
        assert np.all(boxes.scores >= threshold)
        assert np.all(np.diff(boxes.scores) <= 0)
    assert len(detect_boxes(street, detector_threshold=0.7)) == 4
    assert len(detect_boxes(street, detector_threshold=1.0)) == 0


def test_boxes_obey_the_maximum_number(detect_boxes, street):
    every = detect_boxes(street)
    for count in (0, 3, 100):
        boxes = detect_boxes(street, max_detections=count)
        np.testing.assert_array_equal(boxes.boxes_px, every.boxes_px[:count])


def test_boxes_obey_the_iou_threshold():
    people = Keypoints(
        np.array([[0, 0, 100, 100.0], [20, 0, 100, 100]]),
        np.array([0.9, 0.8]),
        np.stack([np.zeros((KEYPOINTS, 2)), np.full((KEYPOINTS, 2), 90.0)]),
        np.ones((2, KEYPOINTS)),
    )
    # The IoU is 2/3.
    assert is_duplicate(people, 0.6).tolist() == [False, True]
    assert is_duplicate(people, 0.7).tolist() == [False, False]


def test_the_iou_threshold_reaches_the_detector(detect_boxes, street):
    counts = [
        len(detect_boxes(street, detector_nms_iou_threshold=iou, detector_threshold=0.1))
        for iou in (0.0, 1.0)
    ]
    assert counts[0] < counts[1]


def test_flip_augmentation_adds_the_detections_of_the_mirror_image(detector, office):
    mirrored = detector(office[:, ::-1])
    both = detector(office, flip_aug=True)
    assert len(both) == 2
    highest = np.maximum(np.sort(detector(office).scores), np.sort(mirrored.scores))
    # The padding of the mirror image is on the other side.
    np.testing.assert_allclose(np.sort(both.scores), highest, atol=0.05)


def test_flip_augmentation_does_not_merge_people_next_to_each_other(model, street):
    assert len(model.detect_poses(street, detector_flip_aug=True)['boxes']) == 7


def test_the_option_for_flip_augmentation_reaches_the_detector(detect_boxes, street):
    plain, both = (
        detect_boxes(street, detector_flip_aug=flip_aug, detector_threshold=0.5).scores
        for flip_aug in (None, True)
    )
    assert len(plain) == 6
    assert not np.array_equal(plain, both)


def test_parts_and_duplicates_are_suppressed_and_different_people_are_not():
    def person(left, top, size, shift=0.0):
        grid = np.stack(np.meshgrid(np.arange(4), np.arange(5)), axis=-1).reshape(-1, 2)
        points = grid[:KEYPOINTS] / 4 * size + (left + shift, top)
        return Keypoints(
            np.array([[left, top, size, 1.25 * size]]),
            np.ones(1),
            points[None],
            np.ones((1, KEYPOINTS)),
        )

    whole = person(0, 0, 100)
    for other, expected in (
        (person(5, 5, 100), True),  # the same person
        (person(0, 0, 60), True),  # a part of it
        (person(80, 0, 100), False),  # a neighbour
        (person(0, 0, 30, shift=70), False),  # a person far behind
    ):
        both = Keypoints.concatenate([whole, other])
        assert is_duplicate(both, 0.7).tolist() == [False, expected]


def test_the_detector_of_other_models_finds_the_same_boxes(detect_boxes, office):
    boxes = load_detector('movenet')(office, Camera.from_fov(90, office.shape), Options())
    np.testing.assert_array_equal(boxes.boxes_px, detect_boxes(office).boxes_px)


SHAPES = [(1, 1), (1, 7), (2, 2), (3, 5), (20, 10_000), (10_000, 20), (2, 10_000), (20, 40_000)]


@pytest.mark.parametrize('shape', SHAPES)
def test_uniform_images_of_extreme_shapes_have_no_people(detector, shape):
    for level in (0, 128, 255):
        image = np.full((*shape, 3), level, np.uint8)
        # This includes the people of the image that is not mirrored.
        assert len(detector(image, flip_aug=True)) == 0


@pytest.mark.parametrize('shape', [shape for shape in SHAPES if min(shape) >= 2])
@pytest.mark.parametrize('level', [0, 255])
def test_uniform_images_of_extreme_shapes_have_no_poses(model, shape, level):
    assert len(model.detect_poses(np.full((*shape, 3), level, np.uint8))['boxes']) == 0


@pytest.mark.parametrize('shape', [(1, 1), (20, 3000), (400, 400)])
def test_people_are_inside_the_image_and_limited_without_a_threshold(detector, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    people = detector(image, 0.0, 1.0, flip_aug=True)
    assert len(people) <= MAX_CANDIDATES
    assert np.all(people.boxes_px >= 0)
    assert np.all(people.boxes_px[:, :2] + people.boxes_px[:, 2:] <= np.array(shape[::-1]) + 1e-6)


@pytest.mark.parametrize(
    'as_other_layout',
    [
        lambda image: np.asfortranarray(image),
        lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        lambda image: np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1),
        lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
        lambda image: cv2.copyMakeBorder(image, 9, 9, 9, 9, cv2.BORDER_CONSTANT)[9:-9, 9:-9],
    ],
)
def test_the_memory_layout_of_images_is_irrelevant(detector, office, as_other_layout):
    people, same = detector(office), detector(as_other_layout(office))
    np.testing.assert_array_equal(same.points_px, people.points_px)
