"""A signal at any time of the start ends a program quietly, with the usual exit status."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from conftest import DATA

from metrabs_ros import startup_signals

PROJECT = pathlib.Path(__file__).parents[1]
TIMEOUT_S = 120.0
FIRST_MODULE = 'metrabs_ros.startup_signals'
NUMBERS_OF_IMPORTS = (1, 3, 10, 50, 200, 350)
"""Modules that are imported between that one and the signal."""
IMAGE_COUNT = 400

NODES = {
    'pose_node': ('scripts/pose_node',),
    'view_node': ('scripts/view_node', '--web-port', '0', '--data-port', '0'),
    'demo_camera': ('scripts/demo_camera', '--input', DATA / 'street.png', '--readers', '9'),
    'module pose_node': ('-m', 'metrabs_ros.node.pose_node'),
    'module demo_camera': (
        *('-m', 'metrabs_ros.node.demo_camera'),
        *('--input', DATA / 'street.png', '--readers', '9'),
    ),
}
COMMANDS = {
    'module cli': ('-m', 'metrabs_ros.cli'),
    'module': ('-m', 'metrabs_ros'),
    # As the script that pip installs.
    'script': ('-c', 'import sys; from metrabs_ros.__main__ import main; sys.exit(main())'),
}


class Program:
    """A program that tells which modules it imports."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [sys.executable, '-X', 'importtime', *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        self.errors = []

    def wait_for_imports(self, number):
        """Wait until so many modules more than the first one of this package are imported."""
        # Ends the loop if it never imports so many.
        watch = threading.Timer(TIMEOUT_S, self.process.kill)
        watch.start()
        try:
            self._read_until_imported(number)
        finally:
            watch.cancel()

    def _read_until_imported(self, number):
        left = None
        for line in self.process.stderr:
            if not line.startswith('import time:'):
                self.errors.append(line)
            elif line.split('|')[-1].strip() == FIRST_MODULE:
                left = number
            elif left is not None:
                left -= 1
            if left == 0:
                return
        raise AssertionError(f'it ended by itself: {self.errors}')

    def end(self, sent):
        """Send a signal; return the exit status and what was printed but the modules."""
        self.process.send_signal(sent)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        lines = [line for line in errors.splitlines() if not line.startswith('import time:')]
        return self.process.returncode, ''.join(self.errors) + '\n'.join(lines)


@pytest.fixture
def start():
    """Return what starts a program."""
    started = []

    def start(*command):
        started.append(Program(*command))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.communicate()


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
@pytest.mark.parametrize('name', NODES)
def test_nodes_end_quietly_while_they_start(start, name, sent):
    for number in NUMBERS_OF_IMPORTS:
        node = start(*NODES[name])
        node.wait_for_imports(number)
        status, errors = node.end(sent)
        assert 'Traceback' not in errors, number
        # SIGTERM has no handler for a moment between those for the imports and those of ROS.
        assert status == 0 or (sent, status) == (signal.SIGTERM, -signal.SIGTERM), (number, errors)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Return a folder of pictures that take longer than the start."""
    folder = tmp_path_factory.mktemp('pictures')
    for i in range(IMAGE_COUNT):
        cv2.imwrite(str(folder / f'{i:04}.png'), np.zeros((240, 320, 3), np.uint8))
    return folder


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_end_quietly_while_they_start(start, name, pictures, tmp_path):
    annotate = ('annotate', pictures, '-o', tmp_path / 'out', '--fov', '60')
    for number in NUMBERS_OF_IMPORTS:
        command = start(*COMMANDS[name], *annotate)
        command.wait_for_imports(number)
        status, errors = command.end(signal.SIGINT)
        assert 'Traceback' not in errors, number
        assert status == 128 + signal.SIGINT, (number, errors)


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        startup_signals.restore_defaults()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    statuses = (startup_signals.NODE_STATUSES,)
    thread = threading.Thread(target=startup_signals.exit_on_signals, args=statuses)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
