"""Standard deviations along the axes of the camera frame."""

import dataclasses

import numpy as np
import scaled_people

from metrabs_ros.placement.uncertainty import with_axis_std


def test_the_scale_is_uncertain_along_the_line_of_sight() -> None:
    rng = np.random.default_rng(0)
    scene = scaled_people.Scene.random(scaled_people.stand, rng)
    people = scaled_people.Network(rng, 30.0)(scene, 0.0)
    ahead = np.zeros_like(people.poses3d_mm)
    ahead[..., 2] = 4000.0
    people = dataclasses.replace(people, poses3d_mm=ahead)
    certain, uncertain = (with_axis_std(people, std).axis_std_mm for std in (0.0, 0.1))
    np.testing.assert_allclose(certain[..., :2], uncertain[..., :2])
    np.testing.assert_allclose(uncertain[..., 2] ** 2 - certain[..., 2] ** 2, 400.0**2)


def test_hidden_joints_and_undetected_people_are_less_certain() -> None:
    rng = np.random.default_rng(0)
    scene = scaled_people.Scene.random(scaled_people.stand, rng)
    people = scaled_people.Network(rng, 30.0)(scene, 0.0)
    visible = with_axis_std(people).axis_std_mm
    hidden = dataclasses.replace(people, joint_confidence=np.zeros((1, 17)))
    assert (with_axis_std(hidden).axis_std_mm > visible).all()
    assert (with_axis_std(people, motion_std_mm=100.0).axis_std_mm > visible).all()
