"""Parameters of a running node: types, invalid values, and QoS overrides of all topics."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import rclpy
from known_people import KnownPeople
from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from robots import call, pose_node, set_parameters, wait_for

from metrabs_ros.node import camera_stream
from metrabs_ros.node.pose_node import PoseNode

PERSON_MM = (500.0, 0.0, 4000.0)
TIMEOUT_S = 60.0


def values_of(robot, *names):
    response, _ = call(robot, GetParameters, 'pose/get_parameters', names=list(names))
    return response.values


def test_integers_are_accepted_for_floating_point_parameters():
    with pose_node(KnownPeople(PERSON_MM), max_lost=3, tf_timeout=1, rectified=True) as (
        node,
        robot,
    ):
        assert (node.settings.max_lost, node.settings.rectified) == (3.0, 'true')
        assert isinstance(node.settings.max_lost, float)
        for value in (2, 0, 60, 2.5):
            assert set_parameters(robot, max_lost=value)[0].successful
            assert node.settings.max_lost == value
            (found,) = values_of(robot, 'max_lost')
            assert (found.type, found.double_value) == (ParameterType.PARAMETER_DOUBLE, value)
        atomically = [
            Parameter('smoothing', value=1).to_parameter_msg(),
            Parameter('rectified', value=False).to_parameter_msg(),
        ]
        response, _ = call(
            robot,
            SetParametersAtomically,
            'pose/set_parameters_atomically',
            parameters=atomically,
        )
        assert response.result.successful
        assert (node.settings.smoothing, node.settings.rectified) == (1.0, 'false')
        names = ['max_lost', 'smoothing', 'rectified']
        described, _ = call(robot, DescribeParameters, 'pose/describe_parameters', names=names)
        types = [descriptor.type for descriptor in described.descriptors]
        expected = [ParameterType.PARAMETER_DOUBLE] * 2 + [ParameterType.PARAMETER_STRING]
        assert types == expected
        found, _ = call(robot, GetParameterTypes, 'pose/get_parameter_types', names=names)
        assert list(found.types) == expected
        assert not any(descriptor.dynamic_typing for descriptor in described.descriptors)


def test_invalid_values_are_rejected_with_a_reason():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        before = node.settings
        for value in ('2', True, math.nan, math.inf, -math.inf, -1, 61, 2**63 - 1, 1e308, [2.0]):
            (result,) = set_parameters(robot, max_lost=value)
            assert not result.successful, value
            assert result.reason
        for name, value in (('num_aug', 2.0), ('rectified', 1), ('rectified', 'yes'), ('tf', 1)):
            (result,) = set_parameters(robot, **{name: value})
            assert not result.successful, name
            assert result.reason
        assert node.settings == before


def test_values_rejected_by_another_callback_are_not_applied():
    with pose_node(KnownPeople(PERSON_MM)) as (node, robot):
        rejection = SetParametersResult(successful=False, reason='not today')
        # rclpy calls the most recently added callback first.
        node.remove_on_set_parameters_callback(node._check)
        node.add_on_set_parameters_callback(lambda parameters: rejection)
        node.add_on_set_parameters_callback(node._check)
        assert set_parameters(robot, max_lost=2.0) == [rejection]
        assert node.settings.max_lost == 1.0
        (found,) = values_of(robot, 'max_lost')
        assert found.double_value == 1.0


def test_all_topics_have_qos_parameters():
    with pose_node(KnownPeople(PERSON_MM), target_frame='map') as (_, robot):
        response, _ = call(robot, ListParameters, 'pose/list_parameters')
        names = [name for name in response.result.names if name.startswith('qos_overrides')]
        topics = {
            'publisher': (
                *('pose/skeletons', 'pose/markers', 'pose/image_annotated'),
                *('tf', 'diagnostics'),
            ),
            'subscription': ('image', 'camera_info', 'tf', 'tf_static'),
        }
        assert set(names) == {
            f'qos_overrides./{topic}.{kind}.{policy}'
            for kind, kinds_topics in topics.items()
            for topic in kinds_topics
            for policy in ('depth', 'history', 'reliability')
        }


def test_qos_overrides_apply_again_after_a_restart():
    overrides = {
        'qos_overrides./image.subscription.reliability': 'reliable',
        'qos_overrides./image.subscription.depth': 3,
        'qos_overrides./pose/skeletons.publisher.reliability': 'best_effort',
    }
    with pose_node(KnownPeople(PERSON_MM), active=False, **overrides) as (node, _):
        for _ in range(2):
            node.trigger_configure()
            node.trigger_activate()
            for found, reliability in (
                (node.get_subscriptions_info_by_topic, ReliabilityPolicy.RELIABLE),
                (node.get_publishers_info_by_topic, ReliabilityPolicy.BEST_EFFORT),
            ):
                is_publisher = reliability == ReliabilityPolicy.BEST_EFFORT
                topic = '/pose/skeletons' if is_publisher else '/image'
                (info,) = wait_for(lambda found=found, topic=topic: found(topic))
                assert info.qos_profile.reliability == reliability
            node.trigger_deactivate()
            node.trigger_cleanup()
            wait_for(lambda: not node.get_subscriptions_info_by_topic('/image'))
            wait_for(lambda: not node.get_publishers_info_by_topic('/pose/skeletons'))
        assert node.get_parameter('qos_overrides./image.subscription.depth').value == 3
        # Shared profiles are unchanged.
        assert qos_profile_sensor_data.reliability == ReliabilityPolicy.BEST_EFFORT
        assert camera_stream.qos_profile_sensor_data.depth == 5


@pytest.fixture
def start():
    """Return a function that starts the unconfigured node with ROS arguments."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'metrabs_ros.node.pose_node', '--ros-args'),
                *('-p', 'autostart:=false', *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['-p', 'max_lost:=abc'], "max_lost is 'abc'; it must be a number"),
        (['-p', 'max_lost:=true'], 'max_lost is True; it must be a number'),
        (['-p', 'max_lost:=61'], 'max_lost'),
        (['-p', 'max_lost:=.inf'], 'max_lost'),
        (['-p', 'model:=5'], 'model is 5; it must be a string'),
        (['-p', 'cameras:=front'], "cameras is 'front'; it must be a list of strings"),
        (['-p', 'cameras:=[1, 2]'], 'cameras is [1, 2]; it must be a list of strings'),
        (['-p', "cameras:=['front', 'front']"], 'it must name each camera exactly once'),
        (['-p', "cameras:=['front', '/front']"], 'names a camera twice'),
        (['-p', "cameras:=['a//b']"], "cameras has 'a//b'"),
        (['-p', "cameras:=['front/']"], "cameras has 'front/'"),
        (['-p', "cameras:=['/']"], "cameras has '/'"),
        (['-p', "cameras:=['a/1b']"], "cameras has 'a/1b'"),
        (['-p', f"cameras:=['{'a' * 300}']"], 'topic length should not exceed'),
        (['-p', 'use_sim_time:=5'], 'use_sim_time'),
        (['-p', 'qos_overrides./diagnostics.publisher.depth:=abc'], 'diagnostics'),
        (['-p', 'qos_overrides./diagnostics.publisher.reliability:=abc'], 'abc'),
        (['-r', '__ns:=bad-ns'], 'bad-ns'),
        (['-r', '__node:=bad name'], 'bad name'),
        (['-r', 'image:=bad topic'], 'bad topic'),
        (['-r', 'image:=/a//b'], '/a//b'),
        (['-r'], 'trailing -r flag'),
        (['--no-such-option'], '--no-such-option'),
        (['--params-file', '/no/such/file.yaml'], '/no/such/file.yaml'),
        (['--log-level', 'nonsense'], 'nonsense'),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_invalid_arguments_end_the_start_with_an_error_message(start, arguments, expected):
    process = start(*arguments)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert 'Traceback' not in output
    assert expected in output.splitlines()[-1]
    assert len(output.splitlines()[-1]) < 700


def test_parameter_files_may_contain_integers_for_floating_point_parameters(tmp_path):
    file = tmp_path / 'params.yaml'
    file.write_text('/**/pose:\n  ros__parameters:\n    max_lost: 2\n    rectified: true\n')
    rclpy.init()
    node = PoseNode(cli_args=['--ros-args', '--params-file', str(file)])
    try:
        assert (node.settings.max_lost, node.settings.rectified) == (2.0, 'true')
        assert node.get_parameter('max_lost').type_ == Parameter.Type.DOUBLE
    finally:
        node.destroy_node()
        rclpy.shutdown()
