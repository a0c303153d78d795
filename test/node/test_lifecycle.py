"""Lifecycle transitions succeed, fail with a log message, or are rejected."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
import rclpy
from known_people import KnownPeople
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.node import Node
from robots import BLACK, call, pose_node, wait_for

from metrabs_ros.node import heap, publishers
from metrabs_ros.node.camera_stream import CameraStream

PERSON_MM = (500.0, 0.0, 4000.0)
TIMEOUT_S = 60.0
FAILURES = [
    RuntimeError('cannot be saved'),
    MemoryError(),
    AssertionError(),
    RecursionError('too deep'),
    KeyError('a'),
    OSError(28, 'No space left on device'),
    UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte'),
    StopIteration(),
    Exception('two\nlines with \x1b and \udc80'),
]


def change(robot, **transition):
    """Request a transition; return the success and the state afterwards."""
    response, _ = call(
        robot, ChangeState, 'pose/change_state', transition=Transition(**transition)
    )
    return response.success, state_of(robot)


def state_of(robot):
    return call(robot, GetState, 'pose/get_state')[0].current_state.label


def raising(error):
    def fail(*arguments, **options):
        # A new instance, because the traceback of a shared one would keep a reference to the node.
        raise type(error)(*error.args)

    return fail


@pytest.mark.slow
def test_impossible_transitions_are_rejected_and_the_node_continues():
    reachable = {
        'unconfigured': ((), {1: 'configure', 5: 'shutdown'}),
        'inactive': ((1,), {2: 'cleanup', 3: 'activate', 6: 'shutdown'}),
        'active': ((3,), {4: 'deactivate', 7: 'shutdown'}),
        'finalized': ((7,), {}),
    }
    labels = ('configure', 'cleanup', 'activate', 'deactivate', 'shutdown')
    others = ('', 'no such', 'destroy', 'create', 'transition_success', 'x' * 10_000, 'ä\x1b%s')
    with pose_node(KnownPeople(PERSON_MM), active=False) as (_, robot):
        for state, (path, possible) in reachable.items():
            for transition_id in path:
                assert change(robot, id=transition_id)[0]
            for transition_id in {*range(12), 60, 61, 62, 97, 98, 99, 255} - set(possible):
                assert change(robot, id=transition_id) == (False, state), transition_id
            for label in {*labels, *others} - set(possible.values()):
                # The label has priority over the id.
                requested = {'label': label, 'id': next(iter(possible), 1)} if label else {}
                assert change(robot, **requested) == (False, state), label
            response, _ = call(robot, GetAvailableTransitions, 'pose/get_available_transitions')
            available = {
                t.transition.id: t.transition.label for t in response.available_transitions
            }
            assert available == possible
        states, _ = call(robot, GetAvailableStates, 'pose/get_available_states')
        assert State.PRIMARY_STATE_ACTIVE in {state.id for state in states.available_states}


def test_transitions_are_requested_by_label_or_id_or_both():
    with pose_node(KnownPeople(PERSON_MM), active=False) as (_, robot):
        for transition, state in (
            ({'id': Transition.TRANSITION_CONFIGURE}, 'inactive'),
            ({'label': 'activate'}, 'active'),
            ({'id': Transition.TRANSITION_DEACTIVATE, 'label': 'deactivate'}, 'inactive'),
            # As ros2 lifecycle set does; the label has priority.
            ({'id': Transition.TRANSITION_CLEANUP, 'label': 'activate'}, 'active'),
            ({'label': 'shutdown'}, 'finalized'),
        ):
            assert change(robot, **transition) == (True, state)


def test_the_second_of_two_simultaneous_requests_is_rejected():
    begun, may_go_on = threading.Event(), threading.Event()

    def load_slowly(settings):
        begun.set()
        assert may_go_on.wait(10)
        return KnownPeople(PERSON_MM)

    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        node._load_model = load_slowly
        client = robot.create_client(ChangeState, 'pose/change_state')
        assert client.wait_for_service(5)
        request = ChangeState.Request(transition=Transition(id=1))
        first = client.call_async(request)
        assert begun.wait(5)
        second = client.call_async(request)
        may_go_on.set()
        wait_for(lambda: first.done() and second.done())
        assert (first.result().success, second.result().success) == (True, False)
        assert state_of(robot) == 'inactive'


def second_call_raises(function, error):
    """Return a function that returns at its first call and raises an exception at its second."""
    effects = iter([function, raising(error)])
    return lambda *arguments: next(effects)(*arguments)


def raises_after_subscribing(camera, error):
    """Return a `CameraStream.subscribe` that raises an exception after a camera has subscribed."""
    subscribe = CameraStream.subscribe

    def subscribe_and_raise(stream, *arguments):
        topics = subscribe(stream, *arguments)
        return raising(error)() if stream.name == camera else topics

    return subscribe_and_raise


@pytest.mark.slow
def test_failures_in_configure_are_logged_and_release_all_resources(capfd, monkeypatch):
    with pose_node(KnownPeople(PERSON_MM), active=False, cameras=['a', 'b']) as (node, robot):
        load, before = node._load_model, len(list(node.publishers))
        for error in FAILURES:
            # Failure before any resource is created, and after half of them are created.
            node._load_model = raising(error)
            assert change(robot, label='configure') == (False, 'unconfigured')
            node._load_model = load
            with monkeypatch.context() as patch:
                create = second_call_raises(publishers.TransformBroadcaster, error)
                patch.setattr(publishers, 'TransformBroadcaster', create)
                assert change(robot, label='configure') == (False, 'unconfigured')
            assert len(list(node.publishers)) == before
            lines = [line for line in capfd.readouterr().err.splitlines() if 'ERROR' in line]
            assert len(lines) == 2
            for line in lines:
                assert f'cannot be configured: {type(error).__name__}: ' in line
            for label, state in (
                ('configure', 'inactive'),
                ('activate', 'active'),
                ('deactivate', 'inactive'),
                ('cleanup', 'unconfigured'),
            ):
                assert change(robot, label=label) == (True, state)


@pytest.mark.slow
def test_failures_in_activate_are_logged_and_release_all_resources(capfd, monkeypatch):
    with pose_node(KnownPeople(PERSON_MM), active=False, cameras=['a', 'b']) as (node, robot):
        assert change(robot, label='configure') == (True, 'inactive')
        before, threads = len(list(node.subscriptions)), threading.active_count()
        for error in FAILURES:
            with monkeypatch.context() as patch:
                patch.setattr(CameraStream, 'subscribe', raises_after_subscribing('b', error))
                assert change(robot, label='activate') == (False, 'inactive')
            assert len(list(node.subscriptions)) == before
            wait_for(lambda: threading.active_count() == threads)
            line = [line for line in capfd.readouterr().err.splitlines() if 'ERROR' in line][-1]
            assert f'cannot be activated: {type(error).__name__}: ' in line
            assert change(robot, label='activate') == (True, 'active')
            assert change(robot, label='deactivate') == (True, 'inactive')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('before', 'transition', 'expected'),
    [
        (('configure', 'activate'), 'deactivate', 'cannot be deactivated: '),
        (('configure',), 'cleanup', 'cannot be cleaned up: '),
        (('configure', 'activate'), 'shutdown', 'cannot be shut down: '),
        (('configure',), 'shutdown', 'cannot be shut down: '),
    ],
)
def test_the_node_can_be_configured_after_failures_in_other_transitions(
    before, transition, expected, capfd, monkeypatch
):
    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        entities = len(list(node.publishers)), len(list(node.subscriptions))
        for label in before:
            assert change(robot, label=label)[0]
        with monkeypatch.context() as patch:
            for name in ('close', 'clear_people'):
                patch.setattr(publishers.CameraPublishers, name, raising(RuntimeError('no more')))
            assert change(robot, label=transition) == (False, 'unconfigured')
        assert f'{expected}RuntimeError: no more' in capfd.readouterr().err
        assert not node.is_configured()
        assert len(list(node.subscriptions)) == entities[1]
        for label, state in (('configure', 'inactive'), ('activate', 'active')):
            assert change(robot, label=label) == (True, state)
        robot.wait_for_node()
        assert robot.receive(robot.send(BLACK)).skeletons


def test_an_inactive_node_publishes_nothing_and_deletes_its_markers():
    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        assert change(robot, label='configure')[0]
        stream = node._streams['']
        wait_for(lambda: stream.publishers._people._markers.get_subscription_count())
        stream.publishers.clear_people()
        assert change(robot, label='activate')[0]
        robot.wait_for_node()
        assert robot.receive(robot.send(BLACK)).skeletons
        assert change(robot, label='deactivate')[0]
        stream.publishers.clear_people()
        wait_for(lambda: robot.markers and robot.markers[-1].markers[0].action == 3)
        call(robot, GetState, 'pose/get_state')
        # The markers of one frame and the deletion at the end.
        assert len(robot.markers) == 2


def test_markers_are_deleted_after_the_last_publication(monkeypatch):
    publishing, published = threading.Event(), []
    publish, clear = publishers.CameraPublishers.publish, publishers.CameraPublishers.clear_people

    def publish_slowly(self, *arguments):
        publishing.set()
        time.sleep(0.1)
        publish(self, *arguments)
        published.append('people')

    def clear_people(self):
        clear(self)
        published.append('no markers')

    monkeypatch.setattr(publishers.CameraPublishers, 'publish', publish_slowly)
    monkeypatch.setattr(publishers.CameraPublishers, 'clear_people', clear_people)
    with pose_node(KnownPeople(PERSON_MM)) as (_, robot):
        robot.send(BLACK)
        assert publishing.wait(TIMEOUT_S)
        assert change(robot, label='deactivate') == (True, 'inactive')
        assert published == ['people', 'no markers']


class SlowModel(KnownPeople):
    """Model with a latency of 0.5 s and events for its start and end."""

    def __init__(self):
        super().__init__(PERSON_MM)
        self.begun, self.ended = threading.Event(), threading.Event()

    def poses_of(self, view, options):
        self.begun.set()
        time.sleep(0.5)
        self.ended.set()
        return super().poses_of(view, options)


def test_memory_is_freed_after_the_last_frame(monkeypatch):
    model, ended = SlowModel(), []
    with pose_node(model) as (_, robot):
        monkeypatch.setattr(heap, 'return_free_memory', lambda: ended.append(model.ended.is_set()))
        robot.send(BLACK)
        assert model.begun.wait(TIMEOUT_S)
        assert change(robot, label='deactivate') == (True, 'inactive')
        assert change(robot, label='cleanup') == (True, 'unconfigured')
    # By the clean-up, and at the end of the thread.
    assert ended == [True, True]


def test_cleanup_frees_the_model():
    loaded = []

    def load(settings):
        model = KnownPeople(PERSON_MM)
        loaded.append(weakref.ref(model))
        return model

    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        node._load_model = load
        assert change(robot, label='configure') == (True, 'inactive')
        assert change(robot, label='activate') == (True, 'active')
        # Reference cycles must be found by the cleanup, not by an automatic collection.
        gc.disable()
        try:
            assert change(robot, label='deactivate') == (True, 'inactive')
            assert change(robot, label='cleanup') == (True, 'unconfigured')
            assert loaded[0]() is None
        finally:
            gc.enable()


def test_a_failed_configuration_frees_the_model():
    loaded = []

    class ModelWithoutSkeletons(KnownPeople):
        def convention(self, skeleton):
            raise ValueError('there is no such skeleton')

    def load(settings):
        model = ModelWithoutSkeletons(PERSON_MM)
        model.itself = model
        loaded.append(weakref.ref(model))
        return model

    with pose_node(KnownPeople(PERSON_MM), active=False) as (node, robot):
        node._load_model = load
        gc.disable()
        try:
            assert change(robot, label='configure') == (False, 'unconfigured')
            assert loaded[0]() is None
        finally:
            gc.enable()


START = """
from metrabs_ros.node import pose_node

def load(settings):
    raise RuntimeError('Can\\'t open file to write')

pose_node._load_model = load
pose_node.main()
"""


def test_the_process_survives_a_failed_start_and_invalid_requests():
    process = subprocess.Popen([sys.executable, '-c', START], stderr=subprocess.PIPE, text=True)
    gc.collect()
    rclpy.init()
    client = Node('client')
    try:
        service = client.create_client(ChangeState, '/pose/change_state')
        line = process.stderr.readline()
        assert "cannot be configured: RuntimeError: Can't open file to write" in line
        assert service.wait_for_service(TIMEOUT_S)
        for transition_id in (99, 3, 1, 0):
            request = ChangeState.Request(transition=Transition(id=transition_id))
            future = service.call_async(request)
            rclpy.spin_until_future_complete(client, future, timeout_sec=TIMEOUT_S)
            assert future.result().success is False
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert 'Traceback' not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
        client.destroy_node()
        rclpy.shutdown()
