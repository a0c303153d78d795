"""Prepared frames tell whether earlier tracks continue in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.logging import get_logger
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node.diagnostics import Statistics
from metrabs_ros.node.frame_preparation import TOPIC_DETECTOR, Frame, FramePreparation
from metrabs_ros.node.ground_lookup import GroundLookup
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.size_limited_subscription import OversizedMessage
from metrabs_ros.node.synchronisation import SynchronisedImage
from metrabs_ros.node.transforms import RigidTransform
from metrabs_ros.tracking.tracker import JUMP_BACK_S

SETTINGS = Settings()
IN_MAP = dataclasses.replace(SETTINGS, world_frame='map')
HEIGHT, WIDTH = 4, 6


class KnownTransforms:
    """Has one transform between any frames, or none."""

    def __init__(self):
        self.transform = RigidTransform(np.eye(3), np.array([0.0, 0.0, 2000.0]))

    def lookup(self, *arguments):
        if self.transform is None:
            raise UnusableInput('no transform', 'it was not received')
        return self.transform


class Rig:
    """The preparation of frames of one camera, with its transforms and statistics."""

    def __init__(self):
        self.transforms = KnownTransforms()
        self.statistics = Statistics(get_logger('test'))
        ground = GroundLookup(self.transforms, lambda *report: None)
        self._preparation = FramePreparation('front', self.transforms, ground, self.statistics)

    def prepare(self, stamp_s, current, detections=None):
        sec = int(stamp_s)
        stamp = Time(sec=sec, nanosec=int(1e9 * (stamp_s - sec)))
        header = Header(stamp=stamp, frame_id='camera')
        image = Image(header=header, height=HEIGHT, width=WIDTH, encoding='rgb8', step=3 * WIDTH)
        image.data = bytes(HEIGHT * image.step)
        info = CameraInfo(header=header, height=HEIGHT, width=WIDTH)
        info.k = [10.0, 0.0, 3.0, 0.0, 10.0, 2.0, 0.0, 0.0, 1.0]
        synchronised = SynchronisedImage(image, info, detections, 0.0, 0.0)
        return self._preparation.prepare(Frame('front', synchronised), None, current)


def test_tracks_restart_in_the_frame_in_which_their_coordinate_frame_changes():
    rig = Rig()
    assert not rig.prepare(1, SETTINGS).restarts_tracks
    assert rig.prepare(2, IN_MAP).restarts_tracks
    assert not rig.prepare(3, IN_MAP).restarts_tracks
    # The last pose is used.
    rig.transforms.transform = None
    prepared = rig.prepare(4, IN_MAP)
    assert not prepared.restarts_tracks
    assert prepared.timed_view.view.camera.extrinsic_matrix[2, 3] == 2000
    assert rig.statistics.fallbacks.counts() == {'no transform': 1}
    assert rig.prepare(5, SETTINGS).restarts_tracks
    assert not rig.prepare(6, SETTINGS).restarts_tracks


def test_tracks_restart_after_a_jump_back_in_time():
    rig = Rig()
    rig.prepare(100, SETTINGS)
    # Images can arrive in another order.
    assert not rig.prepare(100 - 0.5 * JUMP_BACK_S, SETTINGS).restarts_tracks
    assert rig.prepare(100 - 2 * JUMP_BACK_S, SETTINGS).restarts_tracks
    assert not rig.prepare(100, SETTINGS).restarts_tracks
    assert rig.statistics.fallbacks.counts() == {'jump back in time': 1}


def test_tracks_restart_in_the_next_frame_if_a_frame_is_dropped():
    rig = Rig()
    rig.prepare(1, SETTINGS)
    with_topic = dataclasses.replace(IN_MAP, detector=TOPIC_DETECTOR)
    with pytest.raises(UnusableInput):
        rig.prepare(2, with_topic, OversizedMessage(Header(), 1 << 30, 1 << 20))
    assert rig.prepare(3, IN_MAP).restarts_tracks
    assert not rig.prepare(4, IN_MAP).restarts_tracks
