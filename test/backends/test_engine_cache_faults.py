"""A damaged, foreign, full or read-only cache costs time and one warning, but loading succeeds."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pathlib
import tempfile

import hostile
import numpy as np
import openvino
import pytest
import torch

import metrabs_ros
from metrabs_ros.backends import engine_cache as cache_module
from metrabs_ros.backends.engine_cache import MANIFEST, EngineCache, key_hash
from metrabs_ros.crop_networks import openvino_engine
from metrabs_ros.crop_networks.openvino_engine import OpenVinoCropEngine
from metrabs_ros.metrabs.checkpoint import read_checkpoint
from metrabs_ros.regular_file import open_own

KEY = {'engine': 'an engine', 'weights': '1234'}


class Builder:
    """Builds engines that are text files, and counts the builds."""

    def __init__(self, size: int = 0):
        self.count = 0
        self.size = size

    def __call__(self, folder):
        self.count += 1
        (folder / 'engine').write_text(f'engine {self.count}'.ljust(self.size))


def read(folder):
    return (folder / 'engine').read_text().rstrip()


def make():
    return 'made in memory'


def load(root: pathlib.Path, build: Builder) -> str:
    """Load in a child process, so that the tests cannot hang."""

    def raise_result():
        raise Exception(EngineCache(root).load(KEY, build, read))

    return hostile.run_in_child(raise_result)


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'engines'


@pytest.fixture
def entry(root):
    """Return the folder of an engine in the cache."""
    EngineCache(root).load(KEY, Builder(), read)
    return root / key_hash(KEY)


def assert_rebuilt(root):
    """Check that the entry is rebuilt and then used."""
    build = Builder()
    build.count = 1
    assert load(root, build) == 'Exception: engine 2'
    assert (root / key_hash(KEY) / 'engine').read_text() == 'engine 2'
    build.count = 7
    assert load(root, build) == 'Exception: engine 2'


@pytest.mark.parametrize('put', hostile.NOT_FILES)
@pytest.mark.parametrize('name', ['engine', MANIFEST, 'more', ''])
def test_entries_that_are_not_regular_files_are_rebuilt(root, entry, put, name):
    place = entry / name if name else entry
    if place.exists():
        place.rename(root.parent / 'elsewhere')
    put(place)
    if put is hostile.put_directory and name == '':
        entry.chmod(0o700)
    assert_rebuilt(root)


@pytest.mark.parametrize('name', ['engine', MANIFEST])
def test_huge_sparse_files_are_not_read(root, entry, name):
    hostile.put_sparse_file(entry / name)
    assert_rebuilt(root)


def manifest_of(entry, **changes) -> str:
    return json.dumps({**json.loads((entry / MANIFEST).read_text()), **changes})


MANIFESTS = {
    'nested lists': lambda entry: '[' * 60_000 + ']' * 60_000,
    'nested objects': lambda entry: '{"a":' * 10_000 + '1' + '}' * 10_000,
    'no text': lambda entry: b'\xff\xfe',
    'huge number': lambda entry: '{"key": ' + '9' * 50_000 + '}',
    'not a number': lambda entry: '{"key": NaN, "files": Infinity}',
    'text': lambda entry: '"text"',
    'null': lambda entry: 'null',
    'number': lambda entry: '1',
    'empty': lambda entry: '',
    'twice the key': lambda entry: manifest_of(entry).replace(
        '{"key"', '{"key": {"engine": "x"}, "key": null, "key2"'
    ),
    'no files': lambda entry: manifest_of(entry, files={}),
    'files are a list': lambda entry: manifest_of(entry, files=['engine']),
    'files are null': lambda entry: manifest_of(entry, files=None),
    'file is null': lambda entry: manifest_of(entry, files={'engine': None}),
    'no hash': lambda entry: manifest_of(entry, files={'engine': {'bytes': 8}}),
    'outside': lambda entry: manifest_of(entry, files={'../../secret': {'bytes': 6}}),
    'absolute': lambda entry: manifest_of(entry, files={'/etc/passwd': {'bytes': 6}}),
    'size is text': lambda entry: manifest_of(entry, files={'engine': {'bytes': '8'}}),
}


@pytest.mark.parametrize('manifest', MANIFESTS)
def test_an_engine_with_a_damaged_manifest_is_rebuilt(root, entry, manifest):
    content = MANIFESTS[manifest](entry)
    file = entry / MANIFEST
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_rebuilt(root)


@pytest.mark.parametrize(
    'content', [b'', b'engine', b'engine 1 and more', b'engine 3', b'\0' * 100_000]
)
def test_an_engine_with_changed_size_or_content_is_rebuilt(root, entry, content):
    (entry / 'engine').write_bytes(content)
    assert_rebuilt(root)


def test_an_entry_with_a_thousand_files_is_rebuilt(root, entry):
    for i in range(1000):
        (entry / str(i)).touch()
    assert_rebuilt(root)


def test_unreadable_engines_are_rebuilt(root, entry, caplog):
    def read_once_built(folder):
        if read(folder) == 'engine 1':
            raise RuntimeError('invalid network')
        return read(folder)

    build = Builder()
    build.count = 1
    with caplog.at_level(logging.WARNING):
        assert EngineCache(root).load(KEY, build, read_once_built) == 'engine 2'
    assert 'invalid network' in caplog.text
    assert len(caplog.records) == 1


def test_an_engine_that_is_unreadable_after_the_build_is_built_in_memory(root, caplog):
    def fail(folder):
        raise RuntimeError('invalid network')

    with caplog.at_level(logging.WARNING):
        assert EngineCache(root).load(KEY, Builder(), fail, make) == 'made in memory'
    assert len(caplog.records) == 1


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_locks_that_are_not_regular_files_are_not_used(root, put):
    root.mkdir(mode=0o700)
    put(root / f'{key_hash(KEY)}.lock')
    assert load(root, Builder()) == 'Exception: engine 1'


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_the_target_of_a_linked_lock_is_not_changed(root, link, caplog):
    root.mkdir(mode=0o700)
    victim = root.parent / 'victim'
    victim.write_text('content')
    link(victim, root / f'{key_hash(KEY)}.lock')
    assert EngineCache(root).load(KEY, Builder(), read) == 'engine 1'
    assert victim.read_text() == 'content'
    assert 'link' in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize('mode', ['ab', 'wb', 'r+b'])
def test_files_are_not_written_through_links(tmp_path, mode):
    victim = tmp_path / 'victim'
    victim.write_text('content')
    for place, link in (('symbolic', os.symlink), ('hard', os.link)):
        link(victim, tmp_path / place)
        with pytest.raises(OSError, match='link'):
            open_own(tmp_path / place, mode)
    assert victim.read_text() == 'content'


@pytest.mark.parametrize('put', [*hostile.NOT_FILES, pathlib.Path.touch])
def test_a_cache_that_is_not_a_private_folder_is_not_used(root, put):
    put(root)
    if put is hostile.put_directory:
        root.chmod(0o777)
    assert load(root, Builder()) == 'Exception: engine 1'
    assert load(root / 'below', Builder()) == 'Exception: engine 1'


def test_a_link_to_a_cache_folder_is_not_used(root, entry, caplog):
    root.rename(root.parent / 'elsewhere')
    root.symlink_to('elsewhere')
    build = Builder()
    assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    assert build.count == 1
    assert 'symbolic link' in caplog.text


def test_engines_are_built_once_with_a_permissive_umask(root):
    build, before = Builder(), os.umask(0)
    try:
        assert EngineCache(root).load(KEY, build, read) == 'engine 1'
        assert EngineCache(root).load(KEY, build, read) == 'engine 1'
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    'variables',
    [
        {'METRABS_ROS_CACHE': '~no-such-user/cache'},
        {'METRABS_ROS_CACHE': '/proc/nonexistent'},
        {'METRABS_ROS_CACHE': '/dev/null'},
        {'METRABS_ROS_CACHE': 'x' * 5000},
        {'HOME': '/proc/nonexistent', 'XDG_CACHE_HOME': ''},
        {'XDG_CACHE_HOME': '/dev/null/below'},
    ],
)
def test_an_invalid_cache_folder_causes_one_warning(monkeypatch, variables, caplog):
    monkeypatch.delenv('METRABS_ROS_CACHE', raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    build, cache = Builder(), EngineCache()
    with caplog.at_level(logging.WARNING):
        assert cache.load(KEY, build, read) == 'engine 1'
        assert cache.load(KEY, build, read) == 'engine 2'
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_a_cache_on_a_read_only_disk_is_used(tmp_path, caplog):
    with hostile.small_disk(tmp_path / 'disk', 1 << 20) as disk:
        build = Builder()
        EngineCache(disk / 'engines').load(KEY, build, read)
        hostile.make_read_only(disk)
        with caplog.at_level(logging.WARNING):
            assert EngineCache(disk / 'engines').load(KEY, build, read) == 'engine 1'
        assert not caplog.records
        other = {**KEY, 'weights': '5678'}
        assert EngineCache(disk / 'engines').load(other, build, read) == 'engine 2'
        assert len(caplog.records) == 1
        assert 'Read-only' in caplog.text


@pytest.mark.parametrize('size_bytes', [4 << 10, 16 << 10, 100_000, 160_000])
def test_on_a_full_disk_the_engine_is_built_elsewhere(tmp_path, caplog, size_bytes):
    with hostile.small_disk(tmp_path / 'disk', size_bytes) as disk:
        build = Builder(size=163_000)
        with caplog.at_level(logging.WARNING):
            assert EngineCache(disk / 'engines').load(KEY, build, read) == 'engine 2'
        assert len(caplog.records) == 1
        assert 'No space left' in caplog.text
        assert not list(disk.rglob('*.part'))


def test_without_disk_space_the_engine_is_built_in_memory(tmp_path, monkeypatch, caplog):
    with hostile.small_disk(tmp_path / 'disk', 16 << 10) as disk:
        monkeypatch.setattr(tempfile, 'tempdir', str(disk))
        build = Builder(size=163_000)
        with caplog.at_level(logging.WARNING):
            assert EngineCache(disk / 'engines').load(KEY, build, read, make) == 'made in memory'
        assert len(caplog.records) == 1


def test_waiting_for_the_lock_has_a_timeout(root, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, 'MAX_LOCK_WAIT_S', 0.2)
    root.mkdir(mode=0o700)
    with (root / f'{key_hash(KEY)}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert EngineCache(root).load(KEY, Builder(), read) == 'engine 1'
    assert 'another process has held' in caplog.text


# Tests with a real engine.


@pytest.fixture(scope='module')
def converted(checkpoint_folder):
    """Return the network as converted for OpenVINO."""
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    return openvino_engine._convert(checkpoint.crop_model, checkpoint.config)


@pytest.fixture
def one_conversion(converted, monkeypatch):
    """Convert the network once for all tests, as that takes seconds of processor time."""
    monkeypatch.setattr(openvino_engine, '_convert', lambda model, config: converted)


def load_engine(root, checkpoint_folder):
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    return OpenVinoCropEngine(
        checkpoint.crop_model, checkpoint.config, 'fp32', EngineCache(root), 1
    )


@pytest.fixture(scope='module')
def points(checkpoint_folder):
    """Return crops and the points that the network estimates for them."""
    crops = torch.from_numpy(np.random.default_rng(0).random((1, 3, 256, 256), np.float32))
    checkpoint = read_checkpoint(checkpoint_folder('s_centered'))
    with torch.inference_mode():
        return crops, checkpoint.crop_model(crops)


def assert_same_points(engine, points):
    crops, expected = points
    for actual, reference in zip(engine(crops), expected):
        np.testing.assert_allclose(actual, reference, atol=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures('one_conversion')
def test_openvino_runs_without_disk_space(
    checkpoint_folder, points, tmp_path, monkeypatch, caplog
):
    with hostile.small_disk(tmp_path / 'disk', 60 << 20) as disk:
        monkeypatch.setattr(tempfile, 'tempdir', str(disk))
        with caplog.at_level(logging.WARNING, 'metrabs_ros'):
            engine = load_engine(disk / 'engines', checkpoint_folder)
        assert_same_points(engine, points)
        warnings = [r for r in caplog.records if r.name.startswith('metrabs_ros')]
        assert len(warnings) == 1
        assert not list(disk.rglob('*.bin'))


@pytest.mark.slow
@pytest.mark.usefixtures('one_conversion')
def test_a_network_truncated_during_the_build_is_not_used(
    checkpoint_folder, points, tmp_path, monkeypatch, caplog
):
    save = openvino.save_model

    def save_truncated(network, file, **options):
        save(network, file, **options)
        os.truncate(pathlib.Path(file).with_suffix('.bin'), 1 << 20)

    monkeypatch.setattr(openvino, 'save_model', save_truncated)
    assert_same_points(load_engine(tmp_path, checkpoint_folder), points)
    assert 'cannot be used' in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures('one_conversion')
def test_a_model_loads_if_the_cache_folder_is_a_file(
    checkpoint_folder, tmp_path, monkeypatch, caplog
):
    (tmp_path / 'cache').touch()
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path / 'cache'))
    model = metrabs_ros.load_model(checkpoint_folder('s_centered'), 'openvino', threads=1)
    image = np.zeros((100, 100, 3), np.uint8)
    assert model.estimate_poses(image, [[10, 10, 50, 80]])['poses3d'].shape == (1, 40, 3)
    # The networks of the detector are part of the package.
    assert len(model.detect_poses(image)['boxes']) == 0
