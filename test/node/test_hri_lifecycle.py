"""Bodies of nodes in several states, of several cameras, and without optional packages."""

from __future__ import annotations

import subprocess
import sys

import pytest
import rclpy
from hri_consumer import Consumer, hri_msgs, publishers_of
from known_people import KnownPeople
from rclpy.parameter import Parameter
from robots import BLACK, pose_node, wait_for
from test_pose_node_known import PERSON_MM

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
