"""A known stature as a cue of the person scale."""

import numpy as np
import pytest
import scaled_people

from metrabs_ros.placement.stature import has_whole_body, observe_stature


def test_the_factor_is_the_ratio_of_the_statures() -> None:
    own = observe_stature(np.array([1700.0, 2000.0, np.nan]), 1700.0)
    np.testing.assert_allclose(own.log_factor[:, 0], [0, np.log(0.85), np.nan])


@pytest.mark.filterwarnings('error')
def test_poses_without_extent_have_no_factor() -> None:
    assert np.isnan(observe_stature(np.array([0.0]), 1700.0).log_factor).all()


def test_bodies_with_hidden_joints_are_not_whole() -> None:
    rng = np.random.default_rng(0)
    scene = scaled_people.Scene.random(scaled_people.stand, rng)
    people = scaled_people.Network(rng, 30.0)(scene, 0.0)
    people.in_view[:] = True
    people.joint_confidence[:] = 0.9
    assert has_whole_body(people).all()
    people.joint_confidence[0, scaled_people.JOINTS['left_knee']] = 0.2
    assert not has_whole_body(people).any()
