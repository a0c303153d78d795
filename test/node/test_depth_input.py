"""Any depth message yields a depth image or an explanation."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from depth_messages import DEPTH_MM, compressed, message_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from test_cameras import camera_infos

from metrabs_ros.camera import Camera
from metrabs_ros.node import depth_input
from metrabs_ros.node.depth_input import DepthInput
from metrabs_ros.node.settings import Settings
from metrabs_ros.options import View

VIEW = View(np.zeros((2, 3, 3), np.uint8), Camera.from_fov(60, (2, 3)))
HEADER = Header(stamp=Time(sec=5), frame_id='camera')
SETTINGS = Settings()


class Rig:
    """Input of depth images, with the reports and the serialised messages."""

    def __init__(self, kind=Image):
        self.reports = []
        self.input = DepthInput(kind, lambda *report: self.reports.append(report))
        self.input.topic, self.input.info_topic = '/depth', '/depth/camera_info'

    def prepare(self, serialised, header=HEADER, view=VIEW):
        self.input.buffer.add(serialised)
        return self.input.prepare(self.input.take_for(header), view, header, SETTINGS)


def serialised(message, frame_id='camera', sec=5, nanosec=0):
    message.header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
    return serialize_message(message)


def test_a_depth_image_of_the_same_size_has_the_camera_of_the_image():
    rig = Rig()
    depth = rig.prepare(serialised(message_of(DEPTH_MM, '16UC1')))
    np.testing.assert_array_equal(depth.depth_mm, DEPTH_MM)
    assert depth.camera is VIEW.camera
    assert rig.reports == []


def test_a_depth_image_of_several_images_is_decoded_once(monkeypatch):
    rig, decoded = Rig(), []
    to_depth = depth_input.to_depth
    monkeypatch.setattr(
        depth_input, 'to_depth', lambda *own: decoded.append(own) or to_depth(*own)
    )
    message = serialised(message_of(DEPTH_MM, '16UC1'))
    rig.input.buffer.add(message)
    for nanosec in (0, 20_000_000, 40_000_000):
        header = Header(stamp=Time(sec=5, nanosec=nanosec), frame_id='camera')
        depth = rig.input.prepare(rig.input.take_for(header), VIEW, header, SETTINGS)
        assert depth is not None
    assert len(decoded) == 1


def test_images_between_depth_images_are_not_reported():
    rig = Rig()
    assert rig.prepare(serialised(message_of(DEPTH_MM, '16UC1'))) is not None
    header = Header(stamp=Time(sec=5, nanosec=60_000_000), frame_id='camera')
    message = rig.input.take_for(header)
    assert rig.input.prepare(message, VIEW, header, SETTINGS) is None
    assert rig.reports == []


@pytest.mark.parametrize(
    ('frame_id', 'is_used'), [('', True), ('/camera', True), ('depth', False)]
)
def test_depth_images_of_other_frames_are_not_used(frame_id, is_used):
    rig = Rig()
    depth = rig.prepare(serialised(message_of(DEPTH_MM, '16UC1'), frame_id))
    assert (depth is not None) is is_used
    expected = [] if is_used else ['depth not registered']
    assert [cause for cause, _ in rig.reports] == expected


def test_oversized_messages_are_rejected_without_deserialising_them():
    rig = Rig()
    start_s = time.process_time()
    header = serialised(Image())[:12]
    assert rig.prepare(header + bytes(70 * 1024**2)) is None
    ((cause, explanation),) = rig.reports
    assert cause == 'depth data'
    assert '73400332 bytes; up to 67108864 bytes' in explanation
    assert time.process_time() - start_s < 1


sizes = st.sampled_from([0, 1, 2, 3, 6, 12, 2**31, 2**32 - 1])


@st.composite
def depth_messages(draw):
    """Return a serialised message, sometimes damaged."""
    message = message_of(DEPTH_MM, draw(st.sampled_from(['16UC1', '32FC1'])))
    if draw(st.booleans()):
        message.width, message.height = draw(sizes), draw(sizes)
    if draw(st.booleans()):
        message.step = draw(sizes)
    if draw(st.booleans()):
        message.data = array.array('B', draw(st.binary(max_size=30)))
    if draw(st.integers(0, 4)) == 0:
        message.encoding = draw(st.text(max_size=10))
    data = serialised(message, draw(st.sampled_from(['camera', '', 'depth', 'x' * 1000])))
    return _damaged(draw, data)


def _damaged(draw, data):
    if draw(st.integers(0, 3)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    if draw(st.integers(0, 3)) == 0 and len(data) > 20:
        position = draw(st.integers(12, len(data) - 4))
        data = data[:position] + draw(st.binary(min_size=4, max_size=4)) + data[position + 4 :]
    return data


@settings(max_examples=400)
@given(data=depth_messages(), info=st.none() | camera_infos())
@pytest.mark.filterwarnings('error')
def test_any_depth_image_is_used_or_reported(data, info):
    rig = Rig()
    if info is not None:
        rig.input.add_info(info)
    depth = rig.prepare(data)
    if depth is None:
        ((cause, explanation),) = rig.reports
        assert len(cause) < 60
        assert explanation.isprintable()
        assert len(explanation) < 700
    else:
        assert rig.reports == []
        assert depth.depth_mm.ndim == 2


@settings(max_examples=200)
@given(draw=st.data(), encoding=st.sampled_from(['16UC1', '32FC1']))
def test_any_compressed_depth_image_is_used_or_reported(draw, encoding):
    rig = Rig(CompressedImage)
    message = compressed(DEPTH_MM, f'{encoding}; compressedDepth png')
    depth = rig.prepare(_damaged(draw.draw, serialised(message)))
    assert (depth is None) == (len(rig.reports) == 1)


def test_an_oversized_camera_info_is_ignored():
    rig = Rig()
    rig.input.add_info(CameraInfo(d=[0.0] * 200))
    assert not rig.input.has_info
