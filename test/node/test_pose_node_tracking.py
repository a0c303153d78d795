"""Tracking in the node: ids, velocities, extrapolation and resets; the tests share one node."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rclpy.parameter import Parameter
from robots import BLACK, call, pose_node, wait_for
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker

PERSON_MM = (500.0, 0.0, 4000.0)
RATE_HZ = 10


def header_at(time_s, frame_id='camera_optical_frame'):
    return Header(stamp=Time(sec=int(time_s), nanosec=round(time_s % 1 * 1e9)), frame_id=frame_id)


def show(robot, model, where_mm, frame, start_s=1000.0):
    """Publish image number `frame` of a stream, with one person at a position [3] or no person."""
    model.places_mm = () if where_mm is None else (where_mm,)
    return robot.receive(robot.send(BLACK, header=header_at(start_s + frame / RATE_HZ)))


@pytest.fixture(scope='module')
def shared_node():
    """Yield a node with full-image detection in each frame, its model and a robot."""
    model = KnownPeople(PERSON_MM)
    with pose_node(model, detect_interval=1) as (node, robot):
        yield node, model, robot


@pytest.fixture
def stream(shared_node):
    """Yield the node, and a function that shows the frames of a new stream without tracks."""
    node, model, robot = shared_node
    assert call(robot, Trigger, 'pose/reset')[0].success
    robot.skeletons.clear()
    robot.markers.clear()
    # Later than all frames of earlier tests, because a jump back in time is counted.
    start_s = 1000.0 * robot.sent + 1000.0

    def show_frame(where_mm, frame, jump_s=0.0):
        return show(robot, model, where_mm, frame, start_s + jump_s)

    settings = node.settings
    yield node, robot, show_frame
    changed = {
        name: getattr(settings, name)
        for name, value in vars(node.settings).items()
        if value != getattr(settings, name)
    }
    node.set_parameters([Parameter(name, value=value) for name, value in changed.items()])


def test_velocities_and_ages_are_published(stream):
    _, _, show_frame = stream
    for i in range(15):
        answer = show_frame((-500.0 + 100 * i, 0, 4000.0), i)
    (skeleton,) = answer.skeletons
    assert skeleton.seen
    assert skeleton.age == pytest.approx(1.4, abs=1e-3)
    velocities = np.array([(v.x, v.y, v.z) for v in skeleton.velocities])
    np.testing.assert_allclose(velocities, [(1.0, 0, 0)] * 33, atol=0.1)


def test_occluded_people_are_extrapolated_and_more_transparent(stream):
    _, robot, show_frame = stream
    for i in range(10):
        (skeleton,) = show_frame((-500.0 + 50 * i, 0, 4000.0), i).skeletons
    for i in range(10, 14):
        answer = show_frame(None, i)
        assert [(s.id, s.seen) for s in answer.skeletons] == [(skeleton.id, False)]
    stamp = answer.header.stamp
    joints = wait_for(
        lambda: [
            m
            for markers in robot.markers
            for m in markers.markers
            if m.ns == 'joints' and m.action == Marker.ADD and m.header.stamp == stamp
        ]
    )
    assert joints[0].color.a < 0.6
    frame = f'person_{skeleton.id}'
    wait_for(lambda: robot.transforms.can_transform('camera_optical_frame', frame, stamp))
    for i in range(14, 25):
        answer = show_frame(None, i)
    assert not answer.skeletons


def test_tracking_parameters_can_be_changed(stream):
    node, _, show_frame = stream
    show_frame(PERSON_MM, 0)
    changes = {'smoothing': 0.0, 'max_lost': 0.2, 'min_hits': 5}
    node.set_parameters([Parameter(name, value=value) for name, value in changes.items()])
    show_frame(PERSON_MM, 1)
    tracker = node._tracker._streams[''].tracker
    assert (tracker.smoothing, tracker.max_lost, tracker.min_hits) == (0.0, 0.2, 5)


def test_a_restarted_recording_resets_the_tracks(stream):
    node, _, show_frame = stream
    assert not node.statistics.fallbacks.counts()
    ids = {show_frame(PERSON_MM, i).skeletons[0].id for i in range(3)}
    assert len(ids) == 1
    (skeleton,) = show_frame(PERSON_MM, 0, jump_s=-500.0).skeletons
    assert skeleton.id not in ids
    assert node.statistics.fallbacks.counts() == {'jump back in time': 1}


def test_images_with_equal_stamps_are_all_processed(stream):
    _, robot, show_frame = stream
    for i in (0, 1, 2, 2, 2, 3):
        count = len(robot.skeletons)
        show_frame(PERSON_MM, i)
        wait_for(lambda count=count: len(robot.skeletons) > count)
    ids = {s.id for answer in robot.skeletons for s in answer.skeletons}
    assert len(ids) == 1
    values = [(v.x, v.y, v.z) for v in robot.skeletons[-1].skeletons[0].velocities]
    assert np.isfinite(values).all()
