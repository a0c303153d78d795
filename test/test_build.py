"""colcon builds the package as on a ROS install, and what it builds can be run."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from progress import communicate_with_stall_timeout, run_with_stall_timeout

PROJECT = pathlib.Path(__file__).parents[1]
PREFIX = pathlib.Path(sys.prefix)


@pytest.fixture(scope='module')
def overlay(tmp_path_factory):
    """Return the install folder of a scratch workspace with the package in it."""
    workspace = tmp_path_factory.mktemp('workspace')
    (workspace / 'src').mkdir()
    (workspace / 'src' / 'metrabs_ros').symlink_to(PROJECT)
    result = subprocess.run(
        [
            *(PREFIX / 'bin' / 'colcon', 'build', '--packages-select', 'metrabs_ros'),
            *('--cmake-args', f'-DPython3_EXECUTABLE={sys.executable}', '-DBUILD_TESTING=OFF'),
        ],
        cwd=workspace,
        env={
            **os.environ,
            'AMENT_PREFIX_PATH': str(PREFIX),
            'CMAKE_PREFIX_PATH': str(PREFIX),
            'PATH': f'{PREFIX / "bin"}:{os.environ["PATH"]}',
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return workspace / 'install'


def sourced(overlay, command):
    """Return how to run a shell command with the overlay sourced, away from the source tree."""
    environ = {**os.environ, 'PATH': f'{PREFIX / "bin"}:{os.environ["PATH"]}'}
    arguments = ['bash', '-c', f'source {overlay}/setup.bash && {command}']
    return arguments, {'cwd': overlay, 'env': environ}


def in_overlay(overlay, command):
    """Run a shell command with the overlay sourced."""
    arguments, options = sourced(overlay, command)
    return run_with_stall_timeout(arguments, **options)


def test_node_and_messages_come_from_the_overlay(overlay):
    script = (
        'import metrabs_ros, metrabs_ros.msg, metrabs_ros.node.pose_node as node;'
        'print(metrabs_ros.__file__, metrabs_ros.msg.__file__, node.__file__);'
        'metrabs_ros.load_model, metrabs_ros.msg.SkeletonArray'
    )
    result = in_overlay(overlay, f'python -c "{script}"')
    assert result.returncode == 0, result.stderr
    files = result.stdout.split()
    assert len(files) == 3
    assert all(file.startswith(str(overlay)) for file in files), files


def test_recordings_have_the_definitions_of_the_messages(overlay):
    script = (
        'from metrabs_ros.recordings import message_types as types;'
        'print(types.__file__, types.typestore().fielddefs[types.SKELETONS][1][0][0])'
    )
    result = in_overlay(overlay, f'python -c "{script}"')
    assert result.returncode == 0, result.stderr
    file, first_field = result.stdout.split()
    assert file.startswith(str(overlay))
    assert first_field == 'header'


def test_the_executable_is_where_ros2_run_looks(overlay):
    prefix = overlay / 'metrabs_ros'
    executable = prefix / 'lib' / 'metrabs_ros' / 'pose_node'
    assert os.access(executable, os.X_OK)
    assert (prefix / 'share/ament_index/resource_index/packages/metrabs_ros').exists()
    arguments, options = sourced(overlay, f'exec {executable}')
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if 'blazepose is ready' in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = communicate_with_stall_timeout(process)
    finally:
        process.kill()
    output = ''.join(lines) + rest
    assert process.returncode == 0, output
    assert 'blazepose is ready' in output, output
    assert 'Traceback' not in output, output


@pytest.mark.parametrize('folder', ['launch', 'config'])
def test_launch_files_and_configuration_are_installed(overlay, folder):
    installed = overlay / 'metrabs_ros' / 'share' / 'metrabs_ros' / folder
    assert sorted(f.name for f in installed.iterdir() if f.is_file()) == sorted(
        f.name for f in (PROJECT / folder).iterdir() if f.is_file()
    )
