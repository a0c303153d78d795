"""The ground plane as a cue of the person scale."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.people import People
from metrabs_ros.placement.ground_plane import ANKLE_HEIGHT_MM, GroundPlane, observe_ground
from metrabs_ros.skeletons.conventions import COCO_17, Skeleton

ANKLES = [15, 16]
LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From the optical frame of a level camera to a frame with z up and x forward."""


def person(ankles_mm: np.ndarray, **fields: np.ndarray) -> People:
    """Return a person with ankles [2, 3] in the camera frame."""
    poses_mm = np.zeros((1, 17, 3)) + np.array([0, 0, 3000.0])
    poses_mm[0, ANKLES] = ankles_mm
    people = People(
        skeleton=COCO_17,
        boxes_px=np.zeros((1, 4)),
        confidence=np.ones(1),
        poses3d_mm=poses_mm,
        poses2d_px=np.zeros((1, 17, 2)),
        joint_confidence=np.full((1, 17), 0.9),
        in_view=np.ones((1, 17), bool),
        ids=np.zeros(1, np.int64),
    )
    return dataclasses.replace(people, **fields)


@given(
    st.floats(300, 2000),
    st.floats(-0.6, 0.6),
    st.floats(-0.3, 0.3),
    st.floats(0.6, 1.3),
    st.floats(1500, 9000),
)
def test_a_foot_on_the_floor_yields_the_factor(
    height_mm: float, tilt: float, roll: float, factor: float, distance_mm: float
) -> None:
    cos, sin = np.cos(tilt), np.sin(tilt)
    tilted = LEVEL @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    cos, sin = np.cos(roll), np.sin(roll)
    rotation = tilted @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    position_mm = np.array([500.0, -200.0, height_mm + 70])
    plane = GroundPlane.from_transform(rotation, position_mm, 70.0)
    sole_mm = position_mm + np.array([distance_mm, 100.0, 0])
    sole_mm[2] = 70 + factor * ANKLE_HEIGHT_MM
    true_mm = (sole_mm - position_mm) @ rotation
    own = observe_ground(person(np.stack([true_mm, true_mm]) / factor), plane)
    np.testing.assert_allclose(own.log_factor, np.log(factor), atol=1e-9)


def test_a_raised_foot_yields_a_larger_factor() -> None:
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, 1000.0]))
    ankles_mm = np.array([[0, 1000 - ANKLE_HEIGHT_MM, 3000], [0, 800.0, 3000]])
    left, right = observe_ground(person(ankles_mm), plane).log_factor[0]
    assert left == pytest.approx(0)
    assert right > 0.1


def test_a_fast_foot_is_probably_not_on_the_floor() -> None:
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, 1000.0]))
    velocities = np.zeros((1, 17, 3))
    velocities[0, 16, 2] = 3000.0
    ankles_mm = np.array([[0, 900.0, 3000], [0, 900.0, 3000]])
    own = observe_ground(person(ankles_mm, velocities_mm_s=velocities), plane)
    assert own.probability[0, 1] < 0.1 < own.probability[0, 0]


@pytest.mark.parametrize(
    'fields',
    [
        {'seen': np.zeros(1, bool)},
        {'in_view': np.zeros((1, 17), bool)},
        {'joint_confidence': np.full((1, 17), 0.3)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_feet_that_are_not_visible_are_not_used(fields: dict[str, np.ndarray]) -> None:
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, 1000.0]))
    ankles_mm = np.array([[0, 900.0, 3000], [0, 900.0, 3000]])
    assert np.isnan(observe_ground(person(ankles_mm, **fields), plane).log_factor).all()


@pytest.mark.parametrize('height_mm', [100.0, -500.0])
def test_a_camera_on_the_floor_or_below_yields_nothing(height_mm: float) -> None:
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, height_mm]))
    ankles_mm = np.array([[0, 900.0, 3000], [0, 900.0, 3000]])
    assert np.isnan(observe_ground(person(ankles_mm), plane).log_factor).all()


def test_feet_at_the_height_of_the_camera_are_not_used() -> None:
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, 1000.0]))
    ankles_mm = np.array([[0, 10.0, 3000], [0, -300.0, 3000]])
    assert np.isnan(observe_ground(person(ankles_mm), plane).log_factor).all()


def test_skeletons_without_ankles_yield_nothing() -> None:
    head = Skeleton('head', ('nose', 'left_eye'), ((0, 1),)).within(COCO_17)
    people = person(np.array([[0, 900.0, 3000], [0, 900.0, 3000]])).in_convention(head)
    plane = GroundPlane.from_transform(LEVEL, np.array([0, 0, 1000.0]))
    own = observe_ground(people, plane)
    assert own.log_factor.shape == (1, 2)
    assert np.isnan(own.log_factor).all()
