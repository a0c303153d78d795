"""Depths of joints from positions in any frame and image points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_people import people_at

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.recordings.fitted_depths import fitted_depths

INTRINSICS = [[900, 0, 640], [0, 800, 480], [0, 0, 1]]
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


def in_another_frame(people, quaternion=(0.5, -0.5, 0.5, -0.5), shift_mm=(300, -4000, 1500)):
    """Return people in a frame that is by default turned like one with z up."""
    rotation = rotation_matrix(*quaternion)
    return people.transformed(rotation, np.array(shift_mm))


def projected(people, coeffs=()):
    """Return people of the camera frame with image points, rounded as in messages."""
    points_px = Camera(INTRINSICS, distortion_coeffs=coeffs).project(people.poses3d_mm)
    return dataclasses.replace(people, poses2d_px=points_px.astype(np.float32).astype(float))


def people_with_limbs(*places_mm):
    people = people_at(*places_mm)
    offsets_mm = np.random.default_rng(0).normal(0, 60, people.poses3d_mm.shape)
    return dataclasses.replace(people, poses3d_mm=people.poses3d_mm + offsets_mm)


@given(
    quaternions,
    arrays(np.float64, 3, elements=st.floats(-1e5, 1e5)),
    st.floats(1000, 15_000),
    st.floats(-1, 1),
)
def test_depths_are_those_in_the_frame_of_the_camera(quaternion, shift_mm, z_mm, side):
    people = projected(people_with_limbs((side * z_mm / 2, 100, z_mm)))
    depths_mm = fitted_depths(in_another_frame(people, quaternion, shift_mm))
    np.testing.assert_allclose(depths_mm, people.poses3d_mm[..., 2], rtol=2e-3)


def test_people_at_different_distances_share_the_projection():
    people = projected(people_with_limbs((0, 0, 2000), (900, 0, 6000)))
    depths_mm = fitted_depths(in_another_frame(people))
    np.testing.assert_allclose(depths_mm, people.poses3d_mm[..., 2], rtol=1e-4)
    # The image points of who was not seen are old.
    moved = people.poses2d_px + np.array([[[0, 0]], [[300, 40]]])
    people = dataclasses.replace(people, poses2d_px=moved, seen=np.array([True, False]))
    depths_mm = fitted_depths(in_another_frame(people))
    np.testing.assert_allclose(depths_mm, people.poses3d_mm[..., 2], rtol=1e-3)


def test_in_the_frame_of_the_camera_z_is_used_in_spite_of_distortion():
    people = projected(people_with_limbs((300, 0, 2500)), (-0.3, 0.1, 0, 0, 0))
    np.testing.assert_array_equal(fitted_depths(people), people.poses3d_mm[..., 2])
    depths_mm = fitted_depths(in_another_frame(people))
    ratios = depths_mm / people.poses3d_mm[..., 2]
    np.testing.assert_allclose(ratios / ratios.mean(), 1, atol=0.05)


def test_depths_are_equal_if_the_lines_of_sight_are_parallel():
    people = in_another_frame(people_with_limbs((0, 0, 3000)))
    people = dataclasses.replace(people, poses2d_px=0.1 * people.poses3d_mm[..., :2])
    depths_mm = fitted_depths(people)
    np.testing.assert_allclose(depths_mm / depths_mm.mean(), 1, atol=1e-3)


@pytest.mark.parametrize('kind', ['zero', 'random', 'one point', 'few'])
def test_other_image_points_have_no_depths(kind):
    people = in_another_frame(projected(people_with_limbs((0, 0, 3000))))
    changes = {
        'zero': {'poses2d_px': np.zeros((1, 33, 2))},
        'random': {'poses2d_px': np.random.default_rng(0).uniform(0, 1000, (1, 33, 2))},
        'one point': {'poses3d_mm': np.full((1, 33, 3), 1e9)},
        'few': {name: getattr(people, name)[:, :11] for name in ('poses3d_mm', 'poses2d_px')},
    }[kind]
    if kind == 'few':
        changes['joint_confidence'] = people.joint_confidence[:, :11]
    assert fitted_depths(dataclasses.replace(people, **changes)) is None
