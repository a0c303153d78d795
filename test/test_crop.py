"""Crops are upright, look straight at the person, and show light and lines as they are."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import IMAGE_SHAPE, cameras

from metrabs_ros.camera import Camera
from metrabs_ros.crop import (
    Circles,
    corner_aligned_scaling,
    look_at,
    sample_crops,
    up_in_image,
    virtual_cameras_on_circles,
)

K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])

coordinates = st.floats(-1, 1)
vectors = st.tuples(coordinates, coordinates, coordinates)


@st.composite
def circles(draw):
    """Return one circle somewhere in the image."""
    centre = np.array([draw(st.floats(100, 1800)), draw(st.floats(100, 980))])
    angle, radius = draw(st.floats(0, 2 * np.pi)), draw(st.floats(20, 300))
    rim = centre + radius * np.array([np.cos(angle), np.sin(angle)])
    return Circles(centre[None], rim[None])


@given(forward=vectors.filter(lambda v: np.linalg.norm(v) > 0.1), up=vectors)
def test_look_at_is_always_a_rotation_towards_the_target(forward, up):
    rotation = look_at(np.array([forward]), np.array(up))[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    target = rotation @ (np.array(forward) / np.linalg.norm(forward))
    np.testing.assert_allclose(target, (0, 0, 1), atol=1e-9)


@given(camera=cameras(), circle=circles())
def test_circle_is_centred_and_upright_in_its_crop(camera, circle):
    virtual = virtual_cameras_on_circles(circle, camera, side_px=256, margin=1.25)
    rays = camera.unproject(np.concatenate([circle.centre_px, circle.rim_px]))
    seen = rays @ virtual.rotation[0].T @ virtual.intrinsic_matrix[0].T
    centre, rim = seen[:, :2] / seen[:, 2:]
    np.testing.assert_allclose(centre, (128, 128), atol=1e-3)
    # Upright to what the image's aspect ratio can shear it by.
    np.testing.assert_allclose(rim, (128, 128 - 128 / 1.25), atol=0.5)


@given(camera=cameras(), circle=circles())
def test_circles_go_to_the_crop_and_back(camera, circle):
    virtual = virtual_cameras_on_circles(circle, camera, side_px=256, margin=1.25)
    in_crop = Circles(np.array([[128.0, 128]]), np.array([[128.0, 128 - 128 / 1.25]]))
    back = virtual.circles_in_image(in_crop, camera)
    np.testing.assert_allclose(back.centre_px, circle.centre_px, atol=0.05)
    np.testing.assert_allclose(back.rim_px, circle.rim_px, atol=0.05 * circle.radius_px.max())


@given(camera=cameras(), pixel=st.tuples(st.floats(200, 1700), st.floats(200, 900)))
def test_circles_around_boxes_lean_with_the_world(camera, pixel):
    boxes = np.array([[pixel[0] - 30, pixel[1] - 80, 60, 160]])
    around = Circles.around_boxes(boxes, camera)
    np.testing.assert_allclose(around.centre_px, [pixel])
    np.testing.assert_allclose(around.radius_px, 80)
    np.testing.assert_allclose(around.tilt_degrees(camera), 0, atol=1e-4)


def test_up_in_the_image_is_up_where_the_camera_looks_along_it():
    camera = Camera(K, world_up_vector=np.array([0, 0, -1.0]))
    np.testing.assert_allclose(up_in_image(np.array([[320.0, 240]]), camera), [[0, -1]])


def test_crop_without_turn_or_zoom_is_a_part_of_the_image(street):
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    circle = Circles(np.array([[384.0, 288]]), np.array([[384.0, 288 - 102.4]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=256, margin=1.25)
    crop = sample_crops(street, camera, virtual)[0]
    expected = street[288 - 128 : 288 + 128, 384 - 128 : 384 + 128] / 255
    np.testing.assert_allclose(crop, expected, atol=0.005)


def test_light_is_averaged_not_code_values():
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[(np.indices((1024, 1024)).sum(axis=0) % 2) == 0] = 255
    camera = Camera.from_fov(55, image.shape)
    circle = Circles(np.array([[512.0, 512]]), np.array([[512.0, 512 - 400]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=128, margin=1.25)
    crop = sample_crops(image, camera, virtual)[0]
    np.testing.assert_allclose(crop[20:-20, 20:-20], 0.5 ** (1 / 2.2), atol=0.02)


def test_antialiasing_keeps_the_picture_and_takes_the_noise(street):
    camera = Camera.from_fov(55, street.shape)
    circle = Circles(np.array([[384.0, 288]]), np.array([[384.0, 88]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=128, margin=1.25)
    plain = sample_crops(street, camera, virtual)[0]
    smooth = sample_crops(street, camera, virtual, antialias_factor=4)[0]
    assert np.abs(plain - smooth).mean() < 0.03
    assert np.abs(np.diff(smooth, axis=1)).mean() < np.abs(np.diff(plain, axis=1)).mean()


def test_lens_distortion_is_undone():
    camera = Camera(
        np.array([[1000.0, 0, 960], [0, 1000, 540], [0, 0, 1]]), np.array([-0.3, 0.1, 0, 0, 0])
    )
    # A straight white line in space, off the axis, as the lens bends it.
    line = np.stack([np.linspace(-0.7, 0.7, 3000), np.full(3000, 0.35), np.ones(3000)], axis=-1)
    image = np.zeros((*IMAGE_SHAPE, 3), np.uint8)
    points = camera.project(1000 * line).round().astype(np.int32)
    cv2.polylines(image, [points], False, (255, 255, 255), 3)
    circle = Circles(np.array([[960.0, 860]]), np.array([[960.0, 560]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=256, margin=1.25)
    crop = sample_crops(image, camera, virtual)[0, ..., 0]
    rows, columns = np.nonzero(crop > 0.5)
    fit = np.polynomial.Polynomial.fit(columns, rows, 1)
    assert np.ptp(columns) > 200
    assert np.abs(fit(columns) - rows).max() < 2.5


def test_crop_beyond_the_image_is_black():
    image = np.full((480, 640, 3), 255, np.uint8)
    camera = Camera(K)
    circle = Circles(np.array([[900.0, 240]]), np.array([[900.0, 200]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=64, margin=1.25)
    assert not sample_crops(image, camera, virtual).any()


def test_mirrored_crop_is_the_mirror_image(street):
    camera = Camera.from_fov(55, street.shape)
    circle = Circles(np.array([[384.0, 288]]), np.array([[400.0, 188]]))
    virtual = virtual_cameras_on_circles(circle, camera, side_px=128, margin=1.25)
    plain = sample_crops(street, camera, virtual)[0]
    mirrored = sample_crops(street, camera, virtual.mirrored())[0]
    # The crop's principal point lies half a pixel off its middle.
    np.testing.assert_allclose(mirrored[:, 1:], plain[:, :0:-1], atol=0.05)


def test_scaling_keeps_the_outer_edges():
    for factor in (0.25, 0.5, 2, 3):
        edge = corner_aligned_scaling(factor) @ (-0.5, -0.5, 1)
        np.testing.assert_allclose(edge[:2], -0.5)
