"""The decoded people are those of the published graph of MoveNet, without its limit of six."""

from __future__ import annotations

import hypothesis
import movenet_official
import numpy as np
import pytest
from hypothesis import strategies as st

from metrabs_ros.detectors.boxes import MAX_CANDIDATES
from metrabs_ros.movenet.decoding import KEYPOINTS, Keypoints, decode
from metrabs_ros.movenet.network import STRIDE_PX, Heads, MoveNet
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.weights.bundled import bundled_network

INPUTS = movenet_official.inputs()


@pytest.fixture(scope='module')
def network():
    """Return the bundled network."""
    return MoveNet(bundled_network('movenet_multipose.xml'))


@pytest.mark.parametrize('name', INPUTS)
def test_people_are_those_of_the_published_graph_in_the_same_order(network, name):
    # Scores are not compared: the graph scores a keypoint by the maximum over all keypoints at its
    # cell, and a person by the product of the scores of its centre and its keypoints.
    image = INPUTS[name]
    size_px = np.array(image.shape[:2])
    people = decode(network(image), 0.0).select(slice(6))
    expected = movenet_official.official(name)[people.scores > 0.05]
    people = people.select(people.scores > 0.05)
    assert len(people) >= 2
    assert np.all(np.diff(people.scores) <= 0)
    points_px = expected[:, :51].reshape(-1, KEYPOINTS, 3)[..., :2] * size_px
    # The graph measures positions from the corner of the image, not from the first pixel's centre.
    np.testing.assert_allclose(people.points_px, points_px[..., ::-1] - 0.5, atol=0.1)
    top, left, bottom, right = (expected[:, 51:55] * np.tile(size_px, 2)).T
    boxes_px = np.stack([left, top, right - left, bottom - top], axis=1)
    np.testing.assert_allclose(people.boxes_px, boxes_px, atol=0.1)


def test_more_than_six_people_are_found(network):
    tiles = np.tile(INPUTS['street'], (2, 2, 1))
    one = decode(network(INPUTS['street']), 0.4)
    four = decode(network(tiles), 0.4)
    assert len(four) > 12
    for start in np.ndindex(2, 2):
        corner_px = np.array(start)[::-1] * INPUTS['street'].shape[1::-1]
        centres_px = four.boxes_px[:, :2] + four.boxes_px[:, 2:] / 2 - corner_px
        expected_px = one.boxes_px[:6, :2] + one.boxes_px[:6, 2:] / 2
        apart_px = np.linalg.norm(expected_px[:, None] - centres_px, axis=-1).min(axis=1)
        assert apart_px.max() < 10


def empty_heads(height, width):
    """Return heads without people."""
    shape = (height, width)
    return Heads(
        np.full(shape, -10, np.float32),
        np.zeros((*shape, 2), np.float32),
        np.zeros((*shape, 2), np.float32),
        np.zeros((*shape, KEYPOINTS, 2), np.float32),
        np.full((*shape, KEYPOINTS), -10, np.float32),
        np.zeros((*shape, KEYPOINTS, 2), np.float32),
    )


def test_all_of_200_people_are_decoded():
    heads = empty_heads(128, 128)
    rng = np.random.default_rng(0)
    cells = np.stack(np.mgrid[4:128:8, 4:128:8], axis=-1).reshape(-1, 2)[:200]
    scores = rng.permutation(np.linspace(0.4, 0.9, 200))
    steps = rng.integers(-2, 3, (200, KEYPOINTS, 2))
    for cell, score, step in zip(cells, scores, steps):
        y, x = cell
        heads.centre_logits[y, x] = np.log(score / (1 - score))
        heads.box_sizes[y, x] = (8, 6)
        heads.box_offsets[y, x] = (0.25, 0.75)
        heads.keypoint_offsets[y, x] = step
        rows, columns = (cell + step).T
        heads.keypoint_logits[rows, columns, np.arange(KEYPOINTS)] = 5
        heads.keypoint_cell_offsets[rows, columns] = (0.5, 0.125)
    people = decode(heads, 0.3)
    order = np.argsort(-scores)
    np.testing.assert_allclose(people.scores, scores[order], rtol=1e-6)
    top_left = cells[order] + (0.25 - 4, 0.75 - 3)
    expected_px = STRIDE_PX * np.concatenate([top_left[:, ::-1], np.tile((6, 8), (200, 1))], 1)
    np.testing.assert_allclose(people.boxes_px, expected_px)
    points = (cells[:, None] + steps + (0.5, 0.125))[order]
    np.testing.assert_allclose(people.points_px, STRIDE_PX * points[..., ::-1] - 0.5)


def test_a_map_without_a_maximum_has_a_limited_number_of_people():
    assert len(decode(empty_heads(96, 128), 0.0)) == MAX_CANDIDATES
    assert len(decode(empty_heads(96, 128), 0.3)) == 0


@hypothesis.given(
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 100),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_people_of_any_output_are_finite_and_inside_the_image(seed, scale, rows, columns, minimum):
    shape = (8 * rows, 8 * columns)
    rng = np.random.default_rng(seed)
    heads = Heads(
        *(
            (scale * rng.standard_normal((*shape, *more))).astype(np.float32)
            for more in ((), (2,), (2,), (KEYPOINTS, 2), (KEYPOINTS,), (KEYPOINTS, 2))
        )
    )
    people = decode(heads, minimum)
    assert people.points_px.shape == (len(people), KEYPOINTS, 2)
    assert people.point_scores.shape == (len(people), KEYPOINTS)
    for values in (people.boxes_px, people.scores, people.points_px, people.point_scores):
        assert np.isfinite(values).all()
    limit_px = STRIDE_PX * np.array(shape[::-1])
    assert np.all(people.boxes_px >= 0)
    assert np.all(people.boxes_px[:, :2] + people.boxes_px[:, 2:] <= limit_px + 1e-6)
    assert np.all((minimum <= people.scores + 1e-6) & (people.scores <= 1))
    assert np.all(np.diff(people.scores) <= 0)
    assert np.all((people.point_scores >= 0) & (people.point_scores <= 1))


@st.composite
def people(draw, width_px=640, height_px=480):
    """Return 0 to 5 people in an image."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 5))
    size_px = np.array([width_px, height_px])
    corners_px = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * size_px
    return Keypoints(
        np.concatenate([corners_px[:, 0], corners_px[:, 1] - corners_px[:, 0]], axis=1),
        rng.uniform(0, 1, count),
        rng.uniform(0, 1, (count, KEYPOINTS, 2)) * size_px,
        rng.uniform(0, 1, (count, KEYPOINTS)),
    )


def assert_equal(first, second):
    np.testing.assert_allclose(first.boxes_px, second.boxes_px, atol=1e-6)
    np.testing.assert_allclose(first.points_px, second.points_px, atol=1e-6)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.point_scores, second.point_scores)


factors = st.floats(0.01, 100)


@hypothesis.given(people(), factors, factors)
def test_scaling_is_reversible_and_keeps_the_scores(some, x, y):
    assert_equal(some.scaled((x, y)).scaled((1 / x, 1 / y)), some)
    assert_equal(some.scaled(x), some.scaled((x, x)))


@hypothesis.given(people(), factors, factors)
def test_scaling_keeps_keypoints_and_boxes_aligned_with_the_pixels(some, x, y):
    # The centre of a pixel is half a pixel from its edges, in both images.
    def share(keypoints):
        low_px, size_px = keypoints.boxes_px[:, None, :2], keypoints.boxes_px[:, None, 2:]
        return (keypoints.points_px + 0.5 - low_px) / size_px

    np.testing.assert_allclose(share(some.scaled((x, y))), share(some), rtol=1e-6, atol=1e-6)


@hypothesis.given(people(), st.integers(640, 700))
def test_mirroring_is_reversible_and_exchanges_the_sides(some, width_px):
    mirrored = some.mirrored(width_px)
    assert_equal(mirrored.mirrored(width_px), some)
    left, right = COCO_17.joint_names.index('left_hip'), COCO_17.joint_names.index('right_hip')
    np.testing.assert_allclose(
        mirrored.points_px[:, left, 0], width_px - 1 - some.points_px[:, right, 0]
    )
    np.testing.assert_array_equal(mirrored.points_px[:, left, 1], some.points_px[:, right, 1])
    np.testing.assert_array_equal(mirrored.point_scores[:, left], some.point_scores[:, right])
    assert np.all(mirrored.boxes_px[:, 0] >= -1e-9)
    np.testing.assert_array_equal(mirrored.boxes_px[:, 1:], some.boxes_px[:, 1:])


@hypothesis.given(people(), st.integers(1, 50), st.integers(1, 3))
def test_mirroring_and_scaling_are_independent_of_their_order(some, width, factor):
    width_px = 640 + width
    assert_equal(
        some.mirrored(width_px).scaled(factor), some.scaled(factor).mirrored(factor * width_px)
    )


@hypothesis.given(people())
def test_turning_four_times_is_reversible_and_keeps_the_scores(some):
    turned = some
    for width_px in (480, 640, 480, 640):
        turned = turned.turned_clockwise(width_px)
        low_px, size_px = turned.boxes_px[:, :2], turned.boxes_px[:, 2:]
        assert np.all(low_px >= -1e-9)
        assert np.all((low_px + size_px)[:, 0] <= width_px + 1e-9)
    assert_equal(turned, some)


def test_turning_moves_the_upper_left_pixel_to_the_upper_right():
    points_px = np.zeros((1, KEYPOINTS, 2))
    some = Keypoints(np.array([[0, 0, 2.0, 1]]), np.ones(1), points_px, np.ones((1, KEYPOINTS)))
    turned = some.turned_clockwise(100)
    np.testing.assert_array_equal(turned.points_px[0, 0], [99, 0])
    np.testing.assert_array_equal(turned.boxes_px, [[99, 0, 1, 2]])


@hypothesis.given(people(), people())
def test_select_reverses_concatenate(first, second):
    both = Keypoints.concatenate([first, second])
    assert len(both) == len(first) + len(second)
    assert_equal(both.select(slice(len(first))), first)
    assert_equal(both.select(np.arange(len(both)) >= len(first)), second)
    assert_equal(both.select(np.arange(len(both))[::-1]).select(slice(None, None, -1)), both)


@hypothesis.given(people(), st.integers(1, 500), st.integers(1, 700))
def test_clipped_boxes_are_inside_the_image_and_the_keypoints_are_kept(some, height, width):
    clipped = some.clipped_to((height, width, 3))
    high_px = clipped.boxes_px[:, :2] + clipped.boxes_px[:, 2:]
    assert np.all(clipped.boxes_px[:, 2:] >= 1)
    assert np.all(clipped.boxes_px >= 0)
    assert np.all(high_px <= np.array([width, height]) + 1e-6)
    kept = np.isin(some.scores, clipped.scores)
    np.testing.assert_array_equal(clipped.points_px, some.points_px[kept])
