"""Oversized messages are rejected before they are deserialised."""

from __future__ import annotations

import struct

import pytest
import rclpy
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rclpy.node import Node
from rclpy.serialization import serialize_message
from robots import BLACK, pose_node, spinning, wait_for
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray

from metrabs_ros.conversions.detections import MAX_MESSAGE_BYTES
from metrabs_ros.msg import Skeleton, SkeletonArray
from metrabs_ros.node import size_limited_subscription
from metrabs_ros.node.size_limited_subscription import size_limited
from metrabs_ros.node.view_node import ViewNode, _CameraView
from metrabs_ros.view.scene import Scene

PERSON_MM = (0.0, 0.0, 3000.0)


def boxes_at(stamp, count):
    box = Detection2D()
    box.bbox.center.position.x, box.bbox.center.position.y = 80.0, 60.0
    box.bbox.size_x = box.bbox.size_y = 40.0
    return Detection2DArray(header=Header(stamp=stamp), detections=[box] * count)


def test_oversized_messages_are_not_deserialised(monkeypatch):
    taken, rejected = [], []
    receive = size_limited(Detection2DArray, 1000, taken.append, rejected.append)
    receive(serialize_message(boxes_at(Time(sec=3), 1)))
    monkeypatch.setattr(size_limited_subscription, 'deserialize_message', None)
    receive(serialize_message(boxes_at(Time(sec=-4, nanosec=5), 100)))
    assert [len(message.detections) for message in taken] == [1]
    (oversized,) = rejected
    assert oversized.header.stamp == Time(sec=-4, nanosec=5)
    assert str(oversized).startswith(f'a message has {oversized.size_bytes} bytes; up to 1000')


@pytest.mark.parametrize(
    ('message', 'stamp'),
    [
        (b'\x00\x00\x00\x00' + struct.pack('>iI', 7, 8) + bytes(20), Time(sec=7, nanosec=8)),
        (b'\x00\x01\x00', Time()),
        (b'', Time()),
    ],
)
def test_the_stamp_is_read_from_any_bytes(message, stamp):
    rejected = []
    size_limited(Detection2DArray, -1, None, rejected.append)(message)
    assert rejected[0].header.stamp == stamp


def test_images_with_oversized_detections_are_dropped_with_an_explanation():
    with pose_node(KnownPeople(PERSON_MM), detector='topic') as (node, robot):
        detections = robot.create_publisher(Detection2DArray, 'detections', 5)
        wait_for(detections.get_subscription_count)
        detections.publish(boxes_at(robot.send(BLACK), 20_000))
        wait_for(lambda: node.statistics.drops.counts() == {'detections': 1})
        explanation = node.statistics.drops.explanations()['detections']
        assert f'bytes; up to {MAX_MESSAGE_BYTES} bytes are processed' in explanation
        # It is also counted without an image of its stamp, and the next image is processed.
        detections.publish(boxes_at(Time(sec=1000), 20_000))
        stamp = robot.send(BLACK)
        detections.publish(boxes_at(stamp, 1))
        assert robot.receive(stamp).skeletons
        values = wait_for(
            lambda: [
                v
                for m in robot.diagnostics
                for v in [{v.key: v.value for v in m.status[0].values}]
                if v['processed'] == '1'
            ]
        )[0]
    assert values['oversized messages'] == '2'
    assert (values['images'], values['in_flight']) == ('2', '0')


def test_the_view_does_not_deserialise_oversized_skeletons(monkeypatch):
    pytest.importorskip('rerun')
    rclpy.init()
    warnings, taken = [], []
    monkeypatch.setattr(ViewNode, 'warn', lambda self, text: warnings.append(text))
    monkeypatch.setattr(_CameraView, '_on_skeletons', lambda self, message: taken.append(message))
    view, sender = ViewNode(Scene([''], is_live=True), [''], compressed=False), Node('sender')
    try:
        with spinning(view, sender):
            skeletons = sender.create_publisher(SkeletonArray, 'pose/skeletons', 10)
            wait_for(skeletons.get_subscription_count)
            many = SkeletonArray(skeletons=[Skeleton()] * 100_000)
            wait_for(lambda: skeletons.publish(many) or warnings or taken)
            wait_for(lambda: skeletons.publish(SkeletonArray()) or taken)
            assert not taken[0].skeletons
    finally:
        view._listener.unregister()
        view.destroy_node()
        sender.destroy_node()
        rclpy.shutdown()
    assert warnings
    assert all(w.startswith('skeletons are not shown: a message has') for w in warnings)
