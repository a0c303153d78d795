"""CameraInfo messages become cameras, or say why not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo

from metrabs_ros.camera import Camera
from metrabs_ros.node.cameras import to_camera
from metrabs_ros.node.drops import UnusableInput

SHAPE = (480, 640, 3)
K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def info(**fields):
    return CameraInfo(**{'height': 480, 'width': 640, 'k': K, **fields})


def test_intrinsics_and_distortion_are_taken_over():
    camera = to_camera(
        info(d=[0.1, -0.2, 0.001, 0.002, 0.05], distortion_model='plumb_bob'), SHAPE
    )
    np.testing.assert_array_equal(camera.intrinsic_matrix.reshape(-1), K)
    np.testing.assert_array_equal(camera.distortion_coeffs, (0.1, -0.2, 0.001, 0.002, 0.05))


@pytest.mark.parametrize('length', [0, 4, 5, 8, 12, 14])
def test_all_lengths_of_opencv_are_taken(length):
    d = [0.01] * min(length, 12) + [0.0] * max(0, length - 12)
    assert len(to_camera(info(d=d), SHAPE).distortion_coeffs) == min(length, 12)


@pytest.mark.parametrize(
    ('fields', 'cause', 'says'),
    [
        ({'k': [0.0] * 9}, 'camera not calibrated', 'calibrate it'),
        ({'width': 320}, 'camera_info size', '640 x 480 pixels, but its camera_info is for 320'),
        ({'distortion_model': 'equidistant'}, 'lens model', "'equidistant'"),
        ({'k': [np.nan] * 9}, 'camera_info', 'not finite'),
        ({'k': [-500.0, *K[1:]]}, 'camera_info', 'focal lengths -500'),
        ({'d': [0.1, 0.2, 0.3]}, 'camera_info', 'has 3 values'),
        ({'d': [0.0] * 13 + [0.1]}, 'camera_info', 'has 14 values'),
    ],
)
def test_what_is_no_camera_says_why(fields, cause, says):
    with pytest.raises(UnusableInput, match=says) as caught:
        to_camera(info(**fields), SHAPE)
    assert caught.value.cause == cause


def test_a_camera_info_without_size_is_for_any_image():
    assert to_camera(info(width=0, height=0), SHAPE)


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    k=st.lists(anything, min_size=9, max_size=9),
    d=st.lists(anything, max_size=15),
    width=st.integers(0, 2**32 - 1),
    model=st.sampled_from(['plumb_bob', 'rational_polynomial', '', 'fisheye']),
)
def test_any_camera_info_gives_a_camera_or_a_reason(k, d, width, model):
    message = CameraInfo(width=width, height=480, k=k, d=d, distortion_model=model)
    try:
        camera = to_camera(message, (480, width or 1, 3))
    except UnusableInput:
        return
    assert isinstance(camera, Camera)
    assert np.isfinite(camera.intrinsic_matrix).all()
