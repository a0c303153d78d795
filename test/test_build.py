"""The package can be built with colcon, and the installed executables and messages work."""

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
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def overlay(tmp_path_factory):
    """Return the install folder of a temporary workspace with the package."""
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


def sourced_command(overlay, command):
    """Return subprocess arguments for a shell command that uses the overlay."""
    environ = {**os.environ, 'PATH': f'{PREFIX / "bin"}:{os.environ["PATH"]}'}
    arguments = ['bash', '-c', f'source {overlay}/setup.bash && {command}']
    return arguments, {'cwd': overlay, 'env': environ}


def run_in_overlay(overlay, command):
    """Run a shell command that uses the overlay."""
    arguments, options = sourced_command(overlay, command)
    return run_with_stall_timeout(arguments, **options)


def test_node_and_messages_are_imported_from_the_overlay(overlay):
    script = (
        'import metrabs_ros, metrabs_ros.msg, metrabs_ros.node.pose_node as node;'
        'print(metrabs_ros.__file__, metrabs_ros.msg.__file__, node.__file__);'
        'metrabs_ros.load_model, metrabs_ros.msg.SkeletonArray'
    )
    result = run_in_overlay(overlay, f'python -c "{script}"')
    assert result.returncode == 0, result.stderr
    files = result.stdout.split()
    assert len(files) == 3
    assert all(file.startswith(str(overlay)) for file in files), files


def test_message_definitions_for_recordings_are_installed(overlay):
    script = (
        'from metrabs_ros.recordings import typestore as types;'
        'print(types.__file__, types.typestore().fielddefs[types.SKELETONS][1][0][0])'
    )
    result = run_in_overlay(overlay, f'python -c "{script}"')
    assert result.returncode == 0, result.stderr
    file, first_field = result.stdout.split()
    assert file.startswith(str(overlay))
    assert first_field == 'header'


def test_the_executable_is_in_the_folder_of_ros2_run(overlay):
    prefix = overlay / 'metrabs_ros'
    executable = prefix / 'lib' / 'metrabs_ros' / 'pose_node'
    assert os.access(executable, os.X_OK)
    assert (prefix / 'share/ament_index/resource_index/packages/metrabs_ros').exists()
    arguments, options = sourced_command(overlay, f'exec {executable}')
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
