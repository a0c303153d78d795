"""The networks that are part of the package are verified before each use."""

from __future__ import annotations

import pathlib
import re
import shutil

import hostile
import pytest

import metrabs_ros
from metrabs_ros.regular_file import sha256_of
from metrabs_ros.weights import bundled, store

FOLDER = bundled.FOLDER
MOVENET = 'movenet_multipose.xml'


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Return a folder with copies of the networks, which are used instead of those networks."""
    # The networks were used before, so that a stored result of their verification would show.
    for name in bundled.SHA256:
        bundled.bundled_network(name)
    folder = tmp_path / 'networks'
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(bundled, 'FOLDER', folder)
    return folder


def change(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def empty(file):
    file.write_bytes(b'')


def error_of(name):
    with pytest.raises(store.WeightsError, match='install metrabs_ros again') as caught:
        bundled.bundled_network(name)
    return str(caught.value)


@pytest.mark.parametrize('name', bundled.SHA256)
def test_the_networks_have_the_listed_checksums(name):
    assert sha256_of(FOLDER / name) == bundled.SHA256[name]
    assert bundled.bundled_network(name) == FOLDER / name


def test_the_readme_contains_the_checksums_of_the_sources():
    script = pathlib.Path(__file__).parents[2] / 'scripts' / 'convert_networks.py'
    sources = set(re.findall(r"'([0-9a-f]{64})'", script.read_text()))
    assert len(sources) == 4
    assert sources == set(re.findall('[0-9a-f]{64}', (FOLDER / 'README.md').read_text()))


def test_every_network_in_the_folder_is_listed():
    files = {file.name for file in FOLDER.iterdir()}
    assert files == {*bundled.SHA256, 'README.md', 'LICENSE'}
    assert set(store.BUNDLED.values()) <= set(bundled.SHA256)


def test_the_readme_names_every_network_with_its_source_and_licence():
    rows = [
        line for line in (FOLDER / 'README.md').read_text().splitlines() if line.startswith('| `')
    ]
    for name in bundled.SHA256:
        file = pathlib.PurePath(name)
        (row,) = [row for row in rows if f'`{file.stem}' in row]
        assert f'{file.suffix}`' in row
        assert '| @' in row
        assert 'Apache-2.0' in row
    assert 'Apache License' in (FOLDER / 'LICENSE').read_text()


@pytest.mark.parametrize('damage', [change, cut, empty])
@pytest.mark.parametrize('name', bundled.SHA256)
def test_an_altered_file_is_rejected_with_a_remedy(copied, name, damage):
    bundled.bundled_network(name)
    damage(copied / name)
    message = error_of(name)
    assert str(copied / name) in message
    assert bundled.SHA256[name] in message
    assert 'is damaged or was changed' in message


@pytest.mark.parametrize('name', bundled.SHA256)
def test_a_missing_file_is_rejected_with_a_remedy(copied, name):
    (copied / name).unlink()
    assert str(copied / name) in error_of(name)


@pytest.mark.parametrize('damage', [change, pathlib.Path.unlink])
def test_the_weights_are_verified_together_with_the_network(copied, damage):
    damage(copied / 'movenet_multipose.bin')
    assert 'movenet_multipose.bin' in error_of(MOVENET)


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_a_network_that_is_not_a_regular_file_is_rejected_without_blocking(copied, put):
    (copied / MOVENET).unlink()
    put(copied / MOVENET)
    message = hostile.run_in_child(lambda: bundled.bundled_network(MOVENET))
    assert message.startswith('WeightsError: '), message
    assert 'install metrabs_ros again' in message


@pytest.mark.parametrize('name', [MOVENET, 'pose_landmark_full.tflite'])
def test_a_model_with_an_altered_network_is_not_loaded(copied, name):
    change(copied / name)
    with pytest.raises(store.WeightsError, match=name):
        metrabs_ros.load_model('blazepose')
