"""Crops of regions are centred and upright for any lens, and can be mapped back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import cameras

from metrabs_ros.blazepose.regions import Regions, up_in_image, virtual_cameras_on_regions
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.decoding import Keypoints


@st.composite
def regions(draw):
    """Return one region inside the image."""
    centre = np.array([draw(st.floats(100, 1800)), draw(st.floats(100, 980))])
    angle, radius = draw(st.floats(0, 2 * np.pi)), draw(st.floats(20, 300))
    top = centre + radius * np.array([np.cos(angle), np.sin(angle)])
    return Regions(centre[None], top[None])


@given(camera=cameras(), region=regions())
def test_a_region_is_centred_and_upright_in_its_crop(camera, region):
    virtual = virtual_cameras_on_regions(region, camera, side_px=256, margin=1.25)
    rays = camera.unproject(np.concatenate([region.centre_px, region.top_px]))
    projected = rays @ virtual.rotation[0].T @ virtual.intrinsic_matrix[0].T
    centre, top = projected[:, :2] / projected[:, 2:]
    np.testing.assert_allclose(centre, (128, 128), atol=1e-3)
    # Non-square pixels shear the region slightly.
    np.testing.assert_allclose(top, (128, 128 - 128 / 1.25), atol=0.5)


@given(camera=cameras(), region=regions())
def test_in_image_maps_a_region_back_from_its_crop(camera, region):
    virtual = virtual_cameras_on_regions(region, camera, side_px=256, margin=1.25)
    in_crop = Regions(np.array([[128.0, 128]]), np.array([[128.0, 128 - 128 / 1.25]]))
    in_image = in_crop.in_image(virtual, camera)
    np.testing.assert_allclose(in_image.centre_px, region.centre_px, atol=0.05)
    np.testing.assert_allclose(in_image.top_px, region.top_px, atol=0.05 * region.radius_px.max())


@given(camera=cameras(), pixel=st.tuples(st.floats(200, 1700), st.floats(200, 900)))
def test_regions_around_boxes_are_aligned_with_the_up_direction(camera, pixel):
    boxes = np.array([[pixel[0] - 30, pixel[1] - 80, 60, 160]])
    around = Regions.around_boxes(boxes, camera)
    np.testing.assert_allclose(around.centre_px, [pixel])
    np.testing.assert_allclose(around.radius_px, 80)
    np.testing.assert_allclose(around.tilt_degrees(camera), 0, atol=1e-4)


def test_up_in_image_is_defined_if_the_camera_looks_along_the_up_direction():
    camera = Camera(
        np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]),
        world_up_vector=np.array([0, 0, -1.0]),
    )
    np.testing.assert_allclose(up_in_image(np.array([[320.0, 240]]), camera), [[0, -1]])


def test_parts_are_much_smaller_regions_inside_another_region():
    centre_px = np.array([[300.0, 300], [320, 450], [320, 700], [310, 310]])
    regions = Regions(centre_px, centre_px - np.array([[0, 200.0], [0, 60], [0, 60], [0, 190]]))
    expected = np.zeros((4, 4), bool)
    expected[1, (0, 3)] = True
    np.testing.assert_array_equal(regions.parts(), expected)
    assert Regions.none().parts().shape == (0, 0)


def test_the_hips_of_a_portrait_follow_from_the_head_and_the_shoulders():
    points_px, scores = np.full((1, 17, 2), (300.0, 470)), np.zeros((1, 17))
    points_px[0, :7] = [
        (300, 100),
        (310, 90),
        (290, 90),
        (330, 100),
        (270, 100),
        (400, 200),
        (200, 200),
    ]
    scores[0, :7] = 0.6
    keypoints = Keypoints(np.array([[150.0, 50, 300, 430]]), np.ones(1), points_px, scores)
    camera = Camera.from_fov(55, (480, 640, 3))
    portrait = Regions.around_keypoints(keypoints, camera)
    np.testing.assert_allclose(portrait.centre_px, [[300, 408]], atol=1)
    assert portrait.radius_px > 300
    unseen = Keypoints(keypoints.boxes_px, keypoints.scores, points_px, 0 * scores)
    np.testing.assert_allclose(
        Regions.around_keypoints(unseen, camera).centre_px, [[300, 265]], atol=1
    )
