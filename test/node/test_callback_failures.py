"""Exceptions of callbacks are logged and counted, services respond, and the node continues."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from builtin_interfaces.msg import Time
from known_people import KnownPeople
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.node import Node
from robots import BLACK, call, pose_node, set_parameters, wait_for
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Empty
from std_srvs.srv import SetBool, Trigger

from metrabs_ros.node.callback_failures import (
    PAUSE_S,
    CallbackFailures,
    GuardedExecutor,
    guard_services,
)

PERSON_MM = (500.0, 0.0, 4000.0)


class Log:
    def __init__(self):
        self.lines = []

    def error(self, line):
        self.lines.append(line)


@pytest.fixture
def node():
    """Return a node with a counter of callback exceptions."""
    rclpy.init()
    node = Node('failing')
    node.log = Log()
    node.failures = CallbackFailures(node.log)
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def spin_until(executor, condition):
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        executor.spin_once(timeout_sec=0.1)


def fail(*_):
    raise RuntimeError('no more')


def test_a_failing_timer_does_not_affect_other_timers(node):
    ticks = []
    node.create_timer(0.01, fail)
    node.create_timer(0.01, lambda: ticks.append(1))
    executor = GuardedExecutor()
    executor.add_node(node)
    spin_until(executor, lambda: node.failures.count > 10 and len(ticks) > 10)
    executor.shutdown()
    assert len(node.log.lines) == 1
    assert 'the callback of a timer failed' in node.log.lines[0]
    assert 'RuntimeError: no more (test_callback_failures.py:' in node.log.lines[0]


def test_a_failing_subscription_still_receives(node):
    publisher = node.create_publisher(Empty, 'topic', 10)
    node.create_subscription(Empty, 'topic', fail, 10)
    executor = GuardedExecutor()
    executor.add_node(node)
    wait_for(publisher.get_subscription_count)
    for count in (1, 2, 3):
        publisher.publish(Empty())
        spin_until(executor, lambda count=count: node.failures.count == count)
    executor.shutdown()
    assert 'the callback of topic failed' in node.log.lines[0]


def test_a_failure_before_the_callback_does_not_block_the_node(node):
    # An exception while taking a message: rclpy leaves the callback group locked.
    class Unmakeable:
        def __new__(cls):
            raise MemoryError

    publisher = node.create_publisher(Empty, 'topic', 10)
    received, ticks = [], []
    subscription = node.create_subscription(Empty, 'topic', received.append, 10)
    node.create_timer(0.05, lambda: ticks.append(1))
    executor = GuardedExecutor()
    executor.add_node(node)
    wait_for(publisher.get_subscription_count)
    subscription.msg_type = Unmakeable
    publisher.publish(Empty())
    spin_until(executor, lambda: node.failures.count)
    subscription.msg_type = Empty
    del ticks[:]
    publisher.publish(Empty())
    spin_until(executor, lambda: received and ticks)
    executor.shutdown()


def test_recurring_exceptions_do_not_use_the_cpu_continuously(node):
    node.create_timer(0.0, fail)
    executor = GuardedExecutor()
    executor.add_node(node)
    start_s = time.process_time(), time.monotonic()
    spin_until(executor, lambda: node.failures.count >= 50)
    assert time.monotonic() - start_s[1] >= 50 * PAUSE_S
    executor.shutdown()


@pytest.mark.parametrize('kind', [KeyboardInterrupt, SystemExit])
def test_exit_exceptions_are_not_counted_as_failures(node, kind):
    def end():
        raise kind

    node.create_timer(0.01, end)
    executor = GuardedExecutor()
    executor.add_node(node)
    with pytest.raises(kind):
        executor.spin()
    executor.shutdown()
    assert not node.failures.count


def test_a_shutdown_ends_the_spinning(node):
    executor = GuardedExecutor()
    executor.add_node(node)
    timer = threading.Timer(0.2, rclpy.shutdown)
    timer.start()
    while rclpy.ok():
        try:
            executor.spin_once(timeout_sec=0.1)
        except rclpy.executors.ExternalShutdownException:
            break
    timer.join()
    assert not node.failures.count


def test_exceptions_of_nodes_without_a_failure_counter_are_raised():
    rclpy.init()
    node = Node('other')
    executor = GuardedExecutor()
    executor.add_node(node)
    node.create_timer(0.01, fail)
    with pytest.raises(RuntimeError, match='no more'):
        executor.spin()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def test_failing_services_of_a_guarded_node_return_an_error_response(node):
    services = [node.create_service(Trigger, f'service_{i}', fail) for i in range(2)]
    failures = guard_services(node)
    for service in services:
        response = service.callback(Trigger.Request(), Trigger.Response())
        assert not response.success
        assert response.message.startswith('RuntimeError: no more')
    assert failures.count == 2


def test_the_number_of_logged_kinds_is_limited():
    failures = CallbackFailures(log := Log())
    for i in range(1000):
        failures.report(f'topic {i}\n' + 1000 * 'x', RuntimeError(10_000 * 'y'))
    assert failures.count == 1000
    assert len(log.lines) <= 101
    assert max(map(len, log.lines)) < 600
    assert '\n' not in ''.join(log.lines)


def test_a_failing_service_responds_and_is_counted_in_the_diagnostics():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        stream = node._streams['']
        reset, stream.reset = stream.reset, fail
        response, _ = call(robot, Trigger, 'pose/reset')
        assert not response.success
        assert 'RuntimeError: no more' in response.message
        stream.reset = reset
        assert call(robot, Trigger, 'pose/reset')[0].success
        assert call(robot, SetBool, 'pose/enable', data=True)[0].success
        robot.diagnostics.clear()
        values = wait_for(lambda: robot.diagnostics)[0].status[0].values
        assert {value.key: value.value for value in values}['failed callbacks'] == '1'
        assert robot.receive(robot.send(BLACK)).skeletons


def test_parameters_of_unknown_type_are_rejected():
    wrong = [
        Parameter(name='max_lost', value=ParameterValue(type=99)),
        Parameter(name='', value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE)),
        Parameter(name='no such', value=ParameterValue(type=ParameterType.PARAMETER_BOOL)),
        Parameter(name='max_lost'),
        Parameter(name='rectified'),
        Parameter(name='cameras', value=ParameterValue(type=255)),
    ]
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        before = node.settings
        for parameter in wrong:
            response, _ = call(robot, SetParameters, 'pose/set_parameters', parameters=[parameter])
            assert [result.successful for result in response.results] == [False]
            assert response.results[0].reason
            response, _ = call(
                robot,
                SetParametersAtomically,
                'pose/set_parameters_atomically',
                parameters=[parameter],
            )
            assert not response.result.successful
            assert response.result.reason
        response, _ = call(robot, SetParameters, 'pose/set_parameters', parameters=wrong)
        assert [result.successful for result in response.results] == [False] * len(wrong)
        for kind, service, request in (
            (GetParameters, 'get_parameters', {'names': ['no such', 'ä\x1b']}),
            (DescribeParameters, 'describe_parameters', {'names': ['no such']}),
            (GetParameterTypes, 'get_parameter_types', {'names': ['no such', '']}),
            (ListParameters, 'list_parameters', {'prefixes': ['', '.', 'ä'], 'depth': 2**63}),
        ):
            call(robot, kind, f'pose/{service}', **request)
        assert node.settings == before
        assert set_parameters(robot, max_lost=3.0)[0].successful
        assert robot.receive(robot.send(BLACK)).skeletons


def test_a_negative_clock_time_does_not_stop_the_node():
    with pose_node(KnownPeople(PERSON_MM), use_sim_time=True) as (node, robot):
        clock = robot.create_publisher(Clock, '/clock', 10)
        wait_for(clock.get_subscription_count)
        clock.publish(Clock(clock=Time(sec=-1)))
        wait_for(lambda: node.failures.count)
        clock.publish(Clock(clock=Time(sec=5)))
        wait_for(lambda: node.get_clock().now().nanoseconds == 5 * 10**9)
        assert robot.receive(robot.send(BLACK)).skeletons
