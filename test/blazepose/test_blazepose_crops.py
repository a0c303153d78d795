"""Crops are upright, centred on the person, and free of aliasing and lens distortion."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import IMAGE_SHAPE, cameras

from metrabs_ros.blazepose.crops import block_source_pixels, interpolate_blocks, sample_crops
from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.camera import Camera

FISHEYE = Camera(
    np.array([[600.0, 0, 960], [0, 600, 540], [0, 0, 1]]),
    np.array([-0.02, 0.005, -0.002, 0.0003]),
    fisheye=True,
)
K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])


def test_a_crop_without_rotation_and_zoom_is_a_part_of_the_image(street):
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    region = Regions(np.array([[384.0, 288]]), np.array([[384.0, 288 - 102.4]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=256, margin=1.25)
    crop = sample_crops(street, camera, virtual)[0]
    expected = street[288 - 128 : 288 + 128, 384 - 128 : 384 + 128] / 255
    np.testing.assert_allclose(crop, expected, atol=0.005)


def test_details_finer_than_the_crop_are_averaged():
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[(np.indices((1024, 1024)).sum(axis=0) % 2) == 0] = 255
    camera = Camera.from_fov(55, image.shape)
    region = Regions(np.array([[512.0, 512]]), np.array([[512.0, 512 - 400]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=128, margin=1.25)
    crop = sample_crops(image, camera, virtual)[0]
    np.testing.assert_allclose(crop[20:-20, 20:-20], 0.5, atol=0.005)


@given(
    st.one_of(cameras(), st.just(FISHEYE)),
    st.tuples(st.floats(300, 1600), st.floats(200, 900)),
    st.floats(30, 400),
)
def test_interpolated_source_coordinates_are_accurate(camera, centre_px, radius_px):
    region = Regions(np.array([centre_px]), np.array([centre_px]) - (0, radius_px))
    virtual = virtual_cameras_on_regions(region, camera, side_px=256, margin=1.25)
    centres_px = block_source_pixels(camera, virtual, 256)[0]
    source_px = interpolate_blocks(centres_px.astype(np.float32), 256)
    pixels = np.stack(np.meshgrid(np.arange(256.0), np.arange(256.0)), axis=-1)
    exact_px = virtual.to_image(pixels.reshape(1, -1, 2), camera).reshape(256, 256, 2)
    in_image = np.all((exact_px > 0) & (exact_px < IMAGE_SHAPE[::-1]), axis=-1)
    in_crop_px = virtual.scale[0] * np.abs(source_px - exact_px)[in_image]
    assert in_crop_px.max(initial=0) < 0.1


def test_antialiasing_reduces_noise_without_changing_the_image(street):
    camera = Camera.from_fov(55, street.shape)
    region = Regions(np.array([[384.0, 288]]), np.array([[384.0, 88]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=128, margin=1.25)
    plain = sample_crops(street, camera, virtual)[0]
    smooth = sample_crops(street, camera, virtual, antialias_factor=4)[0]
    assert np.abs(plain - smooth).mean() < 0.03
    assert np.abs(np.diff(smooth, axis=1)).mean() < np.abs(np.diff(plain, axis=1)).mean()


def test_lens_distortion_is_corrected():
    camera = Camera(
        np.array([[1000.0, 0, 960], [0, 1000, 540], [0, 0, 1]]), np.array([-0.3, 0.1, 0, 0, 0])
    )
    # A straight white line in space, off the axis, distorted by the lens.
    line = np.stack([np.linspace(-0.7, 0.7, 3000), np.full(3000, 0.35), np.ones(3000)], axis=-1)
    image = np.zeros((*IMAGE_SHAPE, 3), np.uint8)
    points = camera.project(1000 * line).round().astype(np.int32)
    cv2.polylines(image, [points], False, (255, 255, 255), 3)
    region = Regions(np.array([[960.0, 860]]), np.array([[960.0, 560]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=256, margin=1.25)
    crop = sample_crops(image, camera, virtual)[0, ..., 0]
    rows, columns = np.nonzero(crop > 0.5)
    fit = np.polynomial.Polynomial.fit(columns, rows, 1)
    assert np.ptp(columns) > 200
    assert np.abs(fit(columns) - rows).max() < 2.5


def test_a_crop_outside_the_image_is_black():
    image = np.full((480, 640, 3), 255, np.uint8)
    camera = Camera(K)
    region = Regions(np.array([[900.0, 240]]), np.array([[900.0, 200]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=64, margin=1.25)
    assert not sample_crops(image, camera, virtual).any()


def test_crops_of_non_contiguous_views_match_those_of_the_image(street):
    camera = Camera.from_fov(55, street.shape)
    regions = Regions(np.array([[384.0, 288], [10, 300]]), np.array([[400.0, 188], [10, 0]]))
    virtual = virtual_cameras_on_regions(regions, camera, side_px=128, margin=1.25)
    views = [np.ascontiguousarray(street[..., ::-1])[..., ::-1], street[::-1].copy()[::-1]]
    wide = np.dstack([street, street[..., :1]])[..., :3]
    for view in (*views, wide):
        np.testing.assert_array_equal(
            sample_crops(view, camera, virtual), sample_crops(street, camera, virtual)
        )


def test_a_mirrored_crop_is_the_mirror_image(street):
    camera = Camera.from_fov(55, street.shape)
    region = Regions(np.array([[384.0, 288]]), np.array([[400.0, 188]]))
    virtual = virtual_cameras_on_regions(region, camera, side_px=128, margin=1.25)
    plain = sample_crops(street, camera, virtual)[0]
    mirrored = sample_crops(street, camera, virtual.mirrored(np.array([True])))[0]
    # The principal point of a crop is half a pixel from its centre.
    np.testing.assert_allclose(mirrored[:, 1:], plain[:, :0:-1], atol=0.05)
