"""Processes end on a signal; Python log records appear in the ROS log."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import rclpy
import rclpy.logging
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier

from metrabs_ros.node import process
from metrabs_ros.node.process import RosLogHandler

PERIOD_S = 0.1
NAMES = {
    logging.DEBUG: 'DEBUG',
    logging.INFO: 'INFO',
    logging.WARNING: 'WARN',
    logging.ERROR: 'ERROR',
    logging.CRITICAL: 'FATAL',
}
LINE = re.compile(r'\[(DEBUG|INFO|WARN|ERROR|FATAL)\] \[\d+\.\d+\] \[([\w.]+)\]: (.*)')

BUILD_SLOWLY = """
import logging, pathlib, sys, time
# Some libraries configure logging when they are imported.
logging.basicConfig(level=logging.DEBUG)
from metrabs_ros.backends import engine_cache
from metrabs_ros.node import pose_node

engine_cache.PROGRESS_PERIOD_S = float(sys.argv[2])

def load(settings):
    slow = engine_cache.EngineCache(pathlib.Path(sys.argv[1]))
    slow.load({'engine': 'slow'}, lambda folder: time.sleep(60), lambda folder: None)

pose_node._load_model = load
pose_node.main()
"""


def ros_lines(capfd):
    """Return the severity and the text of all logged lines."""
    matches = [LINE.fullmatch(line) for line in capfd.readouterr().err.splitlines()]
    assert all(matches)
    return [(match[1], match[3]) for match in matches]


@pytest.fixture
def ros_handler():
    """Return a handler with a ROS logger that logs all severities."""
    logger = rclpy.logging.get_logger('metrabs_ros_test')
    logger.set_level(rclpy.logging.LoggingSeverity.DEBUG)
    return RosLogHandler(logger)


def record(level, message, *arguments, **options):
    return logging.LogRecord('a', level, __file__, 1, message, arguments, None, **options)


def test_records_keep_their_severity(ros_handler, capfd):
    python = logging.Logger('of a test')
    python.addHandler(ros_handler)
    python.error('it %s', 'failed')
    python.warning('careful')
    python.info('by the way')
    python.debug('all the details')
    assert ros_lines(capfd) == [
        ('ERROR', 'it failed'),
        ('WARN', 'careful'),
        ('INFO', 'by the way'),
    ]


def test_severities_may_occur_in_any_order(ros_handler, capfd):
    for order in itertools.permutations(NAMES):
        for level in order:
            ros_handler.emit(record(level, 'text'))
        assert ros_lines(capfd) == [(NAMES[level], 'text') for level in order]


def test_several_threads_may_log_different_severities(ros_handler, capfd):
    def log(level):
        for _ in range(50):
            ros_handler.handle(record(level, 'text'))

    threads = [threading.Thread(target=log, args=(level,)) for level in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = ros_lines(capfd)
    assert sorted(lines) == sorted((name, 'text') for name in NAMES.values() for _ in range(50))


class Unprintable:
    def __str__(self):
        raise RuntimeError('cannot be shown')


@pytest.mark.parametrize(
    ('message', 'arguments', 'expected'),
    [
        ('two\nlines', (), r'two\nlines'),
        ('a NUL \0 in it', (), r'a NUL \x00 in it'),
        ('a lone \udc80 surrogate', (), r'a lone \udc80 surrogate'),
        ('100 % %s %d %n', (), '100 % %s %d %n'),
        ('%s', ('100 % %s %n',), '100 % %s %n'),
        ('\x1b[31mred\x1b[0m', (), r'\x1b[31mred\x1b[0m'),
        ('%s', ('x' * 2_000_000,), 'x' * (process.MAX_MESSAGE_CHARS - 3) + '...'),
        ('%d items', ('no number',), "'%d items': the arguments of "),
        ('%s', (Unprintable(),), "'%s': the arguments of "),
        (b'bytes', (), "b'bytes'"),
        (None, (), 'None'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_any_message_is_logged_on_one_line(ros_handler, capfd, message, arguments, expected):
    ros_handler.handle(record(logging.INFO, message, *arguments))
    ((severity, text),) = ros_lines(capfd)
    assert severity == 'INFO'
    assert text.startswith(expected)


def test_exceptions_are_logged_with_type_and_message(ros_handler, capfd):
    python = logging.Logger('of a test')
    python.addHandler(ros_handler)
    try:
        raise OSError('the disk is full')
    except OSError:
        python.exception('cannot be written')
    assert ros_lines(capfd) == [('ERROR', 'cannot be written: OSError: the disk is full')]


def test_a_failing_logger_does_not_affect_the_caller():
    class Failing:
        def __getattr__(self, severity):
            raise ValueError('Logger severity cannot be changed between calls.')

    python = logging.Logger('of a test')
    python.addHandler(RosLogHandler(Failing()))
    python.warning('careful')


def test_package_records_are_only_logged_by_ros(capfd, caplog):
    package_log = logging.getLogger('metrabs_ros')
    before = package_log.handlers[:], package_log.level, package_log.propagate
    rclpy.init()
    try:
        with process.forward_package_logs(rclpy.logging.get_logger('pose')):
            with process.forward_package_logs(rclpy.logging.get_logger('pose.inner')):
                logging.getLogger('metrabs_ros.backends').warning('careful')
            logging.getLogger('metrabs_ros.backends').info('by the way')
    finally:
        rclpy.shutdown()
    assert ros_lines(capfd) == [('WARN', 'careful'), ('INFO', 'by the way')]
    assert not caplog.records
    assert (package_log.handlers[:], package_log.level, package_log.propagate) == before


def test_build_progress_is_only_logged_in_the_format_of_ros(tmp_path):
    child = subprocess.Popen(
        [sys.executable, '-c', BUILD_SLOWLY, tmp_path / 'engines', str(PERIOD_S)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip('\n'))
        if len(lines) == 6:
            # Sent between two lines, because rcl prints an error if it logs during the shutdown.
            time.sleep(PERIOD_S / 2)
            child.send_signal(signal.SIGINT)
    assert child.wait(60) == 0, lines
    assert sum('still building slow' in line for line in lines) > 2, lines
    # Fast DDS itself prints messages about shared memory that other processes left.
    own = [line for line in lines if '[RTPS_' not in re.sub(r'\x1b\[[0-9;]*m', '', line)]
    assert [line for line in own if not LINE.fullmatch(line)] == []


def test_spinning_ends_if_the_executor_was_woken_before_the_shutdown():
    rclpy.init()
    node = Node('waiting')

    def spin():
        with contextlib.suppress(ExternalShutdownException):
            process.spin(node)

    spin_thread = threading.Thread(target=spin, daemon=True)
    spin_thread.start()
    try:
        time.sleep(0.5)
        # Like a signal, but without waking the executor before.
        rclpy.get_default_context().handle.shutdown()
        spin_thread.join(120)
        assert not spin_thread.is_alive()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def shared_memory_files(process_id):
    """Return the files of Fast DDS in shared memory that a process has mapped."""
    maps = pathlib.Path(f'/proc/{process_id}/maps').read_text()
    return {pathlib.Path(file) for file in re.findall(r'/dev/shm/fastrtps_[0-9a-f]{16}', maps)}


@pytest.mark.skipif(
    'fastrtps' not in get_rmw_implementation_identifier(), reason='the files are those of Fast DDS'
)
@pytest.mark.parametrize(
    ('module', 'parameter'),
    [('pose_node', 'target_frame:=map'), ('fusion_node', 'cameras:=[left,right]')],
)
def test_no_shared_memory_remains_after_an_active_node_has_ended(module, parameter):
    command = [sys.executable, '-m', f'metrabs_ros.node.{module}', '--ros-args', '-p', parameter]
    # Without discovery, so that the process does not map the shared memory of others.
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as child:
        # The last line of a start.
        assert any('waiting for' in line for line in child.stderr)
        files = shared_memory_files(child.pid)
        child.send_signal(signal.SIGINT)
    assert child.returncode == 0
    assert files
    assert [file for file in files if file.exists()] == []


def test_further_signals_do_not_disturb_the_end_of_a_node():
    command = [sys.executable, '-m', 'metrabs_ros.node.pose_node']
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert any('waiting for' in line for line in child.stderr)
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert 'Traceback' not in child.stderr.read()
    assert child.returncode == 0


def test_a_process_ends_if_the_middleware_blocks_at_the_exit():
    script = """
import ctypes, gc
from metrabs_ros.node import process
process.EXIT_TIMEOUT_S = 0.5
# Unlike the functions of CDLL, those of PyDLL keep the interpreter locked.
gc.collect = lambda: ctypes.PyDLL(None).sleep(60)
process.exit_process(0)
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert 'Timeout' in done.stderr
