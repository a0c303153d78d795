"""Complete entries of a resume log are replayed, and no others."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_people import people_at

from metrabs_ros.people import People
from metrabs_ros.recordings.resume_log import (
    FORMAT_VERSION,
    Key,
    ResumeLog,
    from_numbers,
    to_numbers,
)
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

IDENTITY = {'source': 'a'}


def write_log(file, count):
    log = ResumeLog(file, IDENTITY)
    for i in range(count):
        log.append(Key(0, i), np.arange(float(i)))
    log.close()


def count_replayed(file, identity=IDENTITY, count=6):
    log = ResumeLog(file, identity)
    found = []
    for i in range(count):
        numbers = log.replay(Key(0, i))
        if numbers is None:
            break
        np.testing.assert_array_equal(numbers, np.arange(float(i)))
        found.append(i)
    log.close()
    return len(found)


@given(st.integers(0, 400))
def test_complete_entries_of_a_truncated_log_are_replayed(tmp_path_factory, removed_bytes):
    file = tmp_path_factory.mktemp('resume_log') / 'resume_log'
    write_log(file, 5)
    size = file.stat().st_size
    with open(file, 'r+b') as stream:
        stream.truncate(max(0, size - removed_bytes))
    before = count_replayed(file)
    assert before == 5 if removed_bytes == 0 else before < 5
    # New entries can be appended.
    log = ResumeLog(file, IDENTITY)
    for i in range(before):
        assert log.replay(Key(0, i)) is not None
    assert log.replay(Key(0, before)) is None
    log.append(Key(0, before), np.arange(float(before)))
    log.close()
    assert count_replayed(file) == before + 1


def test_a_log_of_another_run_is_discarded(tmp_path):
    write_log(tmp_path / 'resume_log', 3)
    assert count_replayed(tmp_path / 'resume_log', {'source': 'b'}) == 0
    assert count_replayed(tmp_path / 'resume_log') == 0


@pytest.mark.parametrize(
    'about', [{}, {'log_format': FORMAT_VERSION - 1}], ids=['none', 'earlier']
)
def test_a_log_of_another_format_version_is_discarded(tmp_path, about):
    write_log(tmp_path / 'resume_log', 3)
    _, _, entries = (tmp_path / 'resume_log').read_bytes().partition(b'\n')
    first_line = json.dumps({**IDENTITY, **about}, sort_keys=True).encode()
    (tmp_path / 'resume_log').write_bytes(first_line + b'\n' + entries)
    assert count_replayed(tmp_path / 'resume_log') == 0


def test_frames_in_another_order_are_not_replayed(tmp_path):
    write_log(tmp_path / 'resume_log', 3)
    log = ResumeLog(tmp_path / 'resume_log', IDENTITY)
    assert log.replay(Key(0, 0)) is not None
    assert log.replay(Key(1, 1)) is None
    assert log.replay(Key(0, 1)) is None
    log.close()


def test_encoded_people_are_decoded_exactly():
    for people in (people_at((0, 0, 3000), (500, 0, 4000)), People.empty(BLAZEPOSE_33)):
        back = from_numbers(to_numbers(people), BLAZEPOSE_33, (480, 640))
        for field in dataclasses.fields(People):
            if field.name not in ('skeleton', 'ids', 'in_view'):
                np.testing.assert_array_equal(
                    getattr(back, field.name), getattr(people, field.name), field.name
                )
