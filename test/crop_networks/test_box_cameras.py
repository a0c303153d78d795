"""Virtual cameras point at box centres, upright, with the boxes filling the crops."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from strategies import cameras

from metrabs_ros.camera import Camera, distort, undistort, undistort_by_fixed_point
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes

coordinates = st.tuples(st.floats(100, 1700), st.floats(100, 900))
sizes = st.tuples(st.floats(20, 200), st.floats(20, 300))


@given(camera=cameras(), corner=coordinates, size=sizes)
def test_the_box_is_centred_in_the_crop_and_fills_it(camera, corner, size):
    boxes = np.array([[*corner, *size]])
    virtual = virtual_cameras_for_boxes(boxes, camera, 256)
    assert virtual.usable.all()
    offsets = np.array([[0.5, 0.5], [0.5, 0], [0.5, 1], [0, 0.5], [1, 0.5]])
    rays = camera.unproject(boxes[:, :2] + offsets * boxes[:, 2:])
    seen = rays @ virtual.rotation[0].T @ virtual.intrinsic_matrix[0].T
    centre, top, bottom, left, right = seen[:, :2] / seen[:, 2:]
    # After five fixed-point steps, the error for strong lenses is up to a quarter of a pixel,
    # which is magnified in the crops of small boxes.
    np.testing.assert_allclose(centre, (128, 128), atol=1 + 0.25 * 256 / max(size))
    sides = np.linalg.norm(top - bottom), np.linalg.norm(left - right)
    np.testing.assert_allclose(max(sides), 256, rtol=0.02)


@given(camera=cameras(), corner=coordinates, size=sizes)
def test_the_up_direction_of_the_world_is_up_in_the_crop(camera, corner, size):
    virtual = virtual_cameras_for_boxes(np.array([[*corner, *size]]), camera, 256)
    up = virtual.rotation[0] @ camera.up
    np.testing.assert_allclose(up[0], 0, atol=1e-9)
    assert up[1] < 0


def test_crop_intrinsics_match_the_official_implementation():
    golden = np.load(DATA / 'golden' / 'intermediates.npz')
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    boxes = np.array(
        [[236, 155, 62, 150], [470, 190, 70, 150], [640, 240, 75, 160], [700, 60, 60, 130.0]]
    )
    virtual = virtual_cameras_for_boxes(boxes, camera, 256)
    np.testing.assert_allclose(virtual.intrinsic_matrix, golden['00/crop_intrinsics'], rtol=1e-5)


@given(st.tuples(st.floats(-0.4, 0.4), st.floats(-0.3, 0.3)))
def test_fixed_point_steps_are_accurate_for_a_moderate_lens(point):
    coeffs = np.array([-0.1, 0.05, 0.001, -0.001, 0.01])
    distorted = distort(np.array(point), coeffs)
    approximate = undistort_by_fixed_point(distorted, coeffs)
    np.testing.assert_allclose(approximate, undistort(distorted, coeffs), atol=1e-4)


@pytest.mark.parametrize(
    ('focal_px', 'lens', 'fisheye', 'box'),
    [
        # The fixed-point steps diverge for a side.
        (500, [-0.28, 0.09, 0.0012, -0.0007, -0.011], False, (800, 412, 305, 229)),
        (600, [-0.3, 0, 0, 0], False, (28, 33, 155, 326)),
        # A side is outside the image circle.
        (285, [-0.05, -0.02, 0, 0], True, (552, 155, 306, 317)),
    ],
)
def test_boxes_that_exceed_the_image_of_a_lens_fill_their_crops(focal_px, lens, fisheye, box):
    intrinsics = np.array([[focal_px, 0, 424], [0, focal_px, 400], [0, 0, 1]])
    virtual = virtual_cameras_for_boxes(
        np.array([box]), Camera(intrinsics, lens, fisheye=fisheye), 256
    )
    image_pixels_per_crop = 256 / virtual.scale[0]
    assert max(box[2:]) / 4 < image_pixels_per_crop < 4 * max(box[2:])


def test_boxes_outside_the_field_of_view_have_no_usable_camera():
    camera = Camera.from_fov(60, (480, 640))
    boxes = np.array([[0, 0, 50, 90], [-1e300, 0, 1e301, 90], [1e200, 0, 1, 1]])
    virtual = virtual_cameras_for_boxes(boxes, camera, 256)
    assert virtual.usable.tolist() == [True, False, False]
