"""One node processes several cameras with one model and separate tracks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rclpy.parameter import Parameter
from robots import BLACK, TIMEOUT_S, pose_node, set_parameters, transform, wait_for
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster
from vision_msgs.msg import Detection2D, Detection2DArray

from metrabs_ros.node.synchronisation import Requirements, Synchroniser

CAMERAS = ['front', 'rear/left']


class BatchModel(KnownPeople):
    """Returns one person per image; the value of the first pixel is the distance in metres."""

    def __init__(self):
        super().__init__()
        self.batches, self.may_go_on = [], threading.Event()
        self.begun = threading.Semaphore(0)
        self.may_go_on.set()

    def find_people(self, views, options):
        self.begun.release()
        assert self.may_go_on.wait(5)
        self.batches.append(len(views))
        return super().find_people(views, options)

    def poses_of(self, view, options):
        self.places_mm = [(0.0, 0.0, 1000.0 * view.image[0, 0, 0])]
        return super().poses_of(view, options)


def image_at(distance):
    return np.full((120, 160, 3), distance, np.uint8)


def test_each_camera_has_separate_topics_people_and_frames():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS) as (node, front, left):
        answers = [
            robot.receive(robot.send(image_at(distance)))
            for robot, distance in ((front, 3), (left, 5), (front, 3))
        ]
        depths_m = [answer.skeletons[0].positions[23].z for answer in answers]
        assert depths_m == pytest.approx([3, 5, 3], abs=0.1)
        assert [answer.skeletons[0].id for answer in answers] == [1, 1, 1]
        assert (len(front.skeletons), len(left.skeletons)) == (2, 1)
        frames = wait_for(
            lambda: (
                'rear_left_person_1' in front.transforms.all_frames_as_string()
                and front.transforms.all_frames_as_string()
            )
        )
        assert 'front_person_1' in frames
        assert {'/front/pose/markers', '/rear/left/pose/markers'} <= {
            name for name, _ in node.get_topic_names_and_types()
        }


def test_frames_of_several_cameras_differ_with_a_prefix():
    parameters = {'cameras': CAMERAS, 'robots': CAMERAS, 'tf_prefix': 'lab_'}
    with pose_node(BatchModel(), **parameters) as (_, front, left):
        for robot in (front, left):
            robot.receive(robot.send(image_at(3)))
        for name in ('lab_front_person_1', 'lab_rear_left_person_1'):
            wait_for(lambda name=name: name in front.transforms.all_frames_as_string())


def test_pending_frames_are_processed_in_one_batch():
    model = BatchModel()
    with pose_node(model, cameras=CAMERAS, robots=CAMERAS) as (node, front, left):
        model.may_go_on.clear()
        first = front.send(image_at(3))
        assert model.begun.acquire(timeout=TIMEOUT_S)
        stamps = [(robot, robot.send(image_at(4))) for robot in (left, front)]
        wait_for(lambda: node.statistics.counters.images == 3)
        model.may_go_on.set()
        front.receive(first)
        for robot, stamp in stamps:
            robot.receive(stamp)
        assert model.batches == [1, 2]


def test_an_invalid_frame_of_one_camera_does_not_affect_the_others():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS) as (node, front, left):
        for _ in range(3):
            left.send(BLACK, encoding='nonsense')
            assert front.receive(front.send(image_at(2))).skeletons
        wait_for(lambda: sum(node.statistics.drops.counts().values()) == 3)
        assert not left.skeletons


class FragileBatchModel(BatchModel):
    """Fails for batches that contain a white image."""

    def find_people(self, views, options):
        people = super().find_people(views, options)
        if any(view.image[0, 0, 0] == 255 for view in views):
            raise RuntimeError('the network fails')
        return people


def test_a_failing_frame_of_a_batch_does_not_drop_other_frames():
    model = FragileBatchModel()
    with pose_node(model, cameras=CAMERAS, robots=CAMERAS) as (node, front, left):
        model.may_go_on.clear()
        first = front.send(image_at(3))
        assert model.begun.acquire(timeout=TIMEOUT_S)
        stamp = front.send(image_at(4))
        left.send(image_at(255))
        wait_for(lambda: node.statistics.counters.images == 3)
        model.may_go_on.set()
        for sent in (first, stamp):
            assert front.receive(sent).skeletons
        statistics = node.statistics
        wait_for(lambda: statistics.drops.counts_by_camera() == {('failed', 'rear/left'): 1})
        assert statistics.fallbacks.counts_by_camera() == {('batch of cameras failed', 'front'): 1}
        explanation = statistics.drops.explanations()['failed']
        assert explanation == (
            'processed separately because a batch of 2 cameras failed with RuntimeError: '
            'RuntimeError: the network fails'
        )
        assert not left.skeletons
        assert statistics.snapshot().in_flight == 0


def test_diagnostics_contain_the_people_of_each_camera():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS) as (_, front, left):
        for robot in (front, left):
            robot.receive(robot.send(image_at(2)))
        values = wait_for(
            lambda: [
                v
                for m in front.diagnostics
                for v in [{v.key: v.value for v in m.status[0].values}]
                if v['processed'] == '2'
            ]
        )[-1]
        assert (values['people'], values['people of rear/left']) == ('2', '1')


def test_a_silent_camera_is_named_in_the_diagnostics():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS) as (_, front, _left):

        def is_reported():
            front.send(image_at(2))
            return [
                m for m in front.diagnostics if 'received from rear/left' in m.status[0].message
            ]

        wait_for(is_reported)


def detections_of(stamp):
    """Return a detection of one person with the stamp of an image."""
    message = Detection2DArray(header=Header(stamp=stamp))
    detection = Detection2D()
    detection.bbox.center.position.x = detection.bbox.center.position.y = 60.0
    detection.bbox.size_x = detection.bbox.size_y = 80.0
    message.detections = [detection]
    return message


def answer_times_s(front, left, answer):
    """Return the latencies of one camera in seconds while another one publishes images."""
    passed_s = []
    for _ in range(20):
        left.send(BLACK)
        start_s = time.monotonic()
        stamp = front.send(image_at(2))
        answer(stamp)
        front.receive(stamp)
        passed_s.append(time.monotonic() - start_s)
    return passed_s


def test_missing_detections_of_one_camera_do_not_delay_the_others():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS, detector='topic') as (
        node,
        front,
        left,
    ):
        detections = front.create_publisher(Detection2DArray, 'detections', 5)
        wait_for(detections.get_subscription_count)
        passed_s = answer_times_s(
            front, left, lambda stamp: detections.publish(detections_of(stamp))
        )
        # The timeout for the detections of the other camera is 0.5 s.
        assert np.median(passed_s) < 0.2
        drops = wait_for(
            lambda: sum(node.statistics.drops.counts().values()) == 20 and node.statistics.drops
        )
        assert drops.counts()['no detections'] > 0
        assert {camera for _, camera in drops.counts_by_camera()} == {'rear/left'}
        assert not left.skeletons


def test_a_missing_transform_of_one_camera_does_not_delay_the_others():
    parameters = {'target_frame': 'map', 'tf_timeout': 1.0}
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS, **parameters) as (
        _,
        front,
        left,
    ):
        broadcaster = StaticTransformBroadcaster(front)
        broadcaster.sendTransform(transform('map', 'front_frame'))

        def send(stamp_s):
            return front.send(
                image_at(2),
                header=Header(stamp=Time(sec=stamp_s), frame_id='front_frame'),
            )

        assert front.receive(send(1000)).header.frame_id == 'map'
        passed_s = []
        for stamp_s in range(1001, 1011):
            left.send(BLACK)
            start_s = time.monotonic()
            assert front.receive(send(stamp_s)).header.frame_id == 'map'
            passed_s.append(time.monotonic() - start_s)
        assert np.median(passed_s) < 0.3


def test_counts_of_each_camera_add_up():
    with pose_node(BatchModel(), cameras=CAMERAS, robots=CAMERAS) as (_, front, left):
        for _ in range(4):
            front.receive(front.send(image_at(2)))
            left.send(BLACK, encoding='nonsense')

        def finished():
            values = {v.key: v.value for v in front.diagnostics[-1].status[0].values}
            return values if values['images'] == '8' and values['in_flight'] == '0' else None

        wait_for(lambda: front.diagnostics)
        values = wait_for(finished)
        assert [values[f'{key} of front'] for key in ('images', 'processed', 'dropped')] == [
            *('4', '4', '0')
        ]
        assert [values[f'{key} of rear/left'] for key in ('images', 'processed', 'dropped')] == [
            *('4', '0', '4')
        ]


def test_requirements_are_determined_once_per_configuration(monkeypatch):
    seen, add_image = [], Synchroniser.add_image

    def add(self, image, requirements):
        seen.append(requirements)
        add_image(self, image, requirements)

    monkeypatch.setattr(Synchroniser, 'add_image', add)
    with pose_node(BatchModel(), target_frame='map', tf_timeout=0.0) as (_, robot):
        for _ in range(3):
            robot.receive(robot.send(image_at(2)))
        assert all(requirements is seen[0] for requirements in seen)
        assert len(seen[0].transforms) == 1
        assert set_parameters(robot, target_frame='', tf_timeout=1.0)[0].successful
        robot.receive(robot.send(image_at(2)))
        assert seen[-1] == Requirements(False, (), 1.0)


def test_an_empty_camera_name_gives_a_single_camera():
    with pose_node(BatchModel(), cameras=['']) as (node, robot):
        assert node.get_parameter('cameras').type_ == Parameter.Type.STRING_ARRAY
        assert robot.receive(robot.send(image_at(2))).skeletons


def test_a_jump_back_of_one_camera_keeps_the_transforms_of_others():
    with pose_node(
        BatchModel(), cameras=CAMERAS, robots=CAMERAS, target_frame='map', tf_timeout=10.0
    ) as (node, front, left):
        broadcaster = TransformBroadcaster(left)
        moving = []
        for sec in (50, 52):
            for camera in ('front_camera', 'left_camera'):
                moving.append(transform('map', camera))
                moving[-1].header.stamp.sec = sec
        broadcaster.sendTransform(moving)
        for milliseconds in (900, 400):
            stamp = Time(sec=50, nanosec=milliseconds * 1_000_000)
            front.send(image_at(3), header=Header(stamp=stamp, frame_id='front_camera'))
            assert front.receive(stamp).header.frame_id == 'map'
        assert node.statistics.fallbacks.counts() == {'jump back in time': 1}
        stamp = Time(sec=51)
        assert node._transforms.can_transform('map', 'left_camera', stamp)
        left.send(image_at(3), header=Header(stamp=stamp, frame_id='left_camera'))
        assert left.receive(stamp).header.frame_id == 'map'
        assert node.statistics.fallbacks.counts() == {'jump back in time': 1}
