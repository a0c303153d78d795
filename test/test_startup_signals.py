"""Signals during the start end a program without a traceback, with the usual exit status."""

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

from metrabs_ros import cli, startup_signals
from metrabs_ros.commands import annotate

PROJECT = pathlib.Path(__file__).parents[1]
TIMEOUT_S = 120.0
FIRST_MODULE = 'metrabs_ros.startup_signals'
NUMBERS_OF_IMPORTS = (1, 3, 10, 50, 200, 300, 350)
"""Numbers of modules that are imported after `FIRST_MODULE` and before the signal."""
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
    # The same code as in the script that pip installs.
    'script': ('-c', 'import sys; from metrabs_ros.__main__ import main; sys.exit(main())'),
}


class Program:
    """A program that reports the modules that it imports."""

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
        """Wait until a number of modules has been imported after `FIRST_MODULE`."""
        # Ends the loop if the program stops importing.
        timer = threading.Timer(TIMEOUT_S, self.process.kill)
        timer.start()
        try:
            self._read_until_imported(number)
        finally:
            timer.cancel()

    def _read_until_imported(self, number):
        remaining = None
        for line in self.process.stderr:
            if not line.startswith('import time:'):
                self.errors.append(line)
            elif line.split('|')[-1].strip() == FIRST_MODULE:
                remaining = number
            elif remaining is not None:
                remaining -= 1
            if remaining == 0:
                return
        raise AssertionError(f'the program ended before the signal: {self.errors}')

    def end(self, signum):
        """Send a signal; return the exit status and the output on stderr without the imports."""
        self.process.send_signal(signum)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        lines = [line for line in errors.splitlines() if not line.startswith('import time:')]
        return self.process.returncode, ''.join(self.errors) + '\n'.join(lines)


@pytest.fixture
def start():
    """Return a function that starts a program."""
    started = []

    def start(*command):
        started.append(Program(*command))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM], ids=lambda signum: signum.name)
@pytest.mark.parametrize('name', NODES)
def test_signals_during_the_start_of_a_node_end_it_without_a_traceback(start, name, signum):
    for number in NUMBERS_OF_IMPORTS:
        node = start(*NODES[name])
        node.wait_for_imports(number)
        status, errors = node.end(signum)
        assert 'Traceback' not in errors, number
        # SIGTERM has no handler between the restoration of the defaults and the start of ROS.
        is_default = (signum, status) == (signal.SIGTERM, -signal.SIGTERM)
        assert status == 0 or is_default, (number, errors)


@pytest.fixture(scope='module')
def image_folder(tmp_path_factory):
    """Return a folder with so many images that their processing takes longer than the start."""
    folder = tmp_path_factory.mktemp('images')
    for i in range(IMAGE_COUNT):
        cv2.imwrite(str(folder / f'{i:04}.png'), np.zeros((240, 320, 3), np.uint8))
    return folder


@pytest.mark.parametrize('name', COMMANDS)
def test_sigint_during_the_start_of_a_command_ends_it_without_a_traceback(
    start, name, image_folder, tmp_path
):
    annotate = ('annotate', image_folder, '-o', tmp_path / 'out', '--fov', '60')
    for number in NUMBERS_OF_IMPORTS:
        command = start(*COMMANDS[name], *annotate)
        command.wait_for_imports(number)
        status, errors = command.end(signal.SIGINT)
        assert 'Traceback' not in errors, number
        assert status == 128 + signal.SIGINT, (number, errors)


def test_openvino_is_imported_before_the_default_handlers_are_restored(monkeypatch, tmp_path):
    # Its import turns a KeyboardInterrupt into an ImportError, and cannot be repeated.
    handlers = []
    monkeypatch.setattr(
        annotate, 'import_openvino', lambda: handlers.append(signal.getsignal(signal.SIGINT))
    )
    before = signal.getsignal(signal.SIGINT)
    startup_signals.exit_on_signals(startup_signals.COMMAND_STATUSES)
    at_start = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(['annotate', str(tmp_path / 'missing')]) == 1
        assert handlers == [at_start]
        assert signal.getsignal(signal.SIGINT) is not at_start
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        startup_signals.exit_on_signals(startup_signals.NODE_STATUSES)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        startup_signals.restore_defaults()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_not_installed_from_other_threads():
    before = signal.getsignal(signal.SIGINT)
    statuses = (startup_signals.NODE_STATUSES,)
    thread = threading.Thread(target=startup_signals.exit_on_signals, args=statuses)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
