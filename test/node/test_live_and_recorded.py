"""The node and `annotate` give the same people for the same messages."""

from __future__ import annotations

import functools
import pathlib

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from recorded_bags import (
    START_NS,
    STEP_NS,
    RecordedTopic,
    header,
    message_factory,
    messages_in,
    messages_of,
    people_in,
    write_bag,
)
from recorded_transforms import OPTICAL, recorded_tree, transform_message
from robots import pose_node, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

import metrabs_ros
from metrabs_ros.conversions.people import to_people
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import IMAGE

OFFICE = pathlib.Path(__file__).parents[1] / 'data' / 'office.png'
FRAMES = 6
SMOOTHING = 0.5
"""Default of the node."""
COLOR = RecordedTopic(quality='.png')
DEPTH, INFO = '/camera/depth_registered/image_raw', '/camera/camera_info'
IMAGES = f'{COLOR.name}/compressed'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PUBLISHED = {
    COLOR.name: ('image/compressed', CompressedImage, qos_profile_sensor_data),
    INFO: ('camera_info', CameraInfo, qos_profile_sensor_data),
    DEPTH: ('depth', Image, qos_profile_sensor_data),
    '/tf': ('/tf', TFMessage, 100),
    '/tf_static': ('/tf_static', TFMessage, LATCHED),
}
"""Topic, type and QoS profile with which the messages of each topic of the bag are published."""


def recording(folder):
    """Write a bag with a moving camera, transforms of a robot that rises, and depth images."""
    photo = cv2.imread(str(OFFICE))
    height, width = photo.shape[:2]
    moves = [np.float32([[1, 0, 4 * i], [0, 1, -2 * i]]) for i in range(FRAMES)]
    images = [cv2.warpAffine(photo, move, (width, height)) for move in moves]
    frame = COLOR.frame_id
    extra = [
        recorded_tree('/tf_static', 0, transform_message('base', frame, 0, (0, 0, 0), OPTICAL))
    ]
    for i in range(FRAMES):
        time_ns = i * STEP_NS
        moved = transform_message('map', 'base', START_NS + time_ns, (0.1 * i, 0, 1.2 + 0.01 * i))
        depth = message_factory(IMAGE)(
            header=header(i),
            height=height,
            width=width,
            encoding='16UC1',
            step=2 * width,
            data=np.full((height, width), 2500, np.uint16).view(np.uint8).reshape(-1),
        )
        extra.append(recorded_tree('/tf', time_ns - 2000, moved))
        extra.append((DEPTH, IMAGE, START_NS + time_ns - 1000, depth))
    messages = sorted([*messages_of(images, [COLOR]), *extra], key=lambda message: message[2])
    return write_bag(folder, [], [COLOR], extra=messages)


def has_transform(node, stamp):
    return node._transforms.can_transform('map', COLOR.frame_id, stamp)


def has_depth(node, stamp_ns):
    nearest = node._streams['']._depth.buffer.nearest(stamp_ns)
    return nearest is not None and nearest.stamp_ns == stamp_ns


def live_people(bag, **parameters):
    """Publish the messages of a bag, image by image; return the published people."""
    found = []
    with pose_node(None, image_transport='compressed', **parameters) as (node, robot):
        publishers = {
            name: robot.create_publisher(kind, topic, qos)
            for name, (topic, kind, qos) in PUBLISHED.items()
        }
        # The robot subscribes to transforms, too.
        expected = {COLOR.name: 1, INFO: 1}
        expected |= {'/tf': 2, '/tf_static': 2} if 'ground_frame' in parameters else {}
        expected |= {DEPTH: 1} if 'depth_transport' in parameters else {}
        wait_for(
            lambda: all(publishers[n].get_subscription_count() >= c for n, c in expected.items())
        )
        messages = messages_in(bag, *PUBLISHED)
        # Static transforms were published before the node started; depth images precede images.
        messages.sort(key=lambda message: (message[0] != '/tf_static', message[1]))
        for i in range(FRAMES):
            stamp = Time(sec=START_NS // 10**9, nanosec=i * STEP_NS)
            for name, time_ns, data in messages:
                if (time_ns - START_NS + STEP_NS // 2) // STEP_NS == i:
                    publishers[name].publish(data)
                    if name == '/tf' and 'ground_frame' in parameters:
                        wait_for(functools.partial(has_transform, node, stamp))
                    if name == DEPTH and 'depth_transport' in parameters:
                        wait_for(functools.partial(has_depth, node, time_ns + 1000))
            found.append(to_people(robot.receive(stamp)))
        # The legs of the people are hidden.
        assert set(node.statistics.fallbacks.counts()) <= {'stature not used'}
        assert node.statistics.drops.counts() == {}
    return found


GROUND = {'ground_frame': 'map', 'ground_height': 0.1}


@pytest.mark.parametrize(
    ('options', 'parameters'),
    [
        pytest.param({}, {}, marks=pytest.mark.slow),
        (
            {**GROUND, 'depth': DEPTH, 'stature': 1.8},
            {**GROUND, 'depth_transport': 'raw', 'stature': 1.8},
        ),
    ],
    ids=['without cues', 'with all cues'],
)
def test_the_node_and_annotate_give_the_same_people(tmp_path, options, parameters):
    bag = recording(tmp_path / 'bag')
    live = live_people(bag, **parameters)
    model = metrabs_ros.load_model('blazepose')
    annotate_options = AnnotateOptions(follow=True, smoothing=SMOOTHING, **options)
    summary = annotate(bag, tmp_path / 'results', annotate_options, model, lambda message: None)
    assert (summary.unused_cues, summary.frames) == ({}, FRAMES)
    recorded = [people for _, people in people_in(tmp_path / 'results')]
    assert [len(people) for people in live] == [len(people) for people in recorded]
    assert len(live[-1]) == 2
    for one, other in zip(live, recorded, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.scale_cues, other.scale_cues)
        np.testing.assert_allclose(one.poses3d_mm, other.poses3d_mm, atol=1e-3)
        np.testing.assert_allclose(one.axis_std_mm, other.axis_std_mm, atol=1e-3)
        np.testing.assert_allclose(
            one.estimated_statures_mm, other.estimated_statures_mm, atol=1e-3
        )
