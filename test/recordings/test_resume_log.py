"""What was found is known again, and nothing else is."""

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


def written(file, count):
    log = ResumeLog(file, IDENTITY)
    for i in range(count):
        log.append(Key(0, i), np.arange(float(i)))
    log.close()


def replayed(file, identity=IDENTITY, count=6):
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
def test_after_a_cut_all_whole_frames_before_it_are_known(tmp_path_factory, lost):
    file = tmp_path_factory.mktemp('journal') / 'journal'
    written(file, 5)
    size = file.stat().st_size
    with open(file, 'r+b') as stream:
        stream.truncate(max(0, size - lost))
    before = replayed(file)
    assert before == 5 if lost == 0 else before < 5
    # It goes on from there.
    log = ResumeLog(file, IDENTITY)
    for i in range(before):
        assert log.replay(Key(0, i)) is not None
    assert log.replay(Key(0, before)) is None
    log.append(Key(0, before), np.arange(float(before)))
    log.close()
    assert replayed(file) == before + 1


def test_a_journal_of_something_else_is_begun_anew(tmp_path):
    written(tmp_path / 'journal', 3)
    assert replayed(tmp_path / 'journal', {'source': 'b'}) == 0
    assert replayed(tmp_path / 'journal') == 0


@pytest.mark.parametrize(
    'about', [{}, {'journal_format': FORMAT_VERSION - 1}], ids=['none', 'earlier']
)
def test_a_journal_of_another_format_is_begun_anew(tmp_path, about):
    written(tmp_path / 'journal', 3)
    _, _, entries = (tmp_path / 'journal').read_bytes().partition(b'\n')
    first_line = json.dumps({**IDENTITY, **about}, sort_keys=True).encode()
    (tmp_path / 'journal').write_bytes(first_line + b'\n' + entries)
    assert replayed(tmp_path / 'journal') == 0


def test_frames_in_another_order_are_not_known(tmp_path):
    written(tmp_path / 'journal', 3)
    log = ResumeLog(tmp_path / 'journal', IDENTITY)
    assert log.replay(Key(0, 0)) is not None
    assert log.replay(Key(1, 1)) is None
    assert log.replay(Key(0, 1)) is None
    log.close()


def test_people_come_back_as_they_went():
    for people in (people_at((0, 0, 3000), (500, 0, 4000)), People.empty(BLAZEPOSE_33)):
        back = from_numbers(to_numbers(people), BLAZEPOSE_33, (480, 640))
        for field in dataclasses.fields(People):
            if field.name not in ('skeleton', 'ids', 'in_view'):
                np.testing.assert_array_equal(
                    getattr(back, field.name), getattr(people, field.name), field.name
                )
