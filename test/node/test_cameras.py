"""CameraInfo messages are converted to cameras or rejected with a reason."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.options import Options, View

SHAPE = (480, 640, 3)
K = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]


def info(**fields):
    return CameraInfo(**{'height': 480, 'width': 640, 'k': K, **fields})


def test_intrinsics_and_distortion_are_converted():
    camera = to_camera(
        info(d=[0.1, -0.2, 0.001, 0.002, 0.05], distortion_model='plumb_bob'), SHAPE
    )
    np.testing.assert_array_equal(camera.intrinsic_matrix.reshape(-1), K)
    np.testing.assert_array_equal(camera.distortion_coeffs, (0.1, -0.2, 0.001, 0.002, 0.05))


@pytest.mark.parametrize('length', [0, 4, 5, 8, 12, 14])
def test_all_coefficient_counts_of_opencv_are_accepted(length):
    d = [0.01] * min(length, 12) + [0.0] * max(0, length - 12)
    assert len(to_camera(info(d=d), SHAPE).distortion_coeffs) == min(length, 12)


@pytest.mark.parametrize(
    ('fields', 'cause', 'expected'),
    [
        ({'k': [0.0] * 9}, 'camera not calibrated', 'the package camera_calibration$'),
        ({'width': 320}, 'camera_info size', '640 x 480 pixels, but its camera_info is for 320'),
        ({'distortion_model': 'mirror'}, 'lens model', "'mirror'"),
        ({'k': [np.nan] * 9}, 'camera_info', 'not finite'),
        ({'k': [-500.0, *K[1:]]}, 'camera_info', 'focal lengths -500'),
        ({'d': [0.1, 0.2, 0.3]}, 'camera_info', 'has 3 values'),
        ({'d': [0.0] * 13 + [0.1]}, 'lens model', 'tilted sensor'),
        (
            {'d': [0.0] * 15},
            'lens model',
            '15 distortion coefficients .D., more than',
        ),
    ],
)
def test_invalid_camera_infos_are_rejected_with_cause_and_message(fields, cause, expected):
    with pytest.raises(UnusableInput, match=expected) as caught:
        to_camera(info(**fields), SHAPE)
    assert caught.value.cause == cause


def test_a_camera_info_without_size_applies_to_any_image():
    assert to_camera(info(width=0, height=0), SHAPE)


# Matrices K for which NumPy raises "Singular matrix".
SINGULAR = {
    'fy': [500.0, 0, 320, 0, 1e-9, 240, 0, 0, 1],
    'large and small': [1e200, 0, 320, 0, 1e-200, 240, 0, 0, 1],
    'skew': [500.0, 1e308, 320, 0, 510, 240, 0, 0, 1],
    'below the diagonal': [500.0, 0, 320, 1e154, 510, 240, 0, 0, 1],
}


@pytest.mark.parametrize(
    ('fields', 'expected'),
    [
        *(({'k': k}, 'intrinsic_matrix') for k in SINGULAR.values()),
        ({'k': [1.0, 0, 320, 0, 1, 240, 0, 0, 1]}, 'focal lengths are 1 and 1 pixels in an image'),
        ({'k': [500.0, 0, 1e6, 0, 500, 0, 0, 0, 1]}, r'principal point is 1e\+06, 0'),
        ({'d': [-50.0, 0, 0, 0]}, 'cannot be inverted in'),
        ({'d': [np.nan] * 5}, 'not finite'),
        ({'d': [1e308] * 5}, 'magnitude'),
        ({'roi': RegionOfInterest(x_offset=2**32 - 1, width=640, height=480)}, 'principal point'),
    ],
)
def test_degenerate_camera_infos_are_rejected(fields, expected):
    with pytest.raises(UnusableInput, match=expected) as caught:
        to_camera(info(**fields), SHAPE)
    assert caught.value.cause == 'camera_info'


def test_error_messages_about_long_camera_infos_are_short():
    for fields in ({'d': [0.1] * 50_000}, {'distortion_model': 'x\n' * 5000}):
        with pytest.raises(UnusableInput) as caught:
            to_camera(info(**fields), SHAPE)
        assert len(str(caught.value)) < 500
        assert str(caught.value).isprintable()


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant'])
def test_millions_of_coefficients_are_rejected_quickly(model):
    message = info(d=[0.1] * 5_000_000, distortion_model=model)
    start_s = time.process_time()
    with pytest.raises(UnusableInput, match='5000000 distortion coefficients'):
        to_camera(message, SHAPE)
    assert time.process_time() - start_s < 0.05


anything = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, -1.0, 5e-324, 1e-310, 1e-300, 1e300, 1e-154, 1e154, 1e-9, 1e9]),
    st.floats(-1000, 1000),
)
size_numbers = st.sampled_from([0, 1, 2, 240, 480, 640, 2**32 - 1])
models = st.sampled_from(['plumb_bob', 'rational_polynomial', '', 'fisheye', 'equidistant'])


@st.composite
def camera_infos(draw):
    """Return a camera_info with a few unusual values."""
    message = info(
        p=[500.0, 0, 320, 0, 0, 510, 240, 0, 0, 0, 1, 0],
        d=draw(st.lists(st.floats(-1, 1), max_size=15)),
        distortion_model=draw(models),
    )
    for array in (message.k, message.p, message.r, message.d):
        for index in draw(st.sets(st.integers(0, 11), max_size=2)):
            if index < len(array):
                array[index] = draw(anything)
    if draw(st.booleans()):
        message.width, message.height = draw(size_numbers), draw(size_numbers)
        message.binning_x, message.binning_y = draw(size_numbers), draw(size_numbers)
        roi = message.roi
        roi.x_offset, roi.y_offset = draw(size_numbers), draw(size_numbers)
        roi.width, roi.height = draw(size_numbers), draw(size_numbers)
    return message


@pytest.mark.filterwarnings('error')
@settings(max_examples=1000)
@given(message=camera_infos(), rectified=st.booleans())
def test_any_camera_info_is_converted_or_rejected(message, rectified):
    try:
        camera = to_camera(message, SHAPE, rectified)
    except UnusableInput:
        return
    assert isinstance(camera, Camera)
    corners_px = np.array([[0.0, 0], [639, 479], [639, 0], [0, 479], [320, 240]])
    assert np.isfinite(camera.unproject(corners_px)).all()
    assert np.isfinite(camera.project(np.array([[1e4, -1e4, 10.0], [0, 0, 3000]]))).all()


@pytest.mark.parametrize('k', SINGULAR.values(), ids=SINGULAR)
def test_people_are_not_estimated_with_a_singular_camera(model, street, k):
    image = cv2.resize(street, SHAPE[1::-1])
    with pytest.raises(UnusableInput):
        model.find_people([View(image, to_camera(info(k=k), SHAPE))], Options())


POINT_MM = np.array([300.0, -200, 2000])


def project(camera):
    """Return the projection of a fixed point."""
    return camera.project(POINT_MM)


def test_rectified_images_use_p_without_distortion():
    p = [450.0, 0, 310, 0, 0, 450, 235, 0, 0, 0, 1, 0]
    camera = to_camera(info(p=p, d=[0.1] * 5, distortion_model='no such'), SHAPE, rectified=True)
    np.testing.assert_array_equal(
        camera.intrinsic_matrix, [[450, 0, 310], [0, 450, 235], [0, 0, 1]]
    )
    assert not len(camera.distortion_coeffs)
    with pytest.raises(UnusableInput, match='P is all zeros'):
        to_camera(info(), SHAPE, rectified=True)


def test_the_equidistant_model_gives_a_fisheye_camera():
    camera = to_camera(info(d=[0.1, 0, 0, 0], distortion_model='equidistant'), SHAPE)
    assert camera.fisheye
    assert camera.distortion_coeffs.tolist() == [0.1, 0, 0, 0]


@pytest.mark.parametrize(('shape', 'factor'), [((240, 320, 3), 0.5), ((960, 1280, 3), 2)])
def test_resized_images_have_scaled_projections(shape, factor):
    whole, resized = project(to_camera(info(), SHAPE)), project(to_camera(info(), shape))
    np.testing.assert_allclose(resized + 0.5, factor * (whole + 0.5))


def test_binned_images_have_scaled_projections():
    binned = to_camera(info(binning_x=2, binning_y=4), (120, 320, 3))
    np.testing.assert_allclose(
        project(binned) + 0.5, (project(to_camera(info(), SHAPE)) + 0.5) / (2, 4)
    )


def test_a_region_of_interest_shifts_projections():
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=200)
    camera = to_camera(info(roi=roi), (200, 320, 3))
    np.testing.assert_allclose(project(camera), project(to_camera(info(), SHAPE)) - (100, 40))
    binned = to_camera(info(roi=roi, binning_x=2, binning_y=2), (100, 160, 3))
    np.testing.assert_allclose(project(binned) + 0.5, (project(camera) + 0.5) / 2)
    with pytest.raises(UnusableInput, match='is for 320 x 200'):
        to_camera(info(roi=roi), SHAPE)
