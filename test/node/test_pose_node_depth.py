"""Depth images determine the distances of people; the tests share one node."""

from __future__ import annotations

import array
import collections

import numpy as np
import pytest
from depth_messages import message_of
from robots import call, pose_node, wait_for
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from test_pose_node_known import status
from test_pose_node_scale import (
    DISTANCE_M,
    FACTOR,
    PERIOD_S,
    SHAPE,
    TOLERANCE_M,
    DepthCamera,
    Person,
    assert_no_image_was_dropped,
    distance_m,
    send,
    send_several,
    send_with_depth,
)

from metrabs_ros.msg import Skeleton


@pytest.fixture(scope='module')
def shared_node():
    """Yield a node that subscribes to depth images, a robot and its depth camera."""
    with pose_node(Person(), depth_transport='raw') as (node, robot):
        yield node, robot, DepthCamera(node, robot)


class DepthStream:
    """A stream without tracks, later than those of earlier tests with the shared node."""

    def __init__(self, node, robot, depth):
        assert call(robot, Trigger, 'pose/reset')[0].success
        self.node, self.robot, self.depth = node, robot, depth
        self.time_s = 1000.0 * robot.sent + 1000.0
        self._before = collections.Counter(node.statistics.fallbacks.counts())

    def send(self, count=12, **options):
        """Publish a depth image before each image; return the last person."""
        skeleton, self.time_s = send_with_depth(
            self.robot, self.depth, self.time_s, count, **options
        )
        return skeleton

    def fallbacks(self):
        """Return the number of fallbacks in this test, by cause."""
        return dict(collections.Counter(self.node.statistics.fallbacks.counts()) - self._before)


@pytest.fixture
def stream(shared_node):
    stream = DepthStream(*shared_node)
    yield stream
    assert_no_image_was_dropped(stream.node)


def test_depth_images_determine_the_distance(stream):
    before = int(status(stream.robot)[1].get('scaled by depth_image', 0))
    skeleton = stream.send()
    assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
    assert skeleton.scale_source == Skeleton.SCALE_DEPTH_IMAGE
    assert stream.fallbacks() == {}
    assert int(status(stream.robot)[1]['scaled by depth_image']) - before == 12


ENCODINGS = {
    'metres': lambda depth_m: message_of(depth_m, '32FC1'),
    'big endian with padding': lambda depth_m: message_of(1000 * depth_m, '16UC1', True, 10),
    'metres with invalid pixels': lambda depth_m: message_of(
        np.where(np.indices(depth_m.shape).sum(axis=0) % 4, depth_m, np.nan), '32FC1'
    ),
}


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_other_encodings_are_used(stream, encoding):
    skeleton = stream.send(message=ENCODINGS[encoding](stream.depth.depth_m()))
    assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
    assert stream.fallbacks() == {}


UNUSABLE = {
    'not registered': (
        'depth not registered',
        'with the node register of depth_image_proc',
        {'frame_id': 'depth_optical_frame'},
    ),
    'encoding': (
        'depth encoding',
        "encoding 'rgb8'",
        {'message': Image(height=1, width=1, step=3, encoding='rgb8', data=[0] * 3)},
    ),
    'truncated': (
        'depth data',
        '100 bytes of data',
        {
            'message': Image(
                height=480,
                width=640,
                step=1280,
                encoding='16UC1',
                data=array.array('B', [0] * 100),
            )
        },
    ),
    'empty': ('depth data', '0 x 0 pixels', {'message': Image(encoding='16UC1')}),
}


@pytest.mark.parametrize('name', UNUSABLE)
def test_unusable_depth_images_are_fallbacks_and_people_are_published(stream, name):
    cause, explanation, options = UNUSABLE[name]
    skeleton = stream.send(3, **options)
    assert skeleton.scale_source == Skeleton.SCALE_NETWORK
    assert distance_m(skeleton) == pytest.approx(DISTANCE_M, abs=1e-3)
    assert stream.fallbacks() == {cause: 3}
    assert explanation in status(stream.robot)[1][f'explanation: {cause}']
    # Usable depth images are used at once.
    skeleton = stream.send()
    assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)


def test_depth_images_without_valid_pixels_do_not_change_people(stream):
    for value in (np.nan, 0.0, np.inf, -1.0):
        message = message_of(np.full(SHAPE, value, np.float32), '32FC1')
        skeleton = stream.send(3, message=message)
        assert distance_m(skeleton) == pytest.approx(DISTANCE_M, abs=1e-3)
        assert skeleton.scale_source == Skeleton.SCALE_NETWORK
    assert stream.fallbacks() == {}


def test_depth_images_at_another_rate_are_used_for_the_nearest_images(stream):
    for i in range(40):
        time_s = stream.time_s + i / 30
        # At 10 Hz, with other stamps than the images.
        if i % 3 == 0:
            stream.depth.send(time_s + 0.012)
        (skeleton,) = send(stream.robot, time_s).skeletons
    assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
    assert stream.fallbacks() == {}


def test_the_scale_is_kept_after_depth_images_stop_which_is_a_fallback(stream, monkeypatch):
    monkeypatch.setattr('metrabs_ros.node.depth_input.MAX_GAP_S', 0.05)
    stream.send()
    assert stream.fallbacks() == {}
    time_s = stream.time_s
    for _ in range(3):
        skeleton, time_s = send_several(stream.robot, time_s + PERIOD_S, 3)
        assert distance_m(skeleton) == pytest.approx(FACTOR * DISTANCE_M, abs=TOLERANCE_M)
    wait_for(lambda: send(stream.robot, time_s) and stream.fallbacks().get('no depth image'))
    explanation = status(stream.robot)[1]['explanation: no depth image']
    assert 's before that of the image; at most 0.05 s are allowed' in explanation
