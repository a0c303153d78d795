"""Pictures show people where they are, in colours that stay theirs."""

from __future__ import annotations

import numpy as np
from test_people import people_at

from metrabs_ros import drawing
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17


def test_people_are_drawn_where_they_are_in_their_colour():
    people = people_at((0, 0, 3000))
    image = np.zeros((480, 640, 3), np.uint8)
    drawing.draw_people(image, people)
    rows, columns = np.nonzero(image.any(axis=-1))
    points = people.poses2d_px[0]
    assert rows.max() <= points[:, 1].max() + 3
    assert abs(np.median(columns) - 320) < 100
    red, green, blue = (255 * np.array(drawing.color_of(1))).round()
    assert (image == (blue, green, red)).all(axis=-1).any()


def test_drawing_far_outside_of_the_image_is_harmless():
    image = np.zeros((48, 64, 3), np.uint8)
    drawing.draw_people(image, people_at((9e5, 0, 100), (0, 0, 3000)))


def test_neighbouring_ids_differ_in_colour():
    colors = np.array([drawing.color_of(i) for i in range(8)])
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert apart[~np.eye(8, dtype=bool)].min() > 0.1


def test_description_has_id_distance_and_height():
    assert drawing.describe(people_at((0, 0, 3000)), 0).startswith('1: 3.0 m, 1.')


def test_from_above_the_right_is_right_and_far_is_up():
    path = [np.array([1500.0, 0, 3000 + 20 * i]) for i in range(50)]
    canvas = drawing.draw_from_above({7: path})
    red, green, blue = (round(0.8 * round(255 * value)) for value in drawing.color_of(7))
    near = np.abs(canvas.astype(int) - (blue, green, red)).sum(axis=-1) < 12
    rows, columns = np.nonzero(near)
    assert columns.mean() > 420
    assert rows.mean() < 400


def test_from_above_without_people_is_a_picture_too():
    assert drawing.draw_from_above({}).shape == (800, 800, 3)
    image = np.zeros((48, 64, 3), np.uint8)
    drawing.draw_people(image, People.empty(COCO_17))
    assert not image.any()
