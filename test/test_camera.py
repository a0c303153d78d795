"""Cameras project and unproject as OpenCV's do, and refuse what cannot be a camera."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import IMAGE_SHAPE, cameras

from metrabs_ros.camera import Camera, distort, undistort

K = np.array([[900.0, 0, 384], [0, 910.0, 288], [0, 0, 1]])

pixels = st.tuples(st.floats(0, IMAGE_SHAPE[1] - 1), st.floats(0, IMAGE_SHAPE[0] - 1))


@given(camera=cameras(), pixel=pixels, depth_mm=st.floats(100, 1e5))
def test_unproject_undoes_project_anywhere_in_the_image(camera, pixel, depth_mm):
    point_mm = depth_mm * camera.unproject(np.array([pixel]))
    np.testing.assert_allclose(camera.project(point_mm), [pixel], atol=1e-5)


@given(camera=cameras(), pixel=pixels, depth_mm=st.floats(100, 1e5))
def test_project_agrees_with_opencv(camera, pixel, depth_mm):
    point_mm = depth_mm * camera.unproject(np.array([pixel]))
    expected, _ = cv2.projectPoints(
        point_mm, np.zeros(3), np.zeros(3), camera.intrinsic_matrix, camera.distortion_coeffs
    )
    np.testing.assert_allclose(camera.project(point_mm), expected.reshape(-1, 2), atol=1e-6)


@given(
    coeffs=st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    point=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
)
def test_undistort_is_finite_for_any_lens(coeffs, point):
    assert np.isfinite(undistort(np.array([point]), np.array(coeffs))).all()


def test_distort_without_coefficients_changes_nothing():
    points = np.array([[0.3, -0.2]])
    np.testing.assert_array_equal(distort(points, np.zeros(0)), points)


def test_points_behind_the_camera_project_to_finite_pixels():
    points_mm = np.array([[10.0, 20, -500], [0, 0, 0]])
    assert np.isfinite(Camera(K).project(points_mm)).all()


def test_field_of_view_spans_the_longer_side():
    camera = Camera.from_fov(90, (480, 640))
    left, right = camera.unproject(np.array([[0.0, 240], [640.0, 240]]))
    np.testing.assert_allclose(left, (-1, 0, 1), atol=1e-9)
    np.testing.assert_allclose(right, (1, 0, 1), atol=1e-9)


def test_up_follows_the_extrinsic_rotation():
    rolled = np.eye(4)
    rolled[:2, :2] = [[0, -1], [1, 0]]
    camera = Camera(K, extrinsic_matrix=rolled, world_up_vector=np.array([0, -2.0, 0]))
    np.testing.assert_allclose(camera.up, (1, 0, 0), atol=1e-12)


def test_to_world_undoes_the_extrinsic_matrix():
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = (100, 200, 300)
    world = Camera(K, extrinsic_matrix=extrinsics).to_world(np.array([[100.0, 200, 1300]]))
    np.testing.assert_allclose(world, [[0, 0, 1000]])


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ({'intrinsic_matrix': np.zeros((3, 3))}, 'focal lengths 0 and 0'),
        ({'intrinsic_matrix': np.full((3, 3), np.nan)}, 'intrinsic_matrix holds a value'),
        ({'intrinsic_matrix': np.eye(2)}, r'intrinsic_matrix has shape \(2, 2\)'),
        ({'distortion_coeffs': np.zeros(3)}, 'distortion_coeffs has 3 values'),
        ({'distortion_coeffs': [np.inf, 0, 0, 0]}, 'distortion_coeffs holds a value'),
        ({'world_up_vector': np.zeros(3)}, 'world_up_vector has no direction'),
        ({'extrinsic_matrix': np.zeros((4, 4))}, 'extrinsic_matrix cannot be inverted'),
    ],
)
def test_what_cannot_be_a_camera_is_refused_by_name(arguments, says):
    with pytest.raises(ValueError, match=says):
        Camera(**{'intrinsic_matrix': K, **arguments})


@pytest.mark.parametrize('fov_degrees', [0, -10, 180, float('nan')])
def test_no_pinhole_camera_has_an_impossible_field_of_view(fov_degrees):
    with pytest.raises(ValueError, match='default_fov_degrees is'):
        Camera.from_fov(fov_degrees, (480, 640))


FISHEYE = Camera(
    np.array([[300.0, 0, 480], [0, 305, 470], [0, 0, 1]]),
    np.array([-0.01, 0.02, -0.005, 0.001]),
    fisheye=True,
)


@given(st.tuples(st.floats(0, 1.6), st.floats(0, 2 * np.pi), st.floats(100, 50_000)))
def test_fisheye_shows_the_half_space_where_opencv_does_and_back(place):
    angle, around, distance_mm = place
    sideways = np.sin(angle) * np.array([np.cos(around), np.sin(around)])
    ray = np.array([*sideways, np.cos(angle)])
    pixel = FISHEYE.project(distance_mm * ray)
    np.testing.assert_allclose(FISHEYE.unproject(pixel), ray, atol=1e-9)
    if angle < 1.5:
        expected, _ = cv2.fisheye.projectPoints(
            (distance_mm * ray)[None, None],
            np.zeros(3),
            np.zeros(3),
            FISHEYE.intrinsic_matrix,
            FISHEYE.distortion_coeffs,
        )
        np.testing.assert_allclose(pixel, expected[0, 0], atol=1e-6)


def test_fisheye_has_four_coefficients_or_none():
    assert Camera(FISHEYE.intrinsic_matrix, fisheye=True).distortion_coeffs.tolist() == [0] * 4
    with pytest.raises(ValueError, match='distortion_coeffs has 5 values'):
        Camera(FISHEYE.intrinsic_matrix, np.zeros(5), fisheye=True)
