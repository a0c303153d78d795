"""For any input, all frames are counted, and the diagnostics and the log remain short."""

from __future__ import annotations

import array
import random
import resource
import threading
import time

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from known_people import KnownPeople
from rclpy.qos import qos_profile_sensor_data
from robots import BLACK, pose_node, transform, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from metrabs_ros.conversions.detections import MAX_DETECTIONS, select_detections, to_boxes
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.node.camera_stream import MAX_FRAME_ID_CHARS
from metrabs_ros.node.pose_node import PoseNode

PERSON_MM = (500.0, 0.0, 4000.0)
MAX_LINE_CHARS = 800
HOSTILE = '\x1b[2J\n%s {} \u202e' + 5000 * 'x'


def values_of(robot):
    return {v.key: v.value for v in robot.diagnostics[-1].status[0].values}


def in_flight(values):
    dropped = sum(int(n) for key, n in values.items() if key.startswith('dropped: '))
    return int(values['images']) - int(values['processed']) - dropped


def in_flight_count(node):
    """Return the number of images that are neither processed nor dropped."""
    statistics = node.statistics
    finished = statistics.counters.processed + sum(statistics.drops.counts().values())
    return statistics.counters.images - finished


def send_text(robot, field, number):
    text = f'{number}{HOSTILE}'
    if field == 'frame_id':
        header = Header(stamp=Time(sec=number + 1), frame_id=text)
        return robot.send(BLACK, header=header)
    return robot.send(BLACK, **{field: text})


@pytest.mark.slow
@pytest.mark.parametrize(
    ('field', 'parameters'),
    [
        ('encoding', {}),
        ('distortion_model', {}),
        ('frame_id', {'target_frame': 'map', 'tf_timeout': 0.0, 'tf_fallback': 'drop'}),
        ('frame_id', {'world_frame': 'map', 'tf_timeout': 0.0}),
    ],
)
def test_many_different_texts_give_few_diagnostics_and_short_log_lines(capfd, field, parameters):
    with pose_node(KnownPeople(PERSON_MM), **parameters) as (node, robot):
        for number in range(200):
            send_text(robot, field, number)
            wait_for(lambda number=number: node.statistics.counters.images == number + 1)
        wait_for(lambda: in_flight_count(node) == 0)
        robot.diagnostics.clear()
        values = wait_for(lambda: robot.diagnostics and values_of(robot))
        status = robot.diagnostics[-1].status[0]
    assert len(values) < 50
    assert all(len(key) < 100 and key.isprintable() for key in values)
    assert all(len(value) < 1000 and value.isprintable() for value in values.values())
    assert status.message.isprintable()
    assert len(status.message) < 300
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) < 20
    assert all(len(line) < MAX_LINE_CHARS and line.isprintable() for line in lines)


def test_images_with_a_long_frame_id_are_dropped():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        for sec, chars in ((1, MAX_FRAME_ID_CHARS + 1), (2, 2**20)):
            robot.send(BLACK, header=Header(stamp=Time(sec=sec), frame_id='x' * chars))
            wait_for(lambda sec=sec: node.statistics.drops.counts() == {'image frame_id': sec})
        explanation = node.statistics.drops.explanations()['image frame_id']
        assert f'has a frame_id of {2**20} characters' in explanation
        assert len(explanation) < 300
        header = Header(stamp=Time(sec=3), frame_id='x' * MAX_FRAME_ID_CHARS)
        assert robot.receive(robot.send(BLACK, header=header)).header.frame_id == header.frame_id


class Failing(KnownPeople):
    """Raises exceptions of different types with long messages."""

    def poses_of(self, view, options):
        self.failures = getattr(self, 'failures', 0) + 1
        kind = type(f'Error{self.failures}{HOSTILE}', (Exception,), {})
        raise kind(HOSTILE)


def test_exceptions_of_many_types_are_one_drop_cause(capfd):
    with pose_node(Failing(PERSON_MM)) as (node, robot):
        for number in range(100):
            robot.send(BLACK)
            wait_for(lambda number=number: node.statistics.counters.images == number + 1)
        wait_for(lambda: in_flight_count(node) == 0)
        assert set(node.statistics.drops.counts()) <= {'failed', 'newer frame'}
        robot.diagnostics.clear()
        robot.send(BLACK)
        status = wait_for(
            lambda: [d.status[0] for d in robot.diagnostics if d.status[0].level == b'\x02']
        )[0]
    assert status.message.startswith('frames fail: Error')
    assert len(status.message) <= 200
    lines = capfd.readouterr().err.splitlines()
    assert all(len(line) < MAX_LINE_CHARS and line.isprintable() for line in lines)


@pytest.mark.parametrize('method', ['_process', '_prepare', '_get_people', '_publish'])
def test_frames_are_counted_if_the_whole_processing_fails(monkeypatch, method):
    def fail(self, *arguments):
        raise RuntimeError('cannot go on')

    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        with monkeypatch.context() as patch:
            patch.setattr(PoseNode, method, fail)
            for number in range(1, 4):
                robot.send(BLACK)
                wait_for(
                    lambda number=number: node.statistics.drops.counts() == {'failed': number}
                )
            assert in_flight_count(node) == 0
        assert robot.receive(robot.send(BLACK)).skeletons
        wait_for(lambda: in_flight_count(node) == 0)
        assert node.statistics.drops.counts() == {'failed': 3}


def test_a_small_file_with_a_huge_declared_size_uses_no_memory():
    data = cv2.imencode('.jpg', BLACK)[1].tobytes()
    sof = data.index(b'\xff\xc0')
    size = (30000).to_bytes(2, 'big')
    with pose_node(KnownPeople(PERSON_MM), image_transport='compressed') as (node, robot):
        images = robot.create_publisher(
            CompressedImage, 'image/compressed', qos_profile_sensor_data
        )
        wait_for(images.get_subscription_count)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for sec, info_px, claimed in (
            (1, 0, 2 * size),
            (2, 30000, 2 * size),
            # Within the pixel limit, but with another size than camera_info.
            (3, 160, (6000).to_bytes(2, 'big') + (8000).to_bytes(2, 'big')),
        ):
            message, info = CompressedImage(format='jpeg'), CameraInfo()
            message.data = array.array('B', data[: sof + 5] + claimed + data[sof + 9 :])
            message.header.stamp.sec = info.header.stamp.sec = sec
            info.k = [100.0, 0, 80, 0, 100, 60, 0, 0, 1]
            info.width, info.height = info_px, info_px * 3 // 4 if sec == 3 else info_px
            robot.infos.publish(info)
            images.publish(message)
            wait_for(lambda sec=sec: sum(node.statistics.drops.counts().values()) == sec)
        assert node.statistics.drops.counts() == {'image size': 2, 'camera_info size': 1}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000


def test_images_larger_than_the_limit_are_dropped():
    with pose_node(KnownPeople(PERSON_MM), max_image_pixels=100 * 160) as (node, robot):
        robot.send(BLACK)
        wait_for(lambda: node.statistics.drops.counts() == {'image size': 1})
        robot.receive(robot.send(BLACK[:100]))


@pytest.mark.slow
@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('field', ['target_frame', 'world_frame'])
@pytest.mark.parametrize(
    'values', [{'place': (1e308, 0.0, 0.0)}, {'rotation': (1e200, 0.0, 1e200, 1e-300)}]
)
def test_transforms_out_of_range_are_not_used(field, values):
    with pose_node(KnownPeople(PERSON_MM), **{field: 'map', 'tf_timeout': 1.0}) as (node, robot):
        broadcaster = StaticTransformBroadcaster(robot)
        broadcaster.sendTransform(transform('map', 'camera_optical_frame', **values))
        answer = robot.receive(robot.send(BLACK))
        assert answer.header.frame_id == 'camera_optical_frame'
        (skeleton,) = answer.skeletons
        places_m = np.array([(p.x, p.y, p.z) for p in skeleton.positions])
        assert np.isfinite(places_m).all()
        assert np.abs(places_m).max() < 10
        # tf2 rejects some of them.
        assert set(node.statistics.fallbacks.counts()) <= {'transform', 'no transform'}
        assert node.statistics.drops.counts() == {}


@pytest.mark.slow
def test_malformed_transforms_are_not_logged(capfd):
    with pose_node(KnownPeople(PERSON_MM), target_frame='map') as (node, robot):
        broadcaster = TransformBroadcaster(robot)
        for number in range(300):
            malformed = transform('map', f'{number}{HOSTILE}', place=(np.nan, 0.0, 0.0))
            broadcaster.sendTransform([malformed, transform('map', 'map')])
            wait_for(lambda number=number: node._transforms.rejected >= 2 * number)
        robot.diagnostics.clear()
        values = wait_for(lambda: robot.diagnostics and values_of(robot))
        assert int(values['rejected transforms']) >= 598
    # The buffer of the robot logs as well.
    lines = capfd.readouterr().err.splitlines()
    assert sum('[tf2]' in line for line in lines) <= 600


def test_transforms_are_used_after_a_jump_back_in_time():
    with pose_node(KnownPeople(PERSON_MM), target_frame='map', tf_timeout=1.0) as (_, robot):
        broadcaster = TransformBroadcaster(robot)
        for first in (5000, 100):
            for number in range(3):
                robot.sent = first + number
                moving = transform('map', 'camera_optical_frame')
                moving.header.stamp.sec = robot.sent + 1
                broadcaster.sendTransform(moving)
                answer = robot.receive(robot.send(BLACK))
        assert answer.header.frame_id == 'map'


def box_message(*boxes, results=0):
    message = Detection2DArray()
    for x, y, width, height in boxes:
        detection = Detection2D()
        detection.bbox.center.position.x, detection.bbox.center.position.y = x, y
        detection.bbox.size_x, detection.bbox.size_y = width, height
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.score = float('nan')
        detection.results = [hypothesis] * results
        message.detections.append(detection)
    return message


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -1.0, 1e308, -1e308, 5e-324, 80.0, 160.0]),
)


@pytest.mark.filterwarnings('error')
@given(boxes=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=8))
def test_boxes_of_any_detections_are_within_the_image(boxes):
    boxes_in_image = to_boxes(box_message(*boxes, results=1), '', (120, 160, 3))
    left_top, size = boxes_in_image.boxes_px[:, :2], boxes_in_image.boxes_px[:, 2:]
    assert np.isfinite(boxes_in_image.boxes_px).all()
    assert (left_top >= 0).all()
    assert (left_top + size <= (160, 120)).all()
    assert ((boxes_in_image.scores >= 0) & (boxes_in_image.scores <= 1)).all()


@pytest.mark.parametrize(
    'message',
    [
        box_message(*[(80.0, 60.0, 40.0, 40.0)] * (MAX_DETECTIONS + 1)),
        box_message(*[(80.0, 60.0, 40.0, 40.0)] * 2, results=6000),
    ],
)
def test_too_many_detections_are_rejected(message):
    with pytest.raises(UnusableInput, match='detections; up to 1000') as caught:
        to_boxes(message, '', (120, 160, 3))
    assert caught.value.cause == 'detections'


def grid(count, scores=None):
    """Return boxes that do not overlap, with the given scores."""
    left, top = np.arange(count) % 40, np.arange(count) // 40
    boxes_px = np.stack([4.0 * left, 4.0 * top, *np.full((2, count), 3.0)], axis=1)
    return Boxes(boxes_px, np.ones(count) if scores is None else scores)


def test_duplicate_boxes_are_suppressed():
    boxes_px = np.array([[0, 0, 50, 50], [2, 2, 50, 50], [90, 60, 20, 20], [0, 0, 50, 50.0]])
    boxes = Boxes(boxes_px, np.array([0.5, 0.9, 0.0, 0.8]))
    chosen, left_out = select_detections(boxes, 0.7, -1)
    # A score of 0 is valid, because some detectors do not set scores.
    assert (chosen.boxes_px[:, 0].tolist(), chosen.scores.tolist()) == ([2, 90], [0.9, 0])
    assert left_out == 0
    assert len(select_detections(boxes, 1.0, -1)[0]) == 4


@pytest.mark.parametrize(
    ('max_detections', 'count', 'left_out'), [(-1, 100, 900), (3, 3, 0), (500, 500, 0), (0, 0, 0)]
)
def test_the_boxes_with_the_highest_scores_are_processed(max_detections, count, left_out):
    scores = np.random.default_rng(0).permutation(1000) / 1000
    chosen, found_left_out = select_detections(grid(1000, scores), 0.7, max_detections)
    assert chosen.scores.tolist() == np.sort(scores)[::-1][:count].tolist()
    assert found_left_out == left_out


def test_many_detections_are_limited_and_reported():
    class Counting(KnownPeople):
        def pose_people(self, views, boxes_px, options):
            counts.extend(map(len, boxes_px))
            return super().pose_people(views, boxes_px, options)

    counts = []
    with pose_node(Counting(*[PERSON_MM] * 1000), detector='topic') as (node, robot):
        publisher = robot.create_publisher(Detection2DArray, 'detections', 5)
        wait_for(publisher.get_subscription_count)
        centres = [(x + 1.5, y + 1.5, 3.0, 3.0) for x, y, _, _ in grid(1000).boxes_px.tolist()]
        stamp = robot.send(BLACK)
        message = box_message(*centres)
        message.header.stamp = stamp
        publisher.publish(message)
        robot.receive(stamp)
        wait_for(lambda: in_flight_count(node) == 0)
        assert node.statistics.fallbacks.counts() == {'many detections': 1}
        assert not node.statistics.drops.counts()
        explanation = node.statistics.fallbacks.explanations()['many detections']
    assert counts == [100]
    assert explanation.startswith('a message has 1000 detections that do not overlap; the 100')


class Slow(KnownPeople):
    """Takes 20 ms, and fails for the second image and every tenth image after it."""

    calls = 0

    def poses_of(self, view, options):
        time.sleep(0.02)
        self.calls += 1
        if self.calls % 10 == 2:
            raise RuntimeError('no luck')
        return super().poses_of(view, options)


CAMERAS = ['front', 'rear']


@pytest.mark.slow
def test_every_frame_is_counted_under_mixed_load():
    rng = random.Random(0)
    parameters = {
        'cameras': CAMERAS,
        'robots': CAMERAS,
        'detector': 'topic',
        'target_frame': 'map',
        'tf_timeout': 0.05,
        'tf_fallback': 'drop',
    }
    with pose_node(Slow(PERSON_MM), **parameters) as (node, front, rear):
        detections = {
            robot: robot.create_publisher(Detection2DArray, 'detections', 5)
            for robot in (front, rear)
        }
        for publisher in detections.values():
            wait_for(publisher.get_subscription_count)
        broadcaster = TransformBroadcaster(front)
        stop = threading.Event()

        def load():
            for number in range(400):
                robot = rng.choice((front, rear))
                robot.sent = rng.choice((robot.sent, robot.sent, robot.sent, 5 * number))
                changes = rng.choice(
                    [{}, {}, {}, {}, {'encoding': 'odd'}, {'k': [0.0] * 9}, {'height': 0}]
                )
                if rng.random() < 0.7:
                    moving = transform('map', 'camera_optical_frame')
                    moving.header.stamp.sec = robot.sent + 1
                    broadcaster.sendTransform(moving)
                stamp = robot.send(BLACK, **changes)
                if rng.random() < 0.1:
                    header = Header(stamp=Time(sec=rng.choice((-7, 0, 2**31 - 1))))
                    robot.images.publish(Image(header=header))
                if rng.random() < 0.8:
                    box = Detection2D()
                    box.bbox.size_x = box.bbox.size_y = rng.choice((80.0, np.nan, 1e308))
                    message = Detection2DArray(header=Header(stamp=stamp), detections=[box])
                    detections[robot].publish(message)
                if number % 100 == 50:
                    node._enabled = not node._enabled
                time.sleep(0.005)
            stop.set()

        thread = threading.Thread(target=load)
        thread.start()
        while not stop.wait(0.02):
            # Per camera, at most 16 are pending in the synchroniser and 3 in the worker.
            assert 0 <= node.statistics.snapshot().in_flight <= 2 * 19
        thread.join()
        node._enabled = True
        # On a busy machine, all images without detections may have been replaced by newer ones.
        front.send(BLACK)
        wait_for(lambda: node.statistics.drops.counts().get('no detections'))
        # Frames that are pending when the node is deactivated are counted as well.
        for robot in (front, rear):
            for _ in range(5):
                robot.send(BLACK)
        wait_for(lambda: in_flight_count(node) > 0)
        node.trigger_deactivate()
        wait_for(lambda: in_flight_count(node) == 0)
        # A message from before may still arrive.
        wait_for(lambda: front.diagnostics and values_of(front)['in_flight'] == '0')
        values = values_of(front)
        assert in_flight(values) == int(values['in_flight']) == 0
        for camera in CAMERAS:
            images, processed, dropped = (
                int(values[f'{key} of {camera}']) for key in ('images', 'processed', 'dropped')
            )
            assert images == processed + dropped
            assert processed > 2
        causes = set(node.statistics.drops.counts())
        assert {
            *('newer frame', 'disabled', 'deactivated', 'failed', 'image encoding'),
            *('no detections', 'image stamp', 'image size', 'camera not calibrated'),
        } <= causes
