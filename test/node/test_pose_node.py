"""The node with its default model publishes people over DDS and survives invalid images."""

from __future__ import annotations

import array

import numpy as np
import pytest
from robots import pose_node, wait_for


@pytest.fixture(scope='module')
def pose():
    """Return the node under test with its default model, and a robot."""
    with pose_node() as (node, robot):
        yield node, robot


def test_skeletons_are_in_metres_with_the_stamp_and_frame_of_the_image(pose, street):
    _, robot = pose
    answer = robot.receive(robot.send(street))
    assert answer.header.frame_id == 'camera_optical_frame'
    assert answer.skeleton_name == 'blazepose_33'
    assert len(answer.skeletons) >= 5
    for skeleton in answer.skeletons:
        depths_m = [position.z for position in skeleton.positions]
        assert 10 < min(depths_m) <= max(depths_m) < 40
        assert len(skeleton.positions) == len(answer.joint_names) == 33


def test_every_person_has_a_frame_and_markers(pose, street):
    _, robot = pose
    answer = robot.receive(robot.send(street))
    wait_for(lambda: any(m.header.stamp == answer.header.stamp for m in robot.markers[-1].markers))
    for skeleton in answer.skeletons:
        name = f'person_{skeleton.id}'
        wait_for(
            lambda name=name: robot.transforms.can_transform(
                'camera_optical_frame', name, answer.header.stamp
            )
        )
        transform = robot.transforms.lookup_transform(
            'camera_optical_frame', name, answer.header.stamp
        )
        hips = [skeleton.positions[i] for i in (23, 24)]
        place = transform.transform.translation
        assert (place.x, place.y, place.z) == pytest.approx(
            tuple(np.mean([(p.x, p.y, p.z) for p in hips], axis=0)), abs=1e-6
        )
        assert any(marker.id == skeleton.id for marker in robot.markers[-1].markers)


def test_ids_are_constant_between_frames(pose, street):
    _, robot = pose
    first = {s.id for s in robot.receive(robot.send(street)).skeletons}
    again = {s.id for s in robot.receive(robot.send(street)).skeletons}
    assert len(first & again) >= 5


@pytest.mark.parametrize(
    ('changes', 'cause'),
    [
        ({'k': [0.0] * 9}, 'camera not calibrated'),
        ({'encoding': 'no_such_8'}, 'image encoding'),
        ({'data': array.array('B', bytes(10))}, 'image data'),
        ({'k': [np.nan] * 9}, 'camera_info'),
        ({'distortion_model': 'no_such'}, 'lens model'),
        ({'height': 0}, 'image size'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_invalid_frames_are_counted_and_the_node_continues(pose, street, changes, cause):
    _, robot = pose
    before = robot.dropped().get(f'dropped: {cause}', 0)
    robot.send(street, **changes)
    wait_for(lambda: robot.dropped().get(f'dropped: {cause}', 0) == before + 1)
    assert robot.receive(robot.send(street)).skeletons


def test_images_with_another_size_than_their_camera_info_are_dropped(pose, street):
    node, robot = pose
    data = array.array('B', street[:500].tobytes())
    before = node.statistics.drops.counts().get('camera_info size', 0)
    robot.send(street, height=500, data=data)
    wait_for(lambda: node.statistics.drops.counts().get('camera_info size', 0) == before + 1)


def test_only_the_newest_frame_is_pending_during_processing(pose, street):
    node, robot = pose
    robot.receive(robot.send(street))
    before = node.statistics.drops.counts().get('newer frame', 0)
    stamps = [robot.send(street) for _ in range(12)]
    robot.receive(stamps[-1])
    answered = [s for s in robot.skeletons if s.header.stamp in stamps]
    dropped = node.statistics.drops.counts()['newer frame'] - before
    assert dropped > 0
    # The transport may drop best-effort images.
    assert len(answered) + dropped <= 12
    order = [s.header.stamp.sec for s in answered]
    assert order == sorted(order)


def test_an_empty_scene_gives_an_empty_message(pose):
    _, robot = pose
    answer = robot.receive(robot.send(np.full((200, 300, 3), 90, np.uint8)))
    assert list(answer.skeletons) == []
    assert len(answer.joint_names) == 33
