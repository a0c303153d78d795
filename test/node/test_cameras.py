"""CameraInfo messages become cameras, or say why not."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from metrabs_ros.camera import Camera
from metrabs_ros.messages.cameras import to_camera
from metrabs_ros.messages.unusable import UnusableInput
from metrabs_ros.node.calibrations import Calibrations

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
        ({'distortion_model': 'mirror'}, 'lens model', "'mirror'"),
        ({'k': [np.nan] * 9}, 'camera_info', 'not finite'),
        ({'k': [-500.0, *K[1:]]}, 'camera_info', 'focal lengths -500'),
        ({'d': [0.1, 0.2, 0.3]}, 'camera_info', 'has 3 values'),
        ({'d': [0.0] * 13 + [0.1]}, 'lens model', 'tilted sensor'),
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


POINT_MM = np.array([300.0, -200, 2000])


def seen(camera):
    """Return where a camera sees a point."""
    return camera.project(POINT_MM)


def test_a_rectified_image_has_the_intrinsics_of_p_and_no_distortion():
    p = [450.0, 0, 310, 0, 0, 450, 235, 0, 0, 0, 1, 0]
    camera = to_camera(info(p=p, d=[0.1] * 5, distortion_model='no such'), SHAPE, rectified=True)
    np.testing.assert_array_equal(
        camera.intrinsic_matrix, [[450, 0, 310], [0, 450, 235], [0, 0, 1]]
    )
    assert not len(camera.distortion_coeffs)
    with pytest.raises(UnusableInput, match='P is all zeros'):
        to_camera(info(), SHAPE, rectified=True)


def test_a_fisheye_lens_is_one():
    camera = to_camera(info(d=[0.1, 0, 0, 0], distortion_model='equidistant'), SHAPE)
    assert camera.fisheye
    assert camera.distortion_coeffs.tolist() == [0.1, 0, 0, 0]


@pytest.mark.parametrize(('shape', 'factor'), [((240, 320, 3), 0.5), ((960, 1280, 3), 2)])
def test_a_resized_image_shows_things_at_the_same_share_of_it(shape, factor):
    whole, resized = seen(to_camera(info(), SHAPE)), seen(to_camera(info(), shape))
    np.testing.assert_allclose(resized + 0.5, factor * (whole + 0.5))


def test_a_binned_image_shows_things_at_the_same_share_of_it():
    binned = to_camera(info(binning_x=2, binning_y=4), (120, 320, 3))
    np.testing.assert_allclose(seen(binned) + 0.5, (seen(to_camera(info(), SHAPE)) + 0.5) / (2, 4))


def test_a_region_of_interest_is_a_part_of_the_sensor():
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=200)
    camera = to_camera(info(roi=roi), (200, 320, 3))
    np.testing.assert_allclose(seen(camera), seen(to_camera(info(), SHAPE)) - (100, 40))
    binned = to_camera(info(roi=roi, binning_x=2, binning_y=2), (100, 160, 3))
    np.testing.assert_allclose(seen(binned) + 0.5, (seen(camera) + 0.5) / 2)
    with pytest.raises(UnusableInput, match='is for 320 x 200'):
        to_camera(info(roi=roi), SHAPE)


def stamped(nanosec):
    return CameraInfo(header=Header(stamp=Time(nanosec=nanosec)))


def test_an_image_gets_its_own_camera_info_even_if_it_comes_a_little_later():
    calibrations = Calibrations()
    calibrations.put(stamped(1))
    late = threading.Timer(0.03, calibrations.put, [stamped(2)])
    late.start()
    assert calibrations.wait_for(Time(nanosec=2)).header.stamp.nanosec == 2
    assert calibrations.wait_for(Time(nanosec=1)).header.stamp.nanosec == 1


def test_where_only_one_ever_came_it_holds_and_is_waited_for_only_once():
    calibrations = Calibrations()
    calibrations.put(stamped(1))
    calibrations.wait_for(Time(nanosec=5))
    start_s = time.monotonic()
    for nanosec in range(6, 30):
        assert calibrations.wait_for(Time(nanosec=nanosec)).header.stamp.nanosec == 1
    assert time.monotonic() - start_s < 0.05


def test_where_none_came_there_is_none():
    assert Calibrations().wait_for(Time()) is None
