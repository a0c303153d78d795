"""Markers show people, each in a colour for good, and go when they go."""

from __future__ import annotations

from std_msgs.msg import Header
from test_people import people_at
from visualization_msgs.msg import Marker

from metrabs_ros.node.markers import MarkerWriter
from metrabs_ros.node.messages import to_message
from metrabs_ros.people import People
from metrabs_ros.skeleton import BLAZEPOSE_33

HEADER = Header(frame_id='camera')


def test_each_person_has_joints_bones_and_text():
    message = to_message(people_at((0, 0, 3000), (500, 0, 4000)), HEADER)
    markers = MarkerWriter()(message).markers
    assert {(marker.ns, marker.id) for marker in markers} == {
        (namespace, i) for namespace in ('joints', 'bones', 'text') for i in (1, 2)
    }
    by_name = {(marker.ns, marker.id): marker for marker in markers}
    assert len(by_name['joints', 1].points) == 33
    assert len(by_name['bones', 1].points) == len(message.joint_edges)
    assert by_name['text', 1].text == '1: 3.1 m'
    assert by_name['text', 1].pose.position.y < min(p.y for p in by_name['joints', 1].points)
    assert all(marker.header.frame_id == 'camera' for marker in markers)


def test_colours_stay():
    write = MarkerWriter()
    first = write(to_message(people_at((0, 0, 3000), (500, 0, 4000)), HEADER)).markers
    again = write(to_message(people_at((0, 0, 3500), (700, 0, 4000)), HEADER)).markers
    colors = [{(m.id, m.color.r, m.color.g, m.color.b) for m in ms} for ms in (first, again)]
    assert colors[0] == colors[1]
    assert len(colors[0]) == 2


def test_who_leaves_is_taken_away_once():
    write = MarkerWriter()
    write(to_message(people_at((0, 0, 3000), (500, 0, 4000)), HEADER))
    gone = write(to_message(people_at((0, 0, 3000)), HEADER)).markers
    removed = {(m.ns, m.id) for m in gone if m.action == Marker.DELETE}
    assert removed == {('joints', 2), ('bones', 2), ('text', 2)}
    nobody = to_message(People.nobody(BLAZEPOSE_33), HEADER)
    assert {m.id for m in write(nobody).markers} == {1}
    assert write(nobody).markers == []
