"""Whatever comes in, the node lives on, publishes no nonsense, and counts what it refuses."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from robots import BLACK, KnownPeople, pose_node, wait_for
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from test_people import people_at

from metrabs_ros.estimator import Poses

PAIRS = 2000
ENCODINGS = (
    *('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '8UC3', '16UC1', '32FC1'),
    *('bayer_rggb8', 'bayer_gbrg16', 'yuv422', 'yuv422_yuy2', 'nv21', 'nv24', '', 'no such'),
)
LENSES = ('plumb_bob', 'rational_polynomial', 'equidistant', '', 'no such')

wild = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, 60.0, 80.0, 500.0, -500.0, 1e-300, 1e300]),
)
focal = st.one_of(wild, st.floats(10, 1000))
stamps = st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 999_999_999))
sizes = st.one_of(st.integers(0, 40), st.just(2**32 - 1))


@st.composite
def pairs(draw):
    """Return an image and its camera_info, often nearly right."""
    stamp = draw(stamps)
    image, info = Image(), CameraInfo()
    image.header.stamp = info.header.stamp = stamp
    image.header.frame_id = draw(st.sampled_from(['camera', '', '/x y', 'map']))
    image.encoding = draw(st.sampled_from(ENCODINGS))
    width, height = draw(sizes), draw(sizes)
    image.width, image.height = width, height
    channels = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4}.get(image.encoding, 1)
    fitting = channels * width if width < 100 else 0
    image.step = draw(st.one_of(st.just(fitting), st.integers(0, 200), st.just(2**32 - 1)))
    length = fitting * height if height < 100 else 0
    length = draw(st.one_of(st.just(length), st.integers(0, 2000), st.just(0)))
    image.data = array.array('B', bytes(length))
    image.is_bigendian = draw(st.integers(0, 1))
    k = [draw(focal), 0.0, draw(wild), 0.0, draw(focal), draw(wild), 0.0, 0.0, 1.0]
    info.k = draw(st.one_of(st.just(k), st.lists(wild, min_size=9, max_size=9)))
    info.d = draw(st.lists(wild, max_size=15))
    info.p = draw(st.lists(wild, min_size=12, max_size=12))
    info.distortion_model = draw(st.sampled_from(LENSES))
    info.width, info.height = draw(st.sampled_from([(width, height), (0, 0), (640, 480)]))
    info.binning_x = draw(st.sampled_from([0, 1, 2, 2**32 - 1]))
    info.roi = draw(
        st.builds(RegionOfInterest, x_offset=sizes, y_offset=sizes, height=sizes, width=sizes)
    )
    return image, info


class SeenPeople(KnownPeople):
    """People whose image points go through the camera, and so have all its nonsense."""

    def find_people(self, image, camera, options):
        poses_mm = people_at((0.0, 0.0, 3000.0)).poses3d_mm
        with np.errstate(all='ignore'):
            poses_px = camera.project(poses_mm)
        return Poses(np.array([[0.0, 0, 5, 5]]), np.ones(1), poses_mm[:, None], poses_px[:, None])


@pytest.fixture(scope='module')
def fuzzed():
    with pose_node(SeenPeople(), tf='joints', max_detections=5) as (node, robot):
        yield node, robot


def finite(value):
    """Tell whether all numbers in a message are."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple | array.array | np.ndarray):
        return all(map(finite, value))
    if hasattr(value, 'get_fields_and_field_types'):
        return all(finite(getattr(value, name)) for name in value.get_fields_and_field_types())
    return True


@settings(
    max_examples=PAIRS, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(pair=pairs())
def test_any_pair_is_worked_on_or_counted(fuzzed, pair):
    node, robot = fuzzed
    image, info = pair

    def settled():
        return node.tally.worked_on + sum(node.drops.counts().values())

    before, images = settled(), node.tally.images
    robot.skeletons.clear()
    robot.infos.publish(info)
    robot.images.publish(image)
    wait_for(lambda: node.tally.images == images + 1)
    wait_for(lambda: settled() == before + 1)
    assert all(map(finite, robot.skeletons))
    assert not any(cause.startswith('failed') for cause in node.drops.counts()), (
        node.drops.counts()
    )


def test_after_all_that_it_still_works(fuzzed):
    node, robot = fuzzed
    robot.sent = 2**31 - 10
    assert robot.answer_to(robot.send(BLACK)).skeletons
    assert all(map(finite, robot.markers[-5:]))
    # Both kinds were among them.
    assert sum(node.drops.counts().values()) > PAIRS / 4
    assert node.tally.worked_on > PAIRS / 40
