"""For any input, the node continues, publishes finite values, and counts dropped frames."""

from __future__ import annotations

import array
import math
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_people import KnownPeople
from robots import BLACK, pose_node, wait_for
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from test_people import people_at

from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node.frame_preparation import Frame
from metrabs_ros.node.synchronisation import SynchronisedImage
from metrabs_ros.pose_estimator import Poses

PAIRS = 100
"""Number of messages that are sent over DDS."""
PREPARED_PAIRS = 2000
ENCODINGS = (
    *('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '8UC3', '16UC1', '32FC1'),
    *('bayer_rggb8', 'bayer_gbrg16', 'yuv422', 'yuv422_yuy2', 'nv21', 'nv24', '', 'no such'),
)
LENSES = ('plumb_bob', 'rational_polynomial', 'equidistant', '', 'no such')

any_number = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, 60.0, 80.0, 500.0, -500.0, 1e-300, 1e300]),
)
focal = st.one_of(any_number, st.floats(10, 1000))
stamps = st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 999_999_999))
sizes = st.one_of(st.integers(0, 40), st.just(2**32 - 1))


FIELDS = (
    *('frame', 'encoding', 'size', 'step', 'data', 'order', 'k', 'd', 'p', 'lens'),
    *('info size', 'binning', 'roi'),
)
CHANNELS = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, 'mono16': 2, '16UC1': 2}
K = [100.0, 0.0, 16.0, 0.0, 100.0, 12.0, 0.0, 0.0, 1.0]
RANDOM_K = st.tuples(focal, any_number, focal, any_number).map(
    lambda f: [f[0], 0.0, f[1], 0.0, f[2], f[3], 0.0, 0.0, 1.0]
)


@st.composite
def pairs(draw):
    """Return an image and its camera_info with up to four random fields."""
    invalid_fields = draw(st.sets(st.sampled_from(FIELDS), max_size=4))

    def choose(field, right, strategy):
        return draw(strategy) if field in invalid_fields else right

    image, info = Image(), CameraInfo()
    image.header.stamp = info.header.stamp = draw(stamps)
    image.header.frame_id = choose('frame', 'camera', st.sampled_from(['', '/x y', 'map']))
    image.encoding = choose('encoding', 'rgb8', st.sampled_from(ENCODINGS))
    image.width, image.height = choose('size', (32, 24), st.tuples(sizes, sizes))
    channels = CHANNELS.get(image.encoding, 1)
    fitting = channels * min(image.width, 100)
    image.step = choose('step', fitting, st.one_of(st.integers(0, 200), st.just(2**32 - 1)))
    length = min(image.step, 400) * min(image.height, 100)
    length = choose('data', length, st.one_of(st.integers(0, 2000), st.just(0)))
    image.data = array.array('B', bytes(length))
    image.is_bigendian = choose('order', 0, st.just(1))
    info.k = choose('k', K, st.one_of(RANDOM_K, st.lists(any_number, min_size=9, max_size=9)))
    info.d = choose('d', [], st.lists(any_number, max_size=15))
    info.p = choose('p', [0.0] * 12, st.lists(any_number, min_size=12, max_size=12))
    info.distortion_model = choose('lens', 'plumb_bob', st.sampled_from(LENSES))
    info.width, info.height = choose(
        'info size',
        (image.width, image.height),
        st.one_of(st.just((0, 0)), st.just((640, 480)), st.tuples(sizes, sizes)),
    )
    info.binning_x = choose('binning', 0, st.sampled_from([1, 2, 2**32 - 1]))
    regions = st.builds(
        RegionOfInterest, x_offset=sizes, y_offset=sizes, height=sizes, width=sizes
    )
    info.roi = choose('roi', RegionOfInterest(), regions)
    return image, info


class ProjectedPeople(KnownPeople):
    """Model that projects people with the camera, so that its image points may not be finite."""

    def poses_of(self, view, options):
        poses_mm = people_at((0.0, 0.0, 3000.0)).poses3d_mm
        with np.errstate(all='ignore'):
            poses_px = view.camera.project(poses_mm)
        return Poses(np.array([[0.0, 0, 5, 5]]), np.ones(1), poses_mm[:, None], poses_px[:, None])


@pytest.fixture(scope='module')
def fuzzed():
    with pose_node(ProjectedPeople(), tf='joints', max_detections=5) as (node, robot):
        yield node, robot


def is_finite(value):
    """Return whether all numbers in a message are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple | array.array | np.ndarray):
        return all(map(is_finite, value))
    if hasattr(value, 'get_fields_and_field_types'):
        return all(is_finite(getattr(value, name)) for name in value.get_fields_and_field_types())
    return True


@settings(
    max_examples=PAIRS, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(pair=pairs())
def test_any_image_and_camera_info_is_processed_or_counted_as_dropped(fuzzed, pair):
    node, robot = fuzzed
    image, info = pair

    def finished():
        return node.statistics.counters.processed + sum(node.statistics.drops.counts().values())

    before, images = finished(), node.statistics.counters.images
    robot.skeletons.clear()
    robot.infos.publish(info)
    robot.images.publish(image)
    wait_for(lambda: node.statistics.counters.images == images + 1)
    wait_for(lambda: finished() == before + 1)
    assert all(map(is_finite, robot.skeletons))
    assert not any(cause.startswith('failed') for cause in node.statistics.drops.counts()), (
        node.statistics.drops.counts()
    )


@settings(
    max_examples=PREPARED_PAIRS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(pair=pairs())
def test_any_image_and_camera_info_is_prepared_or_rejected_with_a_cause(fuzzed, pair):
    node, _ = fuzzed
    image, info = pair
    now_s = time.monotonic()
    frame = Frame('', SynchronisedImage(image, info, None, now_s, now_s))
    prepared = reason = None
    try:
        prepared = node._streams[''].prepare(frame, node.settings)
    except UnusableInput as error:
        reason = error
    if prepared is None:
        assert reason.cause
        assert str(reason).isprintable()
        return
    view = prepared.timed_view.view
    assert view.image.ndim == 3
    assert np.isfinite(view.camera.intrinsic_matrix).all()
    assert np.isfinite(prepared.timed_view.stamp_s)


def test_valid_images_are_processed_after_the_fuzzing(fuzzed):
    node, robot = fuzzed
    robot.sent = 2**31 - 10
    assert robot.receive(robot.send(BLACK)).skeletons
    assert all(map(is_finite, robot.markers[-5:]))
    # There were valid and invalid inputs.
    assert sum(node.statistics.drops.counts().values()) > PAIRS / 4
    assert node.statistics.counters.processed > PAIRS / 5
