"""annotate processes each frame of a recording of the demo."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import rclpy
from progress import run_with_stall_timeout
from rclpy.node import Node
from recorded_bags import (
    CAMERA_INFO,
    IMAGE,
    MCAP,
    SKELETONS,
    messages_in,
    people_in,
    typestore,
)
from robots import spinning, wait_for
from rosbags.rosbag2 import Writer
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

import metrabs_ros
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.images import to_rgb
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import TRANSFORMS

FRAMES = 4
DEMO = """
import pathlib, sys
from metrabs_ros import demo
# The demo waits for three subscribers, one of which is the recorder.
sys.exit(demo.run(*map(pathlib.Path, sys.argv[1:]), ['--readers', '3'], rate_hz=10.0))
"""
KINDS = {
    '/image': (IMAGE, Image),
    '/camera_info': (CAMERA_INFO, CameraInfo),
    '/pose/skeletons': (SKELETONS, SkeletonArray),
    '/tf': (TRANSFORMS, TFMessage),
}


class Recorder(Node):
    """Writes received messages into a bag, as rosbag2 does."""

    def __init__(self, writer):
        super().__init__('recorder')
        self.counts = dict.fromkeys(KINDS, 0)
        for name, (msgtype, kind) in KINDS.items():
            connection = writer.add_connection(name, msgtype, typestore=typestore())

            def write(data, name=name, connection=connection):
                self.counts[name] += 1
                writer.write(connection, self.get_clock().now().nanoseconds, bytes(data))

            self.create_subscription(kind, name, write, 10, raw=True)


@pytest.mark.slow
def test_annotating_a_recording_of_the_demo_gives_the_poses_of_the_api(tmp_path, street):
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    for i in range(FRAMES):
        shifted = np.roll(street, 10 * i, axis=1)
        cv2.imwrite(str(pictures / f'{i}.png'), shifted[..., ::-1])
    rclpy.init()
    try:
        with Writer(tmp_path / 'bag', version=9, storage_plugin=MCAP) as writer:
            recorder = Recorder(writer)
            with spinning(recorder):
                arguments = [sys.executable, '-c', DEMO, pictures, tmp_path / 'out']
                run_with_stall_timeout(arguments).check_returncode()
                wait_for(lambda: recorder.counts['/image'] == FRAMES)
            recorder.destroy_node()
    finally:
        rclpy.shutdown()
    model = metrabs_ros.load_model('blazepose')
    messages = []
    summary = annotate(
        tmp_path / 'bag', tmp_path / 'people', AnnotateOptions(), model, messages.append
    )
    assert summary.processed == FRAMES
    assert 'already contains results (/pose/skeletons)' in messages[0]
    originals = messages_in(tmp_path / 'bag', '/image')
    assert messages_in(tmp_path / 'people', '/image') == originals
    results = people_in(tmp_path / 'people', '/pose/skeletons')
    assert len(results) == FRAMES
    infos = messages_in(tmp_path / 'bag', '/camera_info')
    for (_, _, image_data), (_, _, info_data), (stamp_ns, people) in zip(
        originals, infos, results
    ):
        message = typestore().deserialize_cdr(image_data, IMAGE)
        assert stamp_ns == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        image = to_rgb(message)
        camera = to_camera(typestore().deserialize_cdr(info_data, CAMERA_INFO), image.shape)
        expected = model.detect_poses(image, camera.intrinsic_matrix)
        assert len(people) > 1
        np.testing.assert_allclose(people.poses3d_mm, expected['poses3d'], rtol=0, atol=1e-4)
