"""People are drawn at their positions, in the colours of their ids."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from test_people import people_at

from metrabs_ros import drawing
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17


def test_people_are_drawn_at_their_image_points_in_their_colour():
    people = people_at((0, 0, 3000))
    image = np.zeros((480, 640, 3), np.uint8)
    drawing.draw_people(image, people)
    rows, columns = np.nonzero(image.any(axis=-1))
    points = people.poses2d_px[0]
    assert rows.max() <= points[:, 1].max() + 3
    assert abs(np.median(columns) - 320) < 100
    red, green, blue = (255 * np.array(drawing.color_of(1))).round()
    assert (image == (blue, green, red)).all(axis=-1).any()


def test_people_far_outside_the_image_are_accepted():
    image = np.zeros((48, 64, 3), np.uint8)
    drawing.draw_people(image, people_at((9e5, 0, 100), (0, 0, 3000)))


def test_consecutive_ids_have_different_colours():
    colors = np.array([drawing.color_of(i) for i in range(8)])
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert apart[~np.eye(8, dtype=bool)].min() > 0.1


def test_the_label_contains_id_distance_and_height():
    assert drawing.format_label(people_at((0, 0, 3000)), 0).startswith('1: 3.0 m, 1.')


def test_labels_cover_neither_people_nor_other_labels():
    boxes = np.array([[100.0, 100, 60, 200], [170, 110, 60, 190], [240, 90, 60, 210]])
    sizes = [(60, 16)] * 3
    corners = drawing.place_labels(sizes, boxes, (480, 640), [0, 1, 2])
    rectangles = [*((left, top, 60, 16) for left, top in corners), *map(tuple, boxes)]
    for i, (left, top, width, height) in enumerate(rectangles):
        for other_left, other_top, other_width, other_height in rectangles[:i]:
            apart_x = left >= other_left + other_width or other_left >= left + width
            apart_y = top >= other_top + other_height or other_top >= top + height
            assert apart_x or apart_y


@given(
    hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e9, 1e9)),
    st.integers(1, 700),
    st.integers(1, 700),
)
def test_labels_are_inside_the_image(boxes, height, width):
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    for left, top in drawing.place_labels([(60, 16)] * 3, boxes, (height, width), [2, 0, 1]):
        assert 0 <= left <= max(width - 60, 0)
        assert 0 <= top <= max(height - 16, 0)


def test_in_the_top_view_right_is_right_and_far_is_up():
    path = [np.array([1500.0, 0, 3000 + 20 * i]) for i in range(50)]
    canvas = drawing.draw_top_view({7: path})
    red, green, blue = (round(0.8 * round(255 * value)) for value in drawing.color_of(7))
    near = np.abs(canvas.astype(int) - (blue, green, red)).sum(axis=-1) < 12
    rows, columns = np.nonzero(near)
    assert columns.mean() > 420
    assert rows.mean() < 400


def test_empty_people_are_drawn_without_error():
    assert drawing.draw_top_view({}).shape == (800, 800, 3)
    image = np.zeros((48, 64, 3), np.uint8)
    drawing.draw_people(image, People.empty(COCO_17))
    assert not image.any()
