"""Hostile bags are rejected or read in part, with bounded memory and time."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import hostile_bags
import pytest
from known_people import KnownPeople

from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.limits import (
    MAX_BAG_DEFINITION_LINES,
    MAX_DEFINITION_LINES,
    DefinitionBudget,
)
from metrabs_ros.recordings.options import MAX_WARNING_CHARS, AnnotateOptions

MAX_CPU_S = 15.0
MAX_MEMORY_MIB = 1200


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    """
    Return the outcome of each bag in a process with limited memory.

    It takes 20 s of processor time, so that all tests that need it are slow ones.
    """
    folder = tmp_path_factory.mktemp('hostile')
    bags = hostile_bags.write_all(folder)
    process = subprocess.Popen(
        [sys.executable, str(pathlib.Path(__file__).parent / 'annotate_all.py')],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answers, _ = process.communicate(
        ''.join(json.dumps(str(bag)) + '\n' for bag in bags.values()), timeout=300
    )
    lines = [json.loads(line) for line in answers.splitlines()]
    assert len(lines) == len(bags), f'the process died at {list(bags)[len(lines)]}'
    assert not list(pathlib.Path.cwd().glob('hacked'))
    return dict(zip(bags, lines))


@pytest.mark.slow
def test_hostile_bags_take_bounded_memory_and_time(outcomes):
    slow = {name: o for name, o in outcomes.items() if o['cpu_s'] > MAX_CPU_S}
    large = {name: o for name, o in outcomes.items() if o['peak_mib'] > MAX_MEMORY_MIB}
    assert not slow
    assert not large


@pytest.mark.slow
def test_the_outcome_of_each_bag_is_reported_in_bounded_lines(outcomes):
    for name, outcome in outcomes.items():
        assert not outcome['unexpected'], name
        assert outcome['messages'], name
        for message in outcome['messages']:
            assert message.isprintable(), name
            assert len(message) < 3 * MAX_WARNING_CHARS, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'why'),
    [
        ('mcap: unknown records within the limit', 'more records than a file of its size'),
        ('mcap: zeros', 'after decompression; at most'),
        ('mcap: understated size', 'more than 100 bytes'),
        ('ROS 1: bz2', 'after decompression; at most'),
        ('SQLite: endless view', 'is not a table of stored rows'),
        ('SQLite: computed data', 'is not a table of stored rows'),
        ('metadata: billion laughs', 'expands to more than'),
        ('compressed messages', 'decompresses to more than'),
        ('compressed file: .mcap', 'decompresses to more than'),
        ('a named pipe in a bag', 'is a named pipe'),
        ('a device in a bag', 'is a device'),
    ],
)
def test_the_reason_of_rejection_is_reported(outcomes, name, why):
    assert why in ' '.join(outcomes[name]['messages'])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['billion laughs', 'a list', 'binary', 'deep', 'python'])
def test_a_bag_with_unusable_metadata_is_read(outcomes, name):
    assert '3 of 3 frames' in ' '.join(outcomes[f'metadata: {name}']['messages'])


def test_the_progress_of_scanning_is_displayed(tmp_path, capfd, monkeypatch):
    # Scanning the small file is too fast for the default delay.
    monkeypatch.setattr('metrabs_ros.recordings.progress.DISPLAY_DELAY_S', 0.0)
    file = tmp_path / 'bag.mcap'
    file.write_bytes(hostile_bags.mcap(hostile_bags.IMAGE_TOPIC, hostile_bags.message() * 40_000))

    model = KnownPeople((0, 0, 3000))
    with pytest.raises(ValueError, match='no images with a CameraInfo'):
        annotate(file, tmp_path / 'out', AnnotateOptions(), model, lambda message: None, True)
    assert 'scanning bag.mcap' in capfd.readouterr().err
    # Without a progress display nothing is printed.
    Bag(file, lambda message: None).close()
    assert capfd.readouterr().err == ''


def test_definitions_are_parsed_up_to_a_limit():
    budget = DefinitionBudget()
    fields = ''.join(f'int32 f{i}\n' for i in range(MAX_DEFINITION_LINES))
    assert not budget.accepts(fields + 'int32 x\n')
    # Comments are not counted, and equal definitions are counted once.
    assert all(budget.accepts(fields + '# comment\n' * 9000) for _ in range(100))
    others = [f'int32 x{i}\n{fields[: len(fields) // 2]}' for i in range(100)]
    accepted = [budget.accepts(definition) for definition in others]
    assert 1 < sum(accepted) < MAX_BAG_DEFINITION_LINES // (MAX_DEFINITION_LINES // 2)
