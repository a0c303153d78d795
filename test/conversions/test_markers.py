"""Markers show people in constant colours and are deleted with their tracks."""

from __future__ import annotations

import numpy as np
from std_msgs.msg import Header
from test_people import people_at
from visualization_msgs.msg import Marker

from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message
from metrabs_ros.drawing import short_labels
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

HEADER = Header(frame_id='camera')
UP = np.array([0.0, -1.0, 0.0])


def markers_of(write, people, up=UP):
    """Return the markers that a writer creates for people."""
    return write(to_message(people, HEADER, TYPES), short_labels(people), up).markers


def test_each_person_has_joints_bones_and_text():
    people = people_at((0, 0, 3000), (500, 0, 4000))
    message = to_message(people, HEADER, TYPES)
    markers = markers_of(MarkerWriter(TYPES), people)
    assert {(marker.ns, marker.id) for marker in markers} == {
        (namespace, i) for namespace in ('joints', 'bones', 'text') for i in (1, 2)
    }
    by_name = {(marker.ns, marker.id): marker for marker in markers}
    assert len(by_name['joints', 1].points) == 33
    assert len(by_name['bones', 1].points) == len(message.joint_edges)
    assert by_name['text', 1].text == '1: 3.0 m'
    assert by_name['text', 1].pose.position.y < min(p.y for p in by_name['joints', 1].points)
    assert all(marker.header.frame_id == 'camera' for marker in markers)


def test_each_id_keeps_its_colour():
    write = MarkerWriter(TYPES)
    first = markers_of(write, people_at((0, 0, 3000), (500, 0, 4000)))
    again = markers_of(write, people_at((0, 0, 3500), (700, 0, 4000)))
    colors = [{(m.id, m.color.r, m.color.g, m.color.b) for m in ms} for ms in (first, again)]
    assert colors[0] == colors[1]
    assert len(colors[0]) == 2


def test_markers_of_deleted_tracks_are_deleted_once():
    write = MarkerWriter(TYPES)
    markers_of(write, people_at((0, 0, 3000), (500, 0, 4000)))
    markers = markers_of(write, people_at((0, 0, 3000)))
    deleted = {(m.ns, m.id) for m in markers if m.action == Marker.DELETE}
    assert deleted == {('joints', 2), ('bones', 2), ('text', 2)}
    empty = People.empty(BLAZEPOSE_33)
    assert {m.id for m in markers_of(write, empty)} == {1}
    assert markers_of(write, empty) == []


def test_the_text_is_above_the_person_for_any_up_direction():
    people = people_at((0, 0, 3000))
    position = markers_of(MarkerWriter(TYPES), people, np.array([1.0, 0, 0]))[2].pose.position
    assert position.x > people.poses3d_mm[..., 0].max() / 1000


def test_clear_deletes_all_markers():
    write = MarkerWriter(TYPES)
    markers_of(write, people_at((0, 0, 3000)))
    assert [marker.action for marker in write.clear().markers] == [Marker.DELETEALL]
    assert markers_of(write, People.empty(BLAZEPOSE_33)) == []
