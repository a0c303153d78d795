"""Large images are scaled with their overlays; stamps of a recording have one type."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import rerun as rr
from test_people import people_at

from metrabs_ros.camera import Camera
from metrabs_ros.view.scene import MAX_SIDE_PX, MIN_DATE_S, Scene, shrink

SHAPES = [(5773, 8660), (8660, 5773), (1080, 1920), (1281, 1000), (16384, 3051), (9000, 1)]
MARK_POSITION = np.array([0.7, 0.4])
"""Centre of a mark, in multiples of the image width and height."""


class Logged:
    """Stores the last logged object of each entity and type."""

    def __init__(self, scene, monkeypatch):
        self.last = {}
        self.static = set()
        monkeypatch.setattr(scene._stream, 'log', self._log)

    def _log(self, path, thing, **options):
        self.last[path.rpartition('/')[2], type(thing)] = thing
        if options.get('static'):
            self.static.add(path)

    def picture(self):
        blob = self.last['image', rr.EncodedImage].blob.as_arrow_array()[0].as_py()
        return cv2.imdecode(np.array(blob, np.uint8), cv2.IMREAD_GRAYSCALE)

    def pinhole(self):
        """Return the matrix, [3, 3], and the resolution."""
        pinhole = self.last['image', rr.Pinhole]
        matrix = pinhole.image_from_camera.as_arrow_array()[0].as_py()
        size = pinhole.resolution.as_arrow_array()[0].as_py()
        return np.array(matrix).reshape(3, 3).T, size

    def box_centre(self):
        return self.last['boxes', rr.Boxes2D].centers.as_arrow_array()[0].as_py()

    def bone_start(self):
        return self.last['bones', rr.LineStrips2D].strips.as_arrow_array()[0].as_py()[0]


def marked_image(height, width, is_reversed):
    """Return a black image with a white square, and its centre in pixels."""
    centre = np.rint(MARK_POSITION * (width, height)).astype(int)
    image = np.zeros((height, width, 3), np.uint8)
    (x, y), half = centre, max(height, width) // 40
    image[y - half : y + half + 1, x - half : x + half + 1] = 255
    return (image[..., ::-1] if is_reversed else image), centre


@pytest.mark.parametrize('is_reversed', [False, True])
@pytest.mark.parametrize(('height', 'width'), [(5773, 8660), (1080, 1920), (480, 640)])
def test_overlays_are_scaled_with_a_large_image(height, width, is_reversed, monkeypatch):
    scene = Scene([''], is_live=True)
    logged = Logged(scene, monkeypatch)
    image, centre = marked_image(height, width, is_reversed)
    camera = Camera([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    people = people_at((0, 0, 3000))
    people = dataclasses.replace(
        people,
        boxes_px=np.array([[*(centre - 10), 20, 20]], float),
        poses2d_px=np.broadcast_to(centre, people.poses2d_px.shape),
        in_view=np.ones_like(people.in_view),
    )
    scene.show_image(1.0, '', image)
    scene.show_camera(1.0, '', camera, image.shape)
    scene.show_people(1.0, '', people)
    picture = logged.picture()
    rows, columns = np.nonzero(picture > 127)
    mark = columns.mean(), rows.mean()
    ray = camera.unproject(np.array(centre, float))
    matrix, resolution = logged.pinhole()
    assert resolution == [*picture.shape[::-1]]
    assert max(picture.shape) == min(max(height, width), MAX_SIDE_PX)
    for shown in ((matrix @ ray)[:2], logged.box_centre(), logged.bone_start()):
        np.testing.assert_allclose(shown, mark, atol=0.6)


def test_an_encoded_image_is_not_scaled(monkeypatch):
    scene = Scene([''], is_live=True)
    logged = Logged(scene, monkeypatch)
    image, _ = marked_image(1080, 1920, False)
    scene.show_image(1.0, '', image)
    scene.show_image(2.0, '', cv2.imencode('.png', image)[1].tobytes())
    scene.show_camera(2.0, '', Camera.from_fov(55, image.shape), image.shape)
    assert logged.picture().shape == (1080, 1920)
    assert logged.pinhole()[1] == [1920, 1080]


@pytest.mark.parametrize('is_live', [False, True])
def test_the_status_is_displayed_at_all_stamps_of_a_recording(is_live, monkeypatch):
    scene = Scene([''], is_live)
    logged = Logged(scene, monkeypatch)
    scene.show_status('**bag**')
    assert logged.static == (set() if is_live else {'status'})


@pytest.mark.parametrize('distance_m', [1, 20])
def test_labels_are_above_people(distance_m, monkeypatch):
    scene = Scene([''])
    logged = Logged(scene, monkeypatch)
    people = people_at((0, 0, 1000 * distance_m))
    scene.show_people(1.0, '', people)
    (label_m,) = logged.last['ids', rr.Points3D].positions.as_arrow_array().to_pylist()
    above_m = people.poses3d_mm[0, :, 1].min() / 1000 - label_m[1]
    # The text is at least as high as 3 % of the distance in the initial view.
    assert 0.03 * distance_m < above_m < 0.3 + 0.06 * distance_m


@pytest.mark.parametrize(('height', 'width'), SHAPES)
def test_images_of_any_shape_are_scaled_down(height, width):
    small = shrink(np.full((height, width, 3), 99, np.uint8))
    assert max(small.shape) == MAX_SIDE_PX
    assert min(small.shape[:2]) == max(
        1, round(MAX_SIDE_PX / max(height, width) * min(height, width))
    )
    assert (small == 99).all()


def test_a_very_large_image_is_displayed_fast():
    noise = np.random.default_rng(0).integers(0, 255, (5773, 8660, 3), np.uint8)
    scene = Scene([''], is_live=True)
    for image in (noise, noise[..., ::-1]):
        start_s = time.process_time()
        scene.show_image(1.0, '', image)
        assert time.process_time() - start_s < 0.4


@pytest.mark.parametrize(
    ('stamps_s', 'kind'),
    [
        ((1.0, MIN_DATE_S + 1, 2.0), 'Duration'),
        ((MIN_DATE_S + 1, 1.0, MIN_DATE_S + 2), 'Timestamp'),
    ],
)
def test_all_stamps_of_a_recording_have_one_type(tmp_path, stamps_s, kind):
    scene = Scene([''])
    scene.save(str(tmp_path / 'scene.rrd'))
    for stamp_s in stamps_s:
        # rerun-sdk encodes the data between two calls of flush as one table.
        scene.plot(stamp_s, {'people/people': 1.0})
        scene.flush()
    del scene
    text = subprocess.run(
        [sys.executable, '-m', 'rerun', 'rrd', 'print', '-vvv', str(tmp_path / 'scene.rrd')],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert types_of_stamps(text) == {kind}


def types_of_stamps(text):
    """Return the types of the columns ``stamp`` in the tables of a printed recording."""
    lines = text.splitlines()
    rows = [[cell.strip(' │') for cell in line.split('┆')] for line in lines]
    return {
        re.match(r'type: (\w+)', below[row.index('stamp')])[1]
        for row, below in zip(rows, rows[2:])
        if 'stamp' in row
    }
