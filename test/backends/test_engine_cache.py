"""Engines are built once, stored atomically, and never read from files of other users."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from metrabs_ros.backends.engine_cache import MANIFEST, EngineCache, RequiredCache, key_hash

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
    """Builds engines that are text files, and counts the builds."""

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


def test_different_weights_have_different_engines(root):
    build = Builder()
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    assert EngineCache(root).load(OTHER_KEY, build, read) == 'engine 2'
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'


def test_other_users_cannot_read_or_write_the_cache(root):
    EngineCache(root).load(KEY, Builder(), read)
    assert root.stat().st_mode & 0o777 == 0o700
    assert (root / key_hash(KEY)).stat().st_mode & 0o777 == 0o700


def replace_with_link(path):
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
        lambda entry: replace_with_link(entry / 'engine'),
        replace_with_link,
    ],
)
def test_changed_engines_are_rebuilt(root, damage, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    damage(root / key_hash(KEY))
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'is rebuilt' in caplog.text


def test_an_engine_of_another_key_is_not_used(root):
    build = Builder()
    EngineCache(root).load(OTHER_KEY, build, read)
    (root / key_hash(OTHER_KEY)).rename(root / key_hash(KEY))
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert json.loads((root / key_hash(KEY) / MANIFEST).read_text())['key'] == KEY


def test_a_folder_that_is_writable_by_others_is_not_read(root, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    root.chmod(0o777)
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'is writable by other users' in caplog.text


def test_a_folder_of_another_user_is_not_read(root, monkeypatch, caplog):
    build = Builder()
    EngineCache(root).load(KEY, build, read)
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    assert EngineCache(root).load(KEY, build, read) == 'engine 2'
    assert 'belongs to user' in caplog.text


def test_an_unavailable_cache_causes_one_warning(tmp_path, caplog):
    (tmp_path / 'file').write_text('not a folder')
    cache, build = EngineCache(tmp_path / 'file' / 'engines'), Builder()
    with caplog.at_level(logging.WARNING):
        assert cache.load(KEY, build, read) == 'engine 1'
        assert cache.load(OTHER_KEY, build, read) == 'engine 2'
    assert len(caplog.records) == 1
    assert 'the engine is built without it' in caplog.text


def test_a_full_disk_is_handled_without_leftover_files(root, caplog):
    build = Builder()

    def build_until_full(folder):
        build(folder)
        if folder.parent == root:
            raise OSError(28, 'No space left on device')

    assert EngineCache(root).load(KEY, build_until_full, read) == 'engine 2'
    assert [path.suffix for path in root.iterdir()] == ['.lock']
    assert 'No space left' in caplog.text


def test_building_in_advance_needs_a_cache_that_can_be_used(tmp_path, root):
    (tmp_path / 'file').write_text('not a folder')
    build = Builder()
    message = 'engines cannot be used: .*Not a directory.*; correct that, or .* METRABS_ROS_CACHE'
    with pytest.raises(OSError, match=message):
        RequiredCache(tmp_path / 'file' / 'engines').load(KEY, build, read, lambda: 'in memory')
    assert build.count == 0

    def fill_the_disk(folder):
        raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match='No space left'):
        RequiredCache(root).load(KEY, fill_the_disk, read, lambda: 'in memory')
    assert RequiredCache(root).load(KEY, build, read) == 'engine 1'
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'


def test_a_failed_build_leaves_no_files(root):
    def fail(folder):
        (folder / 'half').write_text('half')
        raise ValueError('cannot be built')

    with pytest.raises(ValueError, match='cannot be built'):
        EngineCache(root).load(KEY, fail, read)
    assert [path.suffix for path in root.iterdir()] == ['.lock']


def start_build(root, log, seconds):
    return subprocess.Popen(
        [sys.executable, '-c', BUILD_SLOWLY, str(root), str(log), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_of_two_simultaneous_processes_builds(root, tmp_path):
    log = tmp_path / 'log'
    processes = [start_build(root, log, 0.5) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ['whole', 'whole']
    assert log.read_text() == 'built '


def test_a_killed_build_does_not_block_the_next_build(root, tmp_path):
    log = tmp_path / 'log'
    killed = start_build(root, log, 600)
    deadline_s = time.monotonic() + 300
    while not list(root.glob('*.part/half')):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert start_build(root, log, 0).communicate()[0].strip() == 'whole'
    assert not list(root.glob('*.part'))
