"""Bodies of nodes in several states, of several cameras, and without optional packages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from hri_consumer import TYPES, Consumer, hri_msgs, publishers_of
from known_people import KnownPeople
from rclpy.parameter import Parameter
from robots import BLACK, call, pose_node, wait_for
from simulated_rooms import Room
from std_srvs.srv import Trigger
from test_fusion_node import fusion_node
from test_pose_node_known import PERSON_MM

from metrabs_ros.conversions.people import to_people
from metrabs_ros.kinematics import human_model
from metrabs_ros.node import body_publishers
from metrabs_ros.node.pose_node import PoseNode


def test_bodies_are_not_published_by_default():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        robot.receive(robot.send(BLACK))
        assert publishers_of(node) == set()


def test_hri_msgs_is_imported_only_if_bodies_are_published():
    script = """
import sys
sys.modules['hri_msgs'] = sys.modules['urdf_parser_py'] = None
import rclpy
from rclpy.parameter import Parameter
from metrabs_ros.node.fusion_node import FusionNode
from metrabs_ros.node.pose_node import PoseNode
rclpy.init()
for Node in (PoseNode, FusionNode):
    Node().destroy_node()
    try:
        Node(parameter_overrides=[Parameter('hri', value=True)])
    except ImportError as error:
        assert 'hri is true, but the package hri_msgs is not installed' in str(error), error
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, '-c', script], check=True)


def test_bodies_are_removed_when_the_node_is_deactivated_and_come_back():
    with pose_node(KnownPeople(PERSON_MM), hri=True) as (node, robot):
        consumer = Consumer(robot)
        assert wait_for(consumer.send)
        node.trigger_deactivate()
        wait_for(lambda: consumer.tracked[-1].ids == [])
        assert publishers_of(node) == {'/humans/bodies/tracked'}
        node.trigger_activate()
        robot.wait_for_node()
        assert wait_for(consumer.send)
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert publishers_of(node) == set()


def test_ids_of_several_cameras_differ_and_are_listed_together():
    cameras = ['front', 'rear/left']
    with pose_node(
        KnownPeople(PERSON_MM), robots=cameras, cameras=cameras, hri=True, min_hits=1
    ) as (_, front, rear):
        consumer = Consumer(front)
        rear.send(BLACK)
        listed = wait_for(lambda: [i for i in [consumer.send(BLACK)] if len(i) == 2])[0]
        assert listed == ['front_p1', 'rear_left_p1']


def test_bodies_of_a_camera_that_stopped_are_removed(monkeypatch):
    monkeypatch.setattr(body_publishers, 'STREAM_TIMEOUT_S', 0.5)
    cameras = ['front', 'rear']
    with pose_node(
        KnownPeople(PERSON_MM), robots=cameras, cameras=cameras, hri=True, min_hits=1
    ) as (node, front, rear):
        consumer = Consumer(front)
        rear.send(BLACK)
        wait_for(lambda: len(consumer.send(BLACK)) == 2)
        wait_for(lambda: consumer.send(BLACK) == ['front_p1'])
        wait_for(lambda: consumer.tracked[-1].ids == [])
        assert publishers_of(node) == {'/humans/bodies/tracked'}
        assert consumer.send(BLACK) == ['front_p1']


def test_a_reset_of_the_fusion_removes_its_bodies():
    with fusion_node(Room.random(2, 2, 0), hri=True) as (node, site):
        consumer = Consumer(site)
        site.run(5)
        wait_for(lambda: consumer.tracked and consumer.tracked[-1].ids)
        assert call(site, Trigger, 'fusion/reset')[0].success
        wait_for(lambda: consumer.tracked[-1].ids == [])
        assert publishers_of(node) == {'/humans/bodies/tracked'}


def test_other_publishers_of_bodies_are_reported(capfd, monkeypatch):
    monkeypatch.setattr(body_publishers, 'CHECK_PERIOD_S', 0.0)
    with pose_node(KnownPeople(PERSON_MM), hri=True) as (_, robot):
        robot.create_publisher(hri_msgs.IdsList, '/humans/bodies/tracked', 10)
        consumer = Consumer(robot)
        wait_for(lambda: robot.count_publishers('/humans/bodies/tracked') == 2)
        consumer.send()
        wait_for(lambda: consumer.send() and '2 nodes publish' in capfd.readouterr().err)


def test_a_missing_parser_is_named(monkeypatch):
    human_model.human_model.cache_clear()
    monkeypatch.setitem(sys.modules, 'urdf_parser_py.urdf', None)
    rclpy.init()
    try:
        with pytest.raises(ImportError, match='pip install urdf-parser-py'):
            PoseNode(parameter_overrides=[Parameter('hri', value=True)])
    finally:
        rclpy.shutdown()


def test_fused_people_are_published_as_bodies_without_image_topics():
    with fusion_node(Room.random(3, 2, 0), hri=True, hri_tf=True) as (node, site):
        in_image = {'roi', 'cropped', 'skeleton2d'}
        consumer = Consumer(site, tuple(set(TYPES) - in_image))
        _, people = site.run(5)
        ids = [f'p{person}' for person in people.ids.tolist()]
        wait_for(lambda: consumer.tracked and sorted(consumer.tracked[-1].ids) == sorted(ids))
        expected = {f'/humans/bodies/{body}/{topic}' for body in ids for topic in consumer.topics}
        assert publishers_of(node) == {'/humans/bodies/tracked', *expected}
        for body in ids:
            consumer.follow(body)
        wait_for(
            lambda: site.run(1) and all(all(own.values()) for own in consumer.messages.values())
        )
        people = to_people(site.fused[-1])
        for body, place in zip(ids, people.positions_mm):
            messages = consumer.messages[body]
            point = messages['position'][-1]
            assert point.header.frame_id == 'map'
            np.testing.assert_allclose((point.point.x, point.point.y), place[:2] / 1000, atol=2.0)
            assert 0.5 < point.point.z < 1.3
            frame = f'l_ankle_{body}'
            wait_for(lambda own=frame: site.transforms.can_transform('map', own, Time()))
            ankle = site.transforms.lookup_transform('map', frame, Time()).transform
            assert -0.1 < ankle.translation.z < 0.4
