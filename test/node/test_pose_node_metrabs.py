"""The node runs checkpoints with an ONNX detector and a selected skeleton."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from bright_box import write_detector
from progress import communicate_with_stall_timeout
from rclpy.executors import SingleThreadedExecutor
from robots import Robot

TIMEOUT_S = 600.0


@pytest.fixture
def node(checkpoint_folder, tmp_path):
    """Return a function that starts the node with parameters."""
    write_detector(tmp_path / 'a.onnx', 'yolo')
    parameters = {
        'model': str(checkpoint_folder('s_centered')),
        'detector': f'onnx:{tmp_path / "a.onnx"}',
        'skeleton': 'h36m_15',
        'num_aug': 2,
    }
    started = []

    def start(**changes):
        options = [f'-p{name}:={value}' for name, value in {**parameters, **changes}.items()]
        options = [part for option in options for part in (option[:2], option[2:])]
        process = subprocess.Popen(
            [sys.executable, '-m', 'metrabs_ros.node.pose_node', '--ros-args', *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def robot():
    """Return a robot that is not spun by a thread."""
    rclpy.init()
    robot = Robot()
    yield robot
    robot.listener.unregister()
    robot.destroy_node()
    rclpy.shutdown()


def send_until(robot, process, condition):
    """Send images of a bright red box until a condition holds."""
    executor = SingleThreadedExecutor()
    executor.add_node(robot)
    image = np.zeros((240, 320, 3), np.uint8)
    image[40:200, 100:180, 0] = 255
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline_s
        robot.send(image)
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()


def test_poses_of_a_checkpoint_are_published_in_the_configured_skeleton(node, robot):
    process = node()
    send_until(robot, process, lambda: robot.skeletons)
    message = robot.skeletons[0]
    assert message.skeleton_name == 'h36m_15'
    assert len(message.joint_names) == 15
    assert 'lkne' in message.joint_names


def test_uncertainties_of_nlf_are_published_as_standard_deviations(node, robot, nlf_folder):
    # A box without a person has uncertain points, which are not plausible.
    process = node(
        model=nlf_folder(), skeleton='smpl_24', num_aug=1, suppress_implausible_poses=False
    )
    send_until(robot, process, lambda: robot.skeletons)
    message = robot.skeletons[0]
    assert message.skeleton_name == 'smpl_24'
    assert len(message.joint_names) == 24
    (skeleton,) = message.skeletons
    deviations_m = np.array(skeleton.standard_deviations)
    assert (deviations_m > 0).all()
    assert len(np.unique(deviations_m)) > 10


@pytest.mark.slow
def test_the_node_exits_cleanly_while_the_network_is_running(node, robot):
    process = node(num_aug=50)
    # The first frame is being processed after the second diagnostics message.
    send_until(robot, process, lambda: len(robot.diagnostics) > 2 and robot.sent > 30)
    process.send_signal(signal.SIGINT)
    output, _ = communicate_with_stall_timeout(process)
    assert process.returncode == 0, output
    assert 'Traceback' not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'skeleton': 'octopus_8'}, "skeleton is 'octopus_8'; it must be one of '', 'h36m_15'"),
        ({'model': '/no/such/folder'}, "model '/no/such/folder' does not exist"),
        ({'detector': 'yolo'}, "detector is 'yolo'; it must be one of auto, movenet"),
    ],
)
def test_configuration_errors_are_logged_and_the_node_stays_unconfigured(node, changes, expected):
    process = node(**changes)
    line = ''
    while 'cannot be configured' not in line:
        line = process.stdout.readline()
        assert line, 'ended'
    assert expected in line
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = communicate_with_stall_timeout(process)
    assert process.returncode == 0
    assert 'Traceback' not in output


@pytest.mark.parametrize(
    ('name', 'value'), [('num_aug', 0), ('tf', 'all'), ('tf_timeout', '.nan')]
)
def test_invalid_parameters_end_the_node_with_an_error_message(node, name, value):
    process = node(**{name: value})
    output, _ = communicate_with_stall_timeout(process)
    assert process.returncode == 1
    assert f'{name}' in output
    assert 'Traceback' not in output
