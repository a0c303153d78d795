"""Engines are built once, are whole or not there, and nobody else's are ever read."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from metrabs_ros.backends.engine_cache import MANIFEST, EngineCache, hashed

KEY = {'engine': 'an engine', 'weights': '1234'}
OTHER_KEY = {**KEY, 'weights': '5678'}

BUILD_SLOWLY = """
import pathlib, sys, time
from metrabs_ros.backends.engine_cache import EngineCache

def build(folder):
    with open(sys.argv[2], 'a') as log:
        log.write('built ')
    (folder / 'half').write_text('half')
    time.sleep(float(sys.argv[3]))
    (folder / 'engine').write_text('whole')

cache = EngineCache(pathlib.Path(sys.argv[1]))
print(cache.load({'engine': 'an engine'}, build, lambda folder: (folder / 'engine').read_text()))
"""


class Builder:
    """Builds engines that are text files, and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self, folder):
        self.count += 1
        (folder / 'engine').write_text(f'engine {self.count}')


def read(folder):
    return (folder / 'engine').read_text()


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'engines'


def test_an_engine_is_built_once(root):
    build = Builder()
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    assert build.count == 1


def test_other_weights_are_another_engine(root):
    build = Builder()
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    assert EngineCache(root).load(OTHER_KEY, build, read) == 'engine 2'
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'


def test_nobody_else_can_look_or_write(root):
    EngineCache(root).load(KEY, Builder(), read)
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / hashed(KEY)).stat().st_mode & 0o777 == 0o700


def exchanged_for_a_link(path):
    elsewhere = path.with_name(f'{path.name}.elsewhere')
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    'damage',
    [
        lambda entry: (entry / 'engine').write_text('something else'),
        lambda entry: (entry / 'engine').unlink(),
        lambda entry: (entry / 'more').write_text('more'),
        lambda entry: (entry / MANIFEST).unlink(),
        lambda entry: (entry / MANIFEST).write_text('{"key": '),
        lambda entry: (entry / MANIFEST).write_text('[]'),
        lambda entry: (entry / 'engine').chmod(0o666),
        lambda entry: entry.chmod(0o777),
        lambda entry: exchanged_for_a_link(entry / 'engine'),
        exchanged_for_a_link,
    ],
)
def test_what_is_not_as_it_was_built_is_built_again(root, damage, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    damage(root / hashed(KEY))
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'is built again' in caplog.text


def test_another_engine_in_its_place_is_not_taken(root):
    build = Builder()
    EngineCache(root).load(OTHER_KEY, build, read)
    (root / hashed(OTHER_KEY)).rename(root / hashed(KEY))
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert json.loads((root / hashed(KEY) / MANIFEST).read_text())['key'] == KEY


def test_a_folder_that_others_can_write_to_is_not_read(root, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    root.chmod(0o777)
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'can be written to by others' in caplog.text


def test_somebody_elses_folder_is_not_read(root, monkeypatch, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'belongs to user' in caplog.text


def test_without_a_disk_to_write_to_it_goes_on_and_says_so_once(tmp_path, caplog):
    (tmp_path / 'file').write_text('no folder')
    cache, build = EngineCache(tmp_path / 'file' / 'engines'), Builder()
    with caplog.at_level(logging.WARNING):
        assert cache.load(KEY, build, read) == 'engine 1'
        assert cache.load(OTHER_KEY, build, read) == 'engine 2'
    assert len(caplog.records) == 1
    assert 'the engine is built without it' in caplog.text


def test_on_a_full_disk_it_goes_on_and_leaves_nothing(root, caplog):
    build = Builder()

    def build_until_full(folder):
        build(folder)
        if folder.parent == root:
            raise OSError(28, 'No space left on device')

    assert EngineCache(root).load(KEY, build_until_full, read) == 'engine 2'
    assert [path.suffix for path in root.iterdir()] == ['.lock']
    assert 'No space left' in caplog.text


def test_what_fails_to_be_built_leaves_nothing(root):
    def fail(folder):
        (folder / 'half').write_text('half')
        raise ValueError('cannot be built')

    with pytest.raises(ValueError, match='cannot be built'):
        EngineCache(root).load(KEY, fail, read)
    assert [path.suffix for path in root.iterdir()] == ['.lock']


def build_in_a_process(root, log, seconds):
    return subprocess.Popen(
        [sys.executable, '-c', BUILD_SLOWLY, str(root), str(log), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_that_start_together_one_builds(root, tmp_path):
    log = tmp_path / 'log'
    processes = [build_in_a_process(root, log, 0.5) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ['whole', 'whole']
    assert log.read_text() == 'built '


def test_a_killed_build_is_no_hindrance(root, tmp_path):
    log = tmp_path / 'log'
    killed = build_in_a_process(root, log, 600)
    deadline_s = time.monotonic() + 300
    while not list(root.glob('*.part/half')):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert build_in_a_process(root, log, 0).communicate()[0].strip() == 'whole'
    assert not list(root.glob('*.part'))
