"""Several recordings at once, by processes and by Ray, and from the command line."""

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
from metrabs_ros.recordings.bags import bags_in
from metrabs_ros.recordings.options import AnnotateOptions

PROJECT = pathlib.Path(__file__).parents[2]
PATIENCE_S = 120.0
PASSED_ON_S = 4.0
"""Until then, some of the processes import modules."""


@pytest.fixture
def bags(tmp_path, street):
    """Return three bags: two of a street, and one that is none."""
    (tmp_path / 'broken.mcap').write_bytes(b'nothing')
    image = street[..., ::-1]
    return [
        write_bag(tmp_path / 'first', [image]),
        tmp_path / 'broken.mcap',
        write_bag(tmp_path / 'second', [image] * 2),
    ]


def tasks_for(bags):
    return [
        parallel.Task(bag, bag.parent / f'{bag.stem}_people', AnnotateOptions(threads=1))
        for bag in bags
    ]


def check(outcomes, bags):
    """Hold that both bags were worked on, and that of the other one it is said why not."""
    by_source = {outcome.task.source: outcome for outcome in outcomes}
    assert 'cannot be read as a bag' in by_source[bags[1]].complaint
    for bag, frames in ((bags[0], 1), (bags[2], 2)):
        assert by_source[bag].summary.worked_on == frames
        found = people_in(by_source[bag].task.output)
        assert [len(people) > 1 for _, people in found] == [True] * frames
        np.testing.assert_allclose(found[0][1].poses3d_mm, found[-1][1].poses3d_mm, atol=1e-3)


def test_bags_are_worked_on_in_processes(bags):
    check(list(parallel.in_processes(tasks_for(bags), 2)), bags)


def test_bags_are_worked_on_by_a_local_ray(bags):
    pytest.importorskip('ray')
    check(list(parallel.on_ray(tasks_for(bags), 'local')), bags)


def test_the_command_line_says_what_came_of_each(bags, tmp_path, capfd):
    arguments = ['annotate', *map(str, bags), '-o', str(tmp_path / 'out'), '--workers', '2']
    assert cli.main([*arguments, '--csv']) == 1
    said = capfd.readouterr()
    assert '1 of 1 frames' in said.out
    assert '2 of 2 frames' in said.out
    assert 'broken.mcap cannot be read as a bag' in said.err
    assert (tmp_path / 'out' / 'first_people' / 'joints.csv').exists()
    assert (tmp_path / 'out' / 'second_people' / 'metadata.yaml').exists()
    # Again, only what is not there is done.
    assert cli.main([*arguments, '--csv']) == 1
    again = capfd.readouterr()
    assert 'first_people already exists and is skipped' in again.out
    assert 'frames' not in again.out


def test_a_single_bag_goes_where_it_is_told(bags, tmp_path, capfd):
    assert cli.main(['annotate', str(bags[0]), '-o', str(tmp_path / 'one'), '--follow']) == 0
    assert len(people_in(tmp_path / 'one')) == 1
    assert cli.main(['annotate', str(bags[0]), '-o', str(tmp_path / 'one')]) == 1
    assert '--overwrite replaces it' in capfd.readouterr().err


def test_a_folder_of_bags_stands_for_them(tmp_path, street):
    folder = tmp_path / 'week'
    bags = [write_bag(folder / name, [street]) for name in ('monday', 'tuesday')]
    (folder / 'notes.txt').touch()
    assert bags_in(folder) == bags
    assert bags_in(bags[0]) == [bags[0]]
    (folder / 'monday_people').mkdir()
    (folder / 'monday_people' / 'metadata.yaml').touch()
    assert bags_in(folder) == bags
    # What is left of a recorder that was killed is one bag, whatever it is split into.
    (bags[0] / 'metadata.yaml').unlink()
    (bags[0] / 'monday.mcap').rename(bags[0] / 'monday_0.mcap')
    (bags[0] / 'monday_1.mcap').write_bytes((bags[0] / 'monday_0.mcap').read_bytes())
    assert bags_in(bags[0]) == [bags[0]]
    # Others without a number are bags of their own.
    (bags[1] / 'metadata.yaml').unlink()
    (bags[1] / 'evening.mcap').write_bytes((bags[1] / 'tuesday.mcap').read_bytes())
    assert [bag.name for bag in bags_in(bags[1])] == ['evening.mcap', 'tuesday.mcap']


def test_a_wrong_skeleton_lists_the_known_ones(bags, capfd):
    assert cli.main(['annotate', str(bags[0]), '--skeleton', 'nonsense']) == 1
    assert 'coco_17' in capfd.readouterr().err


def log_progress():
    logging.getLogger('metrabs_ros.backends').info('still building %s: %.0f s', 'a network', 7)


def test_log_records_of_other_processes_are_printed(capfd):
    with parallel._pool(1) as pool:
        pool.submit(log_progress).result()
    assert capfd.readouterr().out == 'still building a network: 7 s\n'


def processes_of(group):
    """Return what is running in a process group: the children of each process, by its number."""
    children = {}
    for folder in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            fields = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:  # It ended meanwhile.
            continue
        if int(fields[2]) == group and fields[0] != 'Z':
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    return children


def wait_until(condition):
    """Wait until something is true; return whether it became so."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize('delay_s', [0.0, PASSED_ON_S], ids=['at once', 'after a while'])
def test_an_interruption_ends_all_processes_quietly(tmp_path, street, delay_s):
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
        # The process that keeps track of semaphores, and two workers.
        assert wait_until(lambda: len(processes_of(process.pid).get(process.pid, [])) >= 3)
        time.sleep(delay_s)  # Into the imports, which cannot be watched from here.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert 'Traceback' not in errors
        assert 'run the same command again' in errors
        assert process.returncode == 130
        assert wait_until(lambda: not processes_of(process.pid))
    finally:
        if processes_of(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
