"""Virtual cameras point at their target."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.virtual_cameras import look_at

coordinates = st.floats(-1, 1)
vectors = st.tuples(coordinates, coordinates, coordinates)


@given(forward=vectors.filter(lambda v: np.linalg.norm(v) > 0.1), up=vectors)
def test_look_at_returns_a_rotation_towards_the_target(forward, up):
    rotation = look_at(np.array([forward]), np.array(up))[0]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    target = rotation @ (np.array(forward) / np.linalg.norm(forward))
    np.testing.assert_allclose(target, (0, 0, 1), atol=1e-9)
