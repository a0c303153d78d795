"""Images are completed with their messages and transforms, or dropped after a timeout."""

from __future__ import annotations

import array
import functools
import time

import pytest
import rclpy
from builtin_interfaces.msg import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from robots import spinning, wait_for
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from metrabs_ros.conversions.detections import MAX_DETECTIONS, to_boxes
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.node import synchronisation
from metrabs_ros.node.synchronisation import (
    DETECTIONS_TIMEOUT_S,
    FIRST_INFO_TIMEOUT_S,
    INFO_TIMEOUT_S,
    MAX_PENDING,
    MAX_PENDING_BYTES,
    OPTIONAL_TIMEOUT_S,
    Requirements,
    Synchroniser,
)

NO_REQUIREMENTS = Requirements()
WITH_DETECTIONS = Requirements(detections=True)
PERIOD_MS = 33


def stamped(kind, milliseconds, **fields):
    stamp = Time(sec=milliseconds // 1000, nanosec=milliseconds % 1000 * 1_000_000)
    return kind(header=Header(stamp=stamp), **fields)


@functools.lru_cache(1)
def zeros(size):
    return array.array('B', bytes(size))


def milliseconds_of(message):
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000


class Rig:
    """Synchroniser with the delivered and dropped images."""

    def __init__(self, node):
        self.delivered, self.drops, self.images = [], [], 0
        self.node = node
        self.synchroniser = Synchroniser(
            node, self.delivered.append, lambda cause, explanation: self.drops.append(cause)
        )

    def image(self, milliseconds, requirements=NO_REQUIREMENTS, size=10):
        self.images += 1
        image = stamped(Image, milliseconds)
        image.data = zeros(size)
        self.synchroniser.add_image(image, requirements)

    def info(self, milliseconds, **fields):
        self.synchroniser.add_info(stamped(CameraInfo, milliseconds, **fields))

    def detections(self, milliseconds):
        self.synchroniser.add_detections(stamped(Detection2DArray, milliseconds))

    @property
    def stamps(self):
        """Stamps of the delivered images in milliseconds."""
        return [milliseconds_of(item.image) for item in self.delivered]

    @property
    def finished(self):
        return len(self.delivered) + len(self.drops)


@pytest.fixture(scope='module')
def node():
    rclpy.init()
    node = rclpy.create_node('synchroniser')
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def rig(node):
    rig = Rig(node)
    yield rig
    rig.synchroniser.close()
    assert rig.finished == rig.images


@pytest.fixture
def spun(node, rig):
    with spinning(node):
        yield rig


class Clock:
    """Clock that is advanced by the test."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(synchronisation, 'time', clock)
    return clock


def pass_time(clock, rig, seconds):
    clock.now_s += seconds
    rig.synchroniser.check()


def test_the_last_missing_message_completes_an_image_immediately(rig):
    rig.image(1)
    assert rig.stamps == []
    rig.info(1)
    rig.info(2)
    rig.image(2)
    assert rig.stamps == [1, 2]
    assert [milliseconds_of(item.info) for item in rig.delivered] == [1, 2]
    # The timer is not running without pending images.
    assert rig.synchroniser._timer.is_canceled()


def test_only_the_first_image_waits_for_a_missing_camera_info(spun):
    spun.image(0)
    start_s = time.monotonic()
    wait_for(lambda: spun.delivered)
    waited_s = time.monotonic() - start_s
    assert FIRST_INFO_TIMEOUT_S - 0.05 < waited_s < FIRST_INFO_TIMEOUT_S + 0.3
    for milliseconds in range(1, 50):
        spun.image(milliseconds)
    assert spun.stamps == list(range(50))
    assert all(item.info is None for item in spun.delivered)
    # A later camera_info is used.
    spun.info(7)
    spun.image(51)
    wait_for(lambda: len(spun.delivered) == 51)
    assert milliseconds_of(spun.delivered[-1].info) == 7


def test_the_first_timeout_starts_with_the_first_image(rig, clock):
    for milliseconds in range(0, 600, PERIOD_MS):
        rig.image(milliseconds)
        pass_time(clock, rig, PERIOD_MS / 1000)
    # The newest pending image, and then every image.
    assert rig.stamps == [495, 528, 561, 594]
    assert set(rig.drops) == {'newer frame'}


def test_a_rare_camera_info_is_waited_for_once(rig, clock):
    rig.info(0)
    rig.image(1)
    pass_time(clock, rig, INFO_TIMEOUT_S - 0.001)
    assert rig.stamps == []
    pass_time(clock, rig, 0.002)
    assert rig.stamps == [1]
    for milliseconds in range(2, 20):
        rig.image(milliseconds)
    assert rig.stamps == list(range(1, 20))
    assert {milliseconds_of(item.info) for item in rig.delivered} == {0}


def test_images_wait_for_their_own_camera_info_after_a_lost_one(rig, clock):
    rig.info(1)
    rig.image(1)
    rig.image(2)
    pass_time(clock, rig, INFO_TIMEOUT_S)
    rig.image(3)
    assert rig.stamps == [1, 2, 3]
    # The camera_info of image 3 is late; the following images wait for theirs.
    rig.info(3)
    rig.image(4)
    assert rig.stamps == [1, 2, 3]
    rig.info(4)
    assert [milliseconds_of(item.info) for item in rig.delivered] == [1, 1, 1, 4]


def test_the_first_camera_info_completes_all_pending_images(rig, clock):
    rig.image(1)
    pass_time(clock, rig, 0.2)
    rig.image(2)
    rig.info(0)
    assert rig.stamps == [1, 2]


def test_a_complete_image_is_not_delayed_by_an_older_one(rig):
    rig.image(1)
    rig.image(2)
    rig.info(2)
    assert (rig.stamps, rig.drops) == ([2], ['newer frame'])


def test_detections_with_200_ms_latency_complete_every_image(rig, clock):
    latency_ms = 200
    for milliseconds in range(0, 3000, PERIOD_MS):
        rig.info(milliseconds)
        rig.image(milliseconds, WITH_DETECTIONS)
        if milliseconds >= latency_ms:
            rig.detections((milliseconds - latency_ms) // PERIOD_MS * PERIOD_MS)
        pass_time(clock, rig, PERIOD_MS / 1000)
    assert rig.drops == []
    assert len(rig.delivered) > 80
    assert rig.stamps == sorted(rig.stamps)
    assert all(
        milliseconds_of(f.detections) == milliseconds_of(f.image) == milliseconds_of(f.info)
        for f in rig.delivered
    )


@pytest.mark.slow
@pytest.mark.parametrize('size', [10, 6_000_000, 40_000_000])
def test_detections_with_a_high_latency_complete_some_images(rig, clock, size):
    latency_ms = 450
    rig.info(0)
    rig.image(0)
    for milliseconds in range(PERIOD_MS, 3000, PERIOD_MS):
        rig.image(milliseconds, WITH_DETECTIONS, size)
        answered = (milliseconds - latency_ms) // PERIOD_MS * PERIOD_MS
        if answered > 0:
            rig.detections(answered)
        pass_time(clock, rig, PERIOD_MS / 1000)
    assert len(rig.delivered) > 5


def test_detections_may_arrive_before_the_image(rig):
    rig.detections(5)
    rig.info(5)
    rig.image(5, WITH_DETECTIONS)
    assert rig.stamps == [5]


def test_images_without_detections_are_dropped_if_a_newer_one_is_complete(rig, clock):
    for number in range(30):
        milliseconds = number * PERIOD_MS
        rig.info(milliseconds)
        rig.image(milliseconds, WITH_DETECTIONS)
        if number % 5 == 4:
            rig.detections(milliseconds - 2 * PERIOD_MS)
        pass_time(clock, rig, PERIOD_MS / 1000)
    assert rig.stamps == [PERIOD_MS * number for number in range(2, 30, 5)]
    assert set(rig.drops) == {'newer frame'}


def test_images_without_detections_are_dropped_after_the_timeout(spun):
    spun.info(1)
    spun.image(1, WITH_DETECTIONS)
    start_s = time.monotonic()
    wait_for(lambda: spun.drops)
    assert spun.drops == ['no detections']
    assert DETECTIONS_TIMEOUT_S - 0.05 < time.monotonic() - start_s < DETECTIONS_TIMEOUT_S + 0.3
    wait_for(spun.synchroniser._timer.is_canceled)


@pytest.mark.parametrize(
    ('size', 'expected_count'), [(10, MAX_PENDING), (10_000_000, 6), (MAX_PENDING_BYTES, 2)]
)
def test_pending_images_are_limited_and_include_the_oldest_and_newest(
    rig, clock, size, expected_count
):
    for milliseconds in range(40):
        rig.image(milliseconds, WITH_DETECTIONS, size)
    pending = [milliseconds_of(p.image) for p in rig.synchroniser._pending]
    assert len(pending) == expected_count
    assert (pending[0], pending[-1]) == (0, 39)
    assert rig.drops == ['newer frame'] * (40 - expected_count)


def test_buffered_messages_are_limited(rig):
    for milliseconds in range(1000):
        rig.info(milliseconds)
        rig.detections(milliseconds)
    for kept in (rig.synchroniser._infos, rig.synchroniser._detections):
        assert len(kept._by_stamp) == 60
    rig.info(1001, d=[0.1] * 1_000_000)
    too_many = stamped(Detection2DArray, 1001, detections=[Detection2D()] * (MAX_DETECTIONS + 1))
    rig.synchroniser.add_detections(too_many)
    assert rig.synchroniser._infos.get((1, 1_000_000)) is None
    assert rig.synchroniser._detections.get((1, 1_000_000)) is None
    # A pending image gets them, so that it is dropped with an explanation.
    rig.info(1002)
    rig.image(1002, WITH_DETECTIONS)
    too_many.header.stamp.nanosec = 2_000_000
    rig.synchroniser.add_detections(too_many)
    assert rig.delivered[-1].detections is too_many


@pytest.mark.parametrize('fields', [{'distortion_model': 'x' * 2**20}, {'frame_id': 'x' * 2**20}])
def test_camera_infos_with_long_texts_are_not_buffered(rig, fields):
    for milliseconds in range(60):
        info = stamped(CameraInfo, milliseconds)
        info.header.frame_id = fields.get('frame_id', '')
        info.distortion_model = fields.get('distortion_model', '')
        rig.synchroniser.add_info(info)
    assert not rig.synchroniser._infos._by_stamp
    # A pending image gets it, so that it is dropped with an explanation.
    rig.image(100)
    info.header.stamp.nanosec = 100_000_000
    rig.synchroniser.add_info(info)
    assert rig.delivered[-1].info is info


@pytest.mark.parametrize('where', ['frame_id', 'id', 'class_id', 'frame_id of a detection'])
def test_detections_with_long_texts_are_not_buffered_but_rejected(rig, where):
    text = 'x' * 2**20
    message = stamped(Detection2DArray, 1)
    detection, result = Detection2D(), ObjectHypothesisWithPose()
    detection.results, message.detections = [result], [detection]
    if where == 'frame_id':
        message.header.frame_id = text
    elif where == 'id':
        detection.id = text
    elif where == 'class_id':
        result.hypothesis.class_id = text
    else:
        detection.header.frame_id = text
    rig.synchroniser.add_detections(message)
    assert not rig.synchroniser._detections._by_stamp
    rig.info(1)
    rig.image(1, WITH_DETECTIONS)
    rig.synchroniser.add_detections(message)
    assert rig.delivered[-1].detections is message
    with pytest.raises(UnusableInput, match='characters of text') as caught:
        to_boxes(message, '', (120, 160, 3))
    assert caught.value.cause == 'detections'


def test_repeated_stamps_and_jumps_back_do_not_delay_images(rig):
    for milliseconds in (*range(50_000, 50_100), *range(100), 5, 5, 5):
        rig.image(milliseconds, WITH_DETECTIONS)
        rig.info(milliseconds)
        rig.detections(milliseconds)
    assert rig.stamps == [*range(50_000, 50_100), *range(100), 5, 5, 5]
    assert rig.drops == []


def test_stamps_before_1970_and_with_invalid_nanoseconds_are_accepted(rig):
    for stamp in (Time(sec=-5, nanosec=3), Time(sec=2**31 - 1, nanosec=2**32 - 1)):
        header = Header(stamp=stamp)
        rig.synchroniser.add_info(CameraInfo(header=header))
        rig.images += 1
        rig.synchroniser.add_image(Image(header=header), Requirements())
    assert len(rig.delivered) == 2


def test_images_wait_for_transforms_until_the_timeout(rig, clock):
    available = set()
    checks = [
        lambda header: 'world' in available,
        lambda header: 'target' in available,
    ]
    requirements = Requirements(False, checks, transforms_timeout_s=0.2)
    rig.info(1)
    rig.image(1, requirements)
    available.add('world')
    pass_time(clock, rig, 0.1)
    assert rig.stamps == []
    available.add('target')
    rig.synchroniser.check()
    assert rig.stamps == [1]
    available.clear()
    rig.info(2)
    rig.image(2, requirements)
    pass_time(clock, rig, 0.19)
    assert rig.stamps == [1]
    pass_time(clock, rig, 0.02)
    assert rig.stamps == [1, 2]


def test_timeouts_are_independent_of_simulated_time(node, spun):
    node.set_parameters([Parameter('use_sim_time', value=True)])
    try:
        spun.info(1)
        spun.image(1, WITH_DETECTIONS)
        wait_for(lambda: spun.drops)
    finally:
        node.set_parameters([Parameter('use_sim_time', value=False)])


def test_pending_images_are_counted_when_closed(node):
    rig = Rig(node)
    rig.image(1)
    rig.image(2)
    rig.synchroniser.close()
    rig.image(3)
    rig.info(1)
    rig.synchroniser.check()
    assert (rig.stamps, rig.drops) == ([], ['deactivated'] * 3)


events = st.lists(
    st.tuples(
        st.sampled_from(['image', 'info', 'detections', 'transform', 'pass']),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events, detections=st.booleans(), transforms=st.booleans())
def test_each_image_is_delivered_or_dropped_once_for_any_order_of_events(
    node, monkeypatch, events, detections, transforms
):
    clock = Clock()
    monkeypatch.setattr(synchronisation, 'time', clock)
    rig, available = Rig(node), []
    checks = [lambda header: bool(available)] if transforms else []
    requirements = Requirements(detections, checks, transforms_timeout_s=0.1)
    for kind, number in events:
        if kind == 'image':
            rig.image(number, requirements)
        elif kind == 'info':
            rig.info(number)
        elif kind == 'detections':
            rig.detections(number)
        elif kind == 'transform':
            available.append(number)
            rig.synchroniser.check()
        else:
            pass_time(clock, rig, number * 0.05)
        assert rig.images - rig.finished == len(rig.synchroniser._pending) <= MAX_PENDING
        # The timer is running while images are pending.
        assert rig.synchroniser._timer.is_canceled() == (not rig.synchroniser._pending)
    pass_time(clock, rig, 1.0)
    assert rig.finished == rig.images
    rig.synchroniser.close()


class OptionalInput:
    """Optional input that arrives when the test sets it."""

    def __init__(self):
        self.available_ms = -1
        self.requirements = Requirements(optional=(self.is_missing,))

    def is_missing(self, header):
        return header.stamp.sec * 1000 + header.stamp.nanosec // 1_000_000 > self.available_ms


def test_images_wait_for_optional_inputs_until_a_timeout(clock, rig):
    optional = OptionalInput()
    rig.info(0)
    rig.image(0, optional.requirements)
    assert rig.stamps == []
    optional.available_ms = 0
    rig.synchroniser.check()
    assert rig.stamps == [0]
    rig.info(33)
    rig.image(33, optional.requirements)
    pass_time(clock, rig, OPTIONAL_TIMEOUT_S - 0.01)
    assert rig.stamps == [0]
    pass_time(clock, rig, 0.02)
    assert rig.stamps == [0, 33]


def test_the_timeout_of_optional_inputs_starts_when_the_other_inputs_are_complete(clock, rig):
    optional = OptionalInput()
    rig.info(0)
    rig.image(0)
    rig.image(33, optional.requirements)
    clock.now_s += 0.08
    rig.info(33)
    pass_time(clock, rig, OPTIONAL_TIMEOUT_S - 0.01)
    assert rig.stamps == [0]
    pass_time(clock, rig, 0.02)
    assert rig.stamps == [0, 33]


def test_no_image_is_dropped_because_of_optional_inputs(rig):
    optional = OptionalInput()
    for milliseconds in range(0, 330, 33):
        # The input of an earlier image arrives together with the image.
        optional.available_ms = milliseconds - 33
        rig.info(milliseconds)
        rig.image(milliseconds, optional.requirements)
    assert rig.stamps == list(range(0, 297, 33))
    assert rig.drops == []


def test_the_timer_delivers_images_without_optional_inputs(spun):
    spun.info(0)
    spun.image(0, OptionalInput().requirements)
    wait_for(lambda: spun.stamps == [0])
