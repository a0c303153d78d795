"""The examples run and give the results that they describe."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import time

import cv2
import numpy as np
import pytest

import metrabs_ros

EXAMPLES = pathlib.Path(__file__).parents[1] / 'examples'
FRAMES = 2
TIMEOUT_S = 10.0
HIPS_M = np.array([0.5, 0.2, 3.0])
OFFSETS_M = {
    'left_hip': (0.1, 0, 0),
    'right_hip': (-0.1, 0, 0),
    'left_shoulder': (0.2, -0.5, 0),
    'right_shoulder': (-0.2, -0.5, 0),
    'left_wrist': (0.3, 0.1, 0),
    'right_wrist': (-0.3, 0.1, 0),
}
"""Joints of a standing person relative to the hips, in metres, camera optical frame (y down)."""


def import_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def video(tmp_path, player):
    """Return a short video of one person."""
    height, width = player.shape[:2]
    file = tmp_path / 'player.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 10.0, (width, height))
    for _ in range(FRAMES):
        writer.write(player[..., ::-1])
    writer.release()
    return file


def test_people_from_video_prints_a_distance_in_each_frame(video, model, monkeypatch, capsys):
    # Loading the networks takes longer than all else.
    monkeypatch.setattr(metrabs_ros, 'load_model', {'blazepose': model}.__getitem__)
    import_example('people_from_video').main(str(video), '60')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == FRAMES
    for number, line in enumerate(lines):
        assert re.fullmatch(rf'frame {number}: 1 people: \d+\.\d m', line), line


def test_people_from_video_reads_the_images_of_a_folder(tmp_path, player):
    cv2.imwrite(str(tmp_path / 'image.png'), player[..., ::-1])
    (tmp_path / 'notes.txt').write_text('not an image')
    (image,) = import_example('people_from_video').frames(tmp_path)
    np.testing.assert_array_equal(image, player)


@pytest.fixture
def nearest_person():
    """Run the example node; return how to send skeletons to it and wait for its answer."""
    rclpy = pytest.importorskip('rclpy')
    from geometry_msgs.msg import PointStamped
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import Bool

    from metrabs_ros.msg import SkeletonArray

    rclpy.init()
    example, other = import_example('nearest_person').NearestPerson(), rclpy.create_node('other')
    positions, answers = [], []
    publisher = other.create_publisher(SkeletonArray, 'skeletons', 10)
    other.create_subscription(PointStamped, 'nearest_person', positions.append, 10)
    other.create_subscription(Bool, 'hand_raised', answers.append, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(example)
    executor.add_node(other)

    def spin_until(condition):
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline_s, 'no answer of the example'
            executor.spin_once(timeout_sec=0.1)

    def answer_to(message):
        positions.clear()
        answers.clear()
        publisher.publish(message)
        # The position is published first, but the two topics are independent of each other.
        spin_until(lambda: answers and len(positions) == min(len(message.skeletons), 1))
        return (positions[0] if positions else None), answers[0].data

    try:
        spin_until(
            lambda: (
                publisher.get_subscription_count()
                and example.position.get_subscription_count()
                and example.hand_raised.get_subscription_count()
            )
        )
        yield answer_to
    finally:
        executor.shutdown()
        example.destroy_node()
        other.destroy_node()
        rclpy.shutdown()


def skeletons_at(*hips_m, **moved_joints):
    """Return a message with a standing person at each position; joints of the last are moved."""
    from geometry_msgs.msg import Point

    from metrabs_ros.msg import Skeleton, SkeletonArray

    message = SkeletonArray(skeleton_name='coco_17', joint_names=list(OFFSETS_M))
    message.header.frame_id, message.header.stamp.sec = 'camera_optical_frame', 7
    for position_m in hips_m:
        offsets_m = {**OFFSETS_M, **(moved_joints if position_m is hips_m[-1] else {})}
        places_m = (np.array(list(offsets_m.values())) + position_m).tolist()
        message.skeletons.append(
            Skeleton(positions=[Point(x=x, y=y, z=z) for x, y, z in places_m])
        )
    return message


def test_nearest_person_publishes_the_position_of_the_nearest_and_a_raised_hand(nearest_person):
    far_m = HIPS_M + np.array([0, 0, 2])
    position, is_raised = nearest_person(skeletons_at(far_m, HIPS_M))
    point = position.point
    np.testing.assert_allclose((point.x, point.y, point.z), HIPS_M)
    assert (position.header.frame_id, position.header.stamp.sec) == ('camera_optical_frame', 7)
    assert not is_raised

    _, is_raised = nearest_person(skeletons_at(far_m, HIPS_M, right_wrist=(-0.3, -0.7, 0)))
    assert is_raised

    # A raised hand of a person farther away does not count.
    _, is_raised = nearest_person(skeletons_at(HIPS_M, far_m, right_wrist=(-0.3, -0.7, 0)))
    assert not is_raised

    position, is_raised = nearest_person(skeletons_at())
    assert position is None
    assert not is_raised
