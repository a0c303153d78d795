"""Projection and unprojection match OpenCV, and invalid parameters are rejected."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import IMAGE_SHAPE, LENSES, cameras

from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.camera import Camera, distort, undistort
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.virtual_cameras import VirtualCameras

K = np.array([[900.0, 0, 384], [0, 910.0, 288], [0, 0, 1]])

pixels = st.tuples(st.floats(0, IMAGE_SHAPE[1] - 1), st.floats(0, IMAGE_SHAPE[0] - 1))


@given(camera=cameras(), pixel=pixels, depth_mm=st.floats(100, 1e5))
def test_unproject_is_the_inverse_of_project_in_the_whole_image(camera, pixel, depth_mm):
    point_mm = depth_mm * camera.unproject(np.array([pixel]))
    np.testing.assert_allclose(camera.project(point_mm), [pixel], atol=1e-5)


def test_a_camera_does_not_change_with_the_arrays_it_was_created_from():
    intrinsics, extrinsics, pixel = K.copy(), np.eye(4), np.array([[10.0, 20]])
    coeffs, up = np.array([0.1, 0, 0, 0]), np.array([0.0, -1, 0])
    camera = Camera(intrinsics, coeffs, extrinsics, up)
    ray = camera.unproject(pixel)
    for array in (intrinsics, coeffs, extrinsics, up):
        array *= 2
    np.testing.assert_array_equal(camera.unproject(pixel), ray)
    np.testing.assert_allclose(camera.project(1000 * ray), pixel, atol=1e-6)
    np.testing.assert_allclose(camera.from_world(camera.to_world(ray)), ray)


def test_arrays_of_a_camera_cannot_be_modified():
    camera = Camera(K, [0.1, 0, 0, 0])
    arrays = [value for value in vars(camera).values() if isinstance(value, np.ndarray)]
    for array in (*arrays, camera.position_mm, camera.rotation_to_world):
        with pytest.raises(ValueError, match='read-only'):
            array += 1


@given(camera=cameras(), pixel=pixels, depth_mm=st.floats(100, 1e5))
def test_project_matches_opencv(camera, pixel, depth_mm):
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


def test_distort_without_coefficients_is_the_identity():
    points = np.array([[0.3, -0.2]])
    np.testing.assert_array_equal(distort(points, np.zeros(0)), points)


def test_points_behind_the_camera_project_to_finite_pixels():
    points_mm = np.array([[10.0, 20, -500], [0, 0, 0]])
    assert np.isfinite(Camera(K).project(points_mm)).all()


def test_the_field_of_view_spans_the_longer_side():
    camera = Camera.from_fov(90, (480, 640))
    left, right = camera.unproject(np.array([[0.0, 240], [640.0, 240]]))
    np.testing.assert_allclose(left, (-1, 0, 1), atol=1e-9)
    np.testing.assert_allclose(right, (1, 0, 1), atol=1e-9)


def test_up_follows_the_extrinsic_rotation():
    rolled = np.eye(4)
    rolled[:2, :2] = [[0, -1], [1, 0]]
    camera = Camera(K, extrinsic_matrix=rolled, world_up_vector=np.array([0, -2.0, 0]))
    np.testing.assert_allclose(camera.up, (1, 0, 0), atol=1e-12)


def test_to_world_is_the_inverse_of_the_extrinsic_matrix():
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = (100, 200, 300)
    world = Camera(K, extrinsic_matrix=extrinsics).to_world(np.array([[100.0, 200, 1300]]))
    np.testing.assert_allclose(world, [[0, 0, 1000]])


FOLDING = Camera([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], [-0.3, 0, 0, 0])
FOLDING_FISHEYE = Camera(
    [[285.0, 0, 424], [0, 285, 400], [0, 0, 1]], [-0.05, -0.02, 0, 0], fisheye=True
)


@pytest.mark.parametrize(
    ('camera', 'edge_degrees'),
    [(FOLDING, 46.5), (FOLDING_FISHEYE, 90.6)],
    ids=['pinhole', 'fisheye'],
)
def test_points_outside_the_field_of_a_lens_are_projected_outside_its_image(camera, edge_degrees):
    angles = np.radians(np.linspace(edge_degrees, 179, 100))
    rays = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=-1)
    x_px, y_px = camera.project(1000 * rays).T
    edge_px, _ = camera.project(1000 * rays[0])
    assert (x_px >= edge_px).all()
    np.testing.assert_allclose(y_px, camera.intrinsic_matrix[1, 2])
    # Larger values would be ignored: `People.finite`.
    assert x_px.max() < 1e7


def test_pixels_outside_the_image_of_a_fisheye_lens_have_the_nearest_ray():
    rays = FOLDING_FISHEYE.unproject(np.array([[762.5, 400], [5000, 400]]))
    np.testing.assert_allclose(np.degrees(np.arctan2(rays[:, 0], rays[:, 2])), 90.6, atol=0.1)


@pytest.mark.parametrize('coeffs', [[0.2, -0.03, 0, 0, -0.03], [0.3, 0.08, 0, 0, -0.004]])
def test_undistort_is_the_inverse_of_distort_up_to_the_edge_of_the_field(coeffs):
    # At these radii, the distorted points are outside of the field before the distortion.
    points = np.stack([np.linspace(0, 1.3, 50), np.zeros(50)], axis=-1)
    distorted = distort(points, np.array(coeffs))
    np.testing.assert_allclose(undistort(distorted, np.array(coeffs)), points, atol=1e-9)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'intrinsic_matrix': np.zeros((3, 3))}, 'focal lengths 0 and 0'),
        ({'intrinsic_matrix': np.full((3, 3), np.nan)}, 'intrinsic_matrix contains a value'),
        ({'intrinsic_matrix': np.eye(2)}, r'intrinsic_matrix has shape \(2, 2\)'),
        ({'distortion_coeffs': np.zeros(3)}, 'distortion_coeffs has 3 values'),
        ({'distortion_coeffs': [np.inf, 0, 0, 0]}, 'distortion_coeffs contains a value'),
        ({'world_up_vector': np.zeros(3)}, 'world_up_vector has no direction'),
        ({'extrinsic_matrix': np.zeros((4, 4))}, 'extrinsic_matrix cannot be inverted'),
        ({'intrinsic_matrix': [[1e300, 0, 0], [0, 1e-300, 0], [0, 0, 1]]}, 'focal lengths 1e'),
        ({'intrinsic_matrix': [[5e-324, 0, 0], [0, 1, 0], [0, 0, 1]]}, 'from 0.001 to 1e'),
        ({'intrinsic_matrix': [[500, 0, 0], [0, 1e-2, 0], [0, 0, 1]]}, '1000 times the other'),
        ({'intrinsic_matrix': [[9, 9, 1], [9, 9, 1], [0, 0, 1]]}, 'cannot be inverted'),
        ({'intrinsic_matrix': [[500, 1e308, 0], [1e308, 500, 0], [0, 0, 1]]}, 'row 1, column 0'),
        ({'intrinsic_matrix': [[500, 501, 0], [0, 500, 0], [0, 0, 1]]}, 'skew 501'),
        ({'intrinsic_matrix': [[500, 0, 1e8], [0, 500, 0], [0, 0, 1]]}, 'point at 1e'),
        ({'intrinsic_matrix': np.eye(3) * 1j}, 'intrinsic_matrix is not an array of numbers'),
        ({'distortion_coeffs': [1e308, 0, 0, 0]}, 'value of magnitude 1e'),
        ({'extrinsic_matrix': np.diag([1, 1, 1e300, 1])}, 'extrinsic_matrix is out of range'),
        ({'extrinsic_matrix': np.diag([1, 1, 1, 1e-12])}, 'extrinsic_matrix cannot be inverted'),
        ({'extrinsic_matrix': np.diag([2.0, 2, 2, 2])}, 'last row of extrinsic_matrix is'),
        ({'extrinsic_matrix': np.eye(4) + np.eye(4, k=-3)}, 'translation in the last column'),
        ({'world_up_vector': [5e-324, 0, 0]}, 'world_up_vector has no direction'),
    ],
)
def test_invalid_parameters_are_rejected_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Camera(**{'intrinsic_matrix': K, **arguments})


@pytest.mark.parametrize(
    'arguments',
    [
        {'distortion_coeffs': [0.1] * 100_000},
        {'intrinsic_matrix': np.ones((1000, 1000))},
        {'intrinsic_matrix': 'x' * 100_000},
    ],
)
def test_error_messages_for_large_arguments_are_short(arguments):
    with pytest.raises(ValueError, match=r'_matrix|_coeffs') as caught:
        Camera(**{'intrinsic_matrix': K, **arguments})
    assert len(str(caught.value)) < 500


def test_a_very_long_up_vector_is_normalised():
    camera = Camera(K, world_up_vector=np.array([0, -1e300, 0]))
    np.testing.assert_array_equal(camera.world_up_vector, (0, -1, 0))


extreme_floats = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, -1.0, 5e-324, 1e-310, 1e-300, 1e300, 1e-154, 1e154, 1e-9, 1e9]),
    st.floats(-1000, 1000),
)


@st.composite
def arguments_with_extreme_values(draw):
    """Return arguments of a camera in which a few values are extreme."""
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = (100, 200, 300)
    lens = draw(st.sampled_from([*LENSES, [-0.01, 0.02, -0.005, 0.001]]))
    flat = {
        'intrinsic_matrix': K.copy().reshape(-1),
        'distortion_coeffs': np.array(lens, float),
        'extrinsic_matrix': extrinsics.reshape(-1),
        'world_up_vector': np.array([0.0, -1.0, 0.0]),
    }
    for array in flat.values():
        for index in draw(st.sets(st.integers(0, max(0, len(array) - 1)), max_size=3)):
            if index < len(array):
                array[index] = draw(extreme_floats)
    shapes = {'intrinsic_matrix': (3, 3), 'extrinsic_matrix': (4, 4)}
    arrays = {name: array.reshape(shapes.get(name, -1)) for name, array in flat.items()}
    return {**arrays, 'fisheye': len(lens) == 4 and draw(st.booleans())}


@pytest.mark.slow
@pytest.mark.filterwarnings('error')
@settings(max_examples=1000)
@given(arguments=arguments_with_extreme_values())
def test_extreme_values_are_rejected_or_all_results_are_finite(arguments):
    try:
        camera = Camera(**arguments)
    except ValueError:
        return
    pixels_px = np.array([[0.0, 0.0], [1919.0, 1079.0], [960.0, 540.0]])
    points_mm = np.array([[0.0, 0, 3000], [1e5, -1e5, 1.0], [-500, 20, -3000], [0, 0, 0]])
    boxes_px = np.array([[0.0, 0, 1920, 1080], [900, 500, 60, 160]])
    regions = Regions(pixels_px, pixels_px - (0, 50))
    for result in (
        camera.up,
        camera.unproject(pixels_px),
        camera.project(points_mm),
        camera.to_world(points_mm),
        camera.from_world(points_mm),
    ):
        assert np.isfinite(result).all()
    on_boxes = virtual_cameras_for_boxes(boxes_px, camera, 256)
    on_regions = virtual_cameras_on_regions(regions, camera, 256, 1.25)
    for virtual in (on_boxes.select(on_boxes.usable), on_regions.select(on_regions.usable)):
        assert np.isfinite(inverse_of(virtual)).all()


def inverse_of(virtual: VirtualCameras):
    """Invert the projections of virtual cameras; those of degenerate cameras are singular."""
    return np.linalg.inv(virtual.intrinsic_matrix @ virtual.rotation)


@pytest.mark.filterwarnings('error')
def test_a_singular_rotation_with_a_tiny_entry_is_rejected():
    extrinsic = np.diag([0.0, 1, 1, 1])
    extrinsic[1, 0] = 1.11253693e-308
    with pytest.raises(ValueError, match='extrinsic_matrix'):
        Camera(np.array([[900.0, 0, 384], [0, 910, 288], [0, 0, 1]]), extrinsic_matrix=extrinsic)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('fov_degrees', [5e-324, 1e-300, 179.9999999999])
def test_an_extreme_field_of_view_is_rejected(fov_degrees):
    with pytest.raises(ValueError, match=r'default_fov_degrees is .* focal length'):
        Camera.from_fov(fov_degrees, (480, 640))


@pytest.mark.parametrize('fov_degrees', [0, -10, 180, float('nan')])
def test_an_impossible_field_of_view_is_rejected(fov_degrees):
    with pytest.raises(ValueError, match='default_fov_degrees is'):
        Camera.from_fov(fov_degrees, (480, 640))


FISHEYE = Camera(
    np.array([[300.0, 0, 480], [0, 305, 470], [0, 0, 1]]),
    np.array([-0.01, 0.02, -0.005, 0.001]),
    fisheye=True,
)


@given(st.tuples(st.floats(0, 1.6), st.floats(0, 2 * np.pi), st.floats(100, 50_000)))
def test_fisheye_projection_matches_opencv_and_is_invertible(point):
    angle, around, distance_mm = point
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


def test_a_fisheye_lens_has_four_coefficients_or_none():
    assert Camera(FISHEYE.intrinsic_matrix, fisheye=True).distortion_coeffs.tolist() == [0] * 4
    with pytest.raises(ValueError, match='distortion_coeffs has 5 values'):
        Camera(FISHEYE.intrinsic_matrix, np.zeros(5), fisheye=True)
