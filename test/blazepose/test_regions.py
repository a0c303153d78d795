"""Regions enclose people; their crops are centred and upright for any lens."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import angles, cameras, standing_person

from metrabs_ros.blazepose.agreement import COCO_JOINTS
from metrabs_ros.blazepose.regions import Regions, up_in_image, virtual_cameras_on_regions
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.skeletons.conventions import COCO_17

CAMERA = Camera(np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]))


def radii_px(regions):
    return np.linalg.norm(regions.top_px - regions.centre_px, axis=-1)


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
    np.testing.assert_allclose(in_image.top_px, region.top_px, atol=0.05 * radii_px(region).max())


@given(camera=cameras(), pixel=st.tuples(st.floats(200, 1700), st.floats(200, 900)))
def test_regions_around_boxes_are_aligned_with_the_up_direction(camera, pixel):
    boxes = np.array([[pixel[0] - 30, pixel[1] - 80, 60, 160]])
    around = Regions.around_boxes(boxes, camera)
    np.testing.assert_allclose(around.centre_px, [pixel])
    np.testing.assert_allclose(radii_px(around), 80)
    upright = (around.top_px - around.centre_px) / 80
    np.testing.assert_allclose(upright, up_in_image(around.centre_px, camera), atol=1e-6)


@given(camera=cameras(), region=regions(), angle=st.floats(-3.1, 3.1))
def test_upright_regions_are_the_same_circles_without_the_turn(camera, region, angle):
    upright = region.turned_upright(camera)
    np.testing.assert_array_equal(upright.centre_px, region.centre_px)
    np.testing.assert_allclose(radii_px(upright), radii_px(region))
    cos, sin = np.cos(angle), np.sin(angle)
    turned_px = (upright.top_px - upright.centre_px) @ np.array([[cos, sin], [-sin, cos]])
    turned = Regions(upright.centre_px, upright.centre_px + turned_px)
    np.testing.assert_allclose(turned.angle_to(upright), abs(angle), atol=1e-6)
    np.testing.assert_allclose(turned.turned_upright(camera).top_px, upright.top_px)


def test_up_in_image_is_defined_if_the_camera_looks_along_the_up_direction():
    camera = Camera(
        np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]),
        world_up_vector=np.array([0, 0, -1.0]),
    )
    np.testing.assert_allclose(up_in_image(np.array([[320.0, 240]]), camera), [[0, -1]])


@st.composite
def detected_people(draw):
    """Return the keypoints of a standing or leaning person; some are not visible."""
    roll, facing = draw(angles), draw(angles)
    body_mm = standing_person(np.array([np.sin(roll), -np.cos(roll), 0]), facing)
    position_mm = [
        draw(st.floats(-500, 500)),
        draw(st.floats(-500, 500)),
        draw(st.floats(2e3, 2e4)),
    ]
    points_px = CAMERA.project(position_mm + body_mm[None, COCO_JOINTS])
    visible = draw(st.lists(st.booleans(), min_size=17, max_size=17))
    scores = np.where(visible, 0.8, 0.05)[None]
    low, high = points_px.min(axis=1), points_px.max(axis=1)
    return Keypoints(np.hstack([low, high - low]), np.array([0.8]), points_px, scores)


def has_torso(keypoints):
    visible = keypoints.point_scores[0] > 0.5
    return visible[11:13].any() and visible[5:7].any()


def changed(keypoints, **arrays):
    return dataclasses.replace(keypoints, **arrays)


@given(detected_people())
def test_regions_around_keypoints_enclose_all_visible_ones(keypoints):
    if not has_torso(keypoints):
        return
    around = Regions.around_keypoints(keypoints, CAMERA)
    apart_px = np.linalg.norm(keypoints.points_px[0] - around.centre_px, axis=-1)
    assert (apart_px[keypoints.point_scores[0] > 0.5] < radii_px(around)).all()


@given(detected_people())
def test_regions_around_keypoints_have_the_direction_of_the_torso(keypoints):
    # Leaning people are upright in their crops.
    if not has_torso(keypoints):
        return
    around = Regions.around_keypoints(keypoints, CAMERA)
    hips_px = keypoints.points_px[:, 11:13].mean(axis=1)
    torso_px = keypoints.points_px[:, 5:7].mean(axis=1) - hips_px
    boxes = Regions.around_boxes(keypoints.boxes_px, CAMERA)
    if np.allclose(around.centre_px, boxes.centre_px):
        # No visible keypoint is farther away than the shoulders.
        return
    np.testing.assert_allclose(around.centre_px, hips_px)
    upright = (around.top_px - around.centre_px) / radii_px(around)
    np.testing.assert_allclose(upright, torso_px / np.linalg.norm(torso_px), atol=1e-9)


@given(detected_people(), angles, st.floats(0.5, 2), st.tuples(*[st.floats(-200, 200)] * 2))
def test_regions_around_keypoints_move_with_them(keypoints, angle, factor, shift_px):
    if not has_torso(keypoints):
        return
    turn = factor * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    keypoints = changed(keypoints, point_scores=np.full((1, 17), 0.8))
    moved = changed(keypoints, points_px=keypoints.points_px @ turn + shift_px)
    before, after = (Regions.around_keypoints(people, CAMERA) for people in (keypoints, moved))
    for name in ('centre_px', 'top_px'):
        expected_px = getattr(before, name) @ turn + shift_px
        np.testing.assert_allclose(getattr(after, name), expected_px, atol=1e-6)


@given(detected_people())
def test_regions_do_not_depend_on_which_side_is_left(keypoints):
    swapped = changed(
        keypoints,
        points_px=keypoints.points_px[:, COCO_17.mirror],
        point_scores=keypoints.point_scores[:, COCO_17.mirror],
    )
    around, same = (Regions.around_keypoints(people, CAMERA) for people in (keypoints, swapped))
    np.testing.assert_allclose(around.centre_px, same.centre_px)
    np.testing.assert_allclose(around.top_px, same.top_px)


@given(detected_people(), st.sampled_from(['hips', 'shoulders', 'distance']))
def test_regions_of_people_without_a_visible_torso_are_around_their_boxes(keypoints, missing):
    if missing == 'distance':
        keypoints.points_px[0, 5:7] = keypoints.points_px[0, 11:13]
    else:
        keypoints.point_scores[0, slice(11, 13) if missing == 'hips' else slice(5, 7)] = 0
        # The hips of people with a visible head are guessed.
        keypoints.point_scores[0, :5] = 0
    around = Regions.around_keypoints(keypoints, CAMERA)
    boxes = Regions.around_boxes(keypoints.boxes_px, CAMERA)
    np.testing.assert_array_equal(around.centre_px, boxes.centre_px)
    np.testing.assert_array_equal(around.top_px, boxes.top_px)


def test_regions_without_people_are_empty():
    no_people = Keypoints(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 17, 2)), np.zeros((0, 17)))
    assert len(Regions.around_keypoints(no_people, CAMERA)) == 0


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
    assert 200 < radii_px(portrait) < 300
    # Regions around people with visible legs have the full size.
    scores[0, 15] = 0.6
    assert radii_px(Regions.around_keypoints(keypoints, camera)) > 1.2 * radii_px(portrait)
    scores[0, 15] = 0
    unseen = Keypoints(keypoints.boxes_px, keypoints.scores, points_px, 0 * scores)
    np.testing.assert_allclose(
        Regions.around_keypoints(unseen, camera).centre_px, [[300, 265]], atol=1
    )


def test_regions_are_enlarged_to_a_minimum_radius_about_their_centres():
    regions = Regions(np.array([[10.0, 20], [50, 60]]), np.array([[10.0, 10], [50, 20]]))
    np.testing.assert_allclose(regions.radius_px, [10, 40])
    enlarged = regions.enlarged_to(np.array([25.0, 25]))
    np.testing.assert_allclose(enlarged.radius_px, [25, 40])
    np.testing.assert_allclose(enlarged.centre_px, regions.centre_px)
    np.testing.assert_allclose(enlarged.angle_to(regions), 0)
