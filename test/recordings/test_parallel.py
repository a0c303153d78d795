"""Annotation of several recordings in processes, with Ray, and from the command line."""

from __future__ import annotations

import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from recorded_bags import people_in, write_bag

from metrabs_ros import cli
from metrabs_ros.recordings import parallel
from metrabs_ros.recordings.bags import find_bags
from metrabs_ros.recordings.options import AnnotateOptions

PROJECT = pathlib.Path(__file__).parents[2]
TIMEOUT_S = 120.0
IMPORT_DELAY_S = 4.0
"""Time during which some of the processes import modules, in seconds."""


@pytest.fixture
def bags(tmp_path, street):
    """Return two bags of the street image, and an invalid file between them."""
    (tmp_path / 'broken.mcap').write_bytes(b'nothing')
    image = street[..., ::-1]
    return [
        write_bag(tmp_path / 'first', [image]),
        tmp_path / 'broken.mcap',
        write_bag(tmp_path / 'second', [image] * 2),
    ]


def make_tasks(bags):
    return [
        parallel.Task(bag, bag.parent / f'{bag.stem}_people', AnnotateOptions(threads=1))
        for bag in bags
    ]


def check_outcomes(outcomes, bags):
    """Check that both bags were annotated, and that an error is returned for the invalid file."""
    by_source = {outcome.task.source: outcome for outcome in outcomes}
    assert 'cannot be read as a bag' in by_source[bags[1]].error_message
    for bag, frames in ((bags[0], 1), (bags[2], 2)):
        assert by_source[bag].summary.processed == frames
        found = people_in(by_source[bag].task.output)
        assert [len(people) > 1 for _, people in found] == [True] * frames
        np.testing.assert_allclose(found[0][1].poses3d_mm, found[-1][1].poses3d_mm, atol=1e-3)


@pytest.mark.slow
def test_bags_are_annotated_in_processes(bags):
    check_outcomes(list(parallel.run_in_processes(make_tasks(bags), 2)), bags)


@pytest.mark.slow
def test_bags_are_annotated_with_local_ray(bags):
    pytest.importorskip('ray')
    check_outcomes(list(parallel.run_on_ray(make_tasks(bags), 'local')), bags)


@pytest.mark.slow
def test_the_command_line_reports_each_recording(bags, tmp_path, capfd):
    arguments = ['annotate', *map(str, bags), '-o', str(tmp_path / 'out'), '--workers', '2']
    assert cli.main([*arguments, '--csv']) == 1
    captured = capfd.readouterr()
    assert '1 of 1 frames' in captured.out
    assert '2 of 2 frames' in captured.out
    assert 'broken.mcap cannot be read as a bag' in captured.err
    assert (tmp_path / 'out' / 'first_people' / 'joints.csv').exists()
    assert (tmp_path / 'out' / 'second_people' / 'metadata.yaml').exists()
    # A second run annotates only recordings without results.
    assert cli.main([*arguments, '--csv']) == 1
    again = capfd.readouterr()
    assert 'first_people already exists and is skipped' in again.out
    assert 'frames' not in again.out


def test_the_output_option_names_the_results_of_a_single_bag(bags, tmp_path, capfd):
    assert cli.main(['annotate', str(bags[0]), '-o', str(tmp_path / 'one'), '--follow']) == 0
    assert len(people_in(tmp_path / 'one')) == 1
    assert cli.main(['annotate', str(bags[0]), '-o', str(tmp_path / 'one')]) == 1
    assert 'use --overwrite to replace it' in capfd.readouterr().err


def test_bags_in_a_folder_are_found(tmp_path, street):
    folder = tmp_path / 'week'
    bags = [write_bag(folder / name, [street]) for name in ('monday', 'tuesday')]
    (folder / 'notes.txt').touch()
    assert find_bags(folder) == bags
    assert find_bags(bags[0]) == [bags[0]]
    (folder / 'monday_people').mkdir()
    (folder / 'monday_people' / 'metadata.yaml').touch()
    assert find_bags(folder) == bags
    # Numbered files without metadata are one split bag.
    (bags[0] / 'metadata.yaml').unlink()
    (bags[0] / 'monday.mcap').rename(bags[0] / 'monday_0.mcap')
    (bags[0] / 'monday_1.mcap').write_bytes((bags[0] / 'monday_0.mcap').read_bytes())
    assert find_bags(bags[0]) == [bags[0]]
    # Files without a number are separate bags.
    (bags[1] / 'metadata.yaml').unlink()
    (bags[1] / 'evening.mcap').write_bytes((bags[1] / 'tuesday.mcap').read_bytes())
    assert [bag.name for bag in find_bags(bags[1])] == ['evening.mcap', 'tuesday.mcap']


def test_an_unknown_skeleton_is_rejected_with_the_known_names(bags, capfd):
    assert cli.main(['annotate', str(bags[0]), '--skeleton', 'nonsense']) == 1
    assert 'coco_17' in capfd.readouterr().err


def log_progress():
    logging.getLogger('metrabs_ros.backends').info('still building %s: %.0f s', 'a network', 7)


def test_log_records_of_worker_processes_are_printed(capfd):
    with parallel._pool(1) as pool:
        pool.submit(log_progress).result()
    assert capfd.readouterr().out == 'still building a network: 7 s\n'


def child_processes(group):
    """Return the children of each running process of a process group, by process id."""
    children = {}
    for folder in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            fields = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:  # The process has ended meanwhile.
            continue
        if int(fields[2]) == group and fields[0] != 'Z':
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    return children


def wait_until(condition):
    """Wait until a condition is true; return False after the timeout."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize('delay_s', [0.0, IMPORT_DELAY_S], ids=['at once', 'after a while'])
def test_sigint_ends_all_processes_without_tracebacks(tmp_path, street, delay_s):
    bags = [write_bag(tmp_path / name, [street[..., ::-1]] * 300) for name in ('a', 'b', 'c')]
    command = [sys.executable, '-m', 'metrabs_ros', 'annotate', *map(str, bags), '--workers', '2']
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # The resource tracker of multiprocessing, and two workers.
        assert wait_until(lambda: len(child_processes(process.pid).get(process.pid, [])) >= 3)
        time.sleep(delay_s)  # The imports of the workers cannot be observed.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert 'Traceback' not in errors
        assert 'run the same command again' in errors
        assert process.returncode == 130
        assert wait_until(lambda: not child_processes(process.pid))
    finally:
        if child_processes(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


POOL_PROGRAM = """
import os, time
from metrabs_ros.recordings import parallel

pool = parallel._pool(1)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(600)
"""


def test_worker_processes_end_with_a_killed_parent():
    command = [sys.executable, '-c', POOL_PROGRAM]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        # All processes that share the pipe have ended.
        assert process.communicate(timeout=TIMEOUT_S) == ('', None)
        assert wait_until(lambda: not os.path.exists(f'/proc/{worker}'))
    finally:
        process.kill()
