"""Footage comes from where it can be had, and is checked."""

from __future__ import annotations

import zipfile

import pytest

from metrabs_ros import footage
from metrabs_ros.weights.download import DownloadError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder."""
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    return tmp_path


def test_without_apt_it_is_a_photograph(cache, monkeypatch):
    def write_photo(scratch, target):
        target.write_bytes(b'photo')
        return True

    monkeypatch.setattr(footage.shutil, 'which', lambda name: None)
    monkeypatch.setattr(footage, '_fetch_photo', write_photo)
    assert footage.default_footage().name == 'astronaut.png'


def test_without_anything_it_says_what_to_do(cache, monkeypatch):
    def offline(requirement, folder):
        raise DownloadError('there is no network')

    monkeypatch.setattr(footage, '_run', lambda command, folder: False)
    monkeypatch.setattr(footage, 'download_wheel', offline)
    with pytest.raises(footage.FootageError, match='--input'):
        footage.default_footage()


def test_a_video_of_another_content_is_not_taken(cache, monkeypatch):
    def other_video(command, folder):
        (folder / 'a.deb').touch()
        file = folder / footage.VIDEO_MEMBER
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'other')
        return True

    monkeypatch.setattr(footage.shutil, 'which', lambda name: name)
    monkeypatch.setattr(footage, '_run', other_video)
    monkeypatch.setattr(footage, '_fetch_photo', lambda scratch, target: False)
    with pytest.raises(footage.FootageError):
        footage.default_footage()
    assert not (cache / 'footage' / 'vtest.avi').exists()


@pytest.mark.parametrize('kind', ['no archive', 'no such member', 'claims to be huge'])
def test_a_hostile_wheel_is_not_unpacked(cache, monkeypatch, kind):
    def write_wheel(requirement, folder):
        file = folder / 'a.whl'
        if kind == 'no archive':
            file.write_bytes(b'nothing')
            return file
        member = 'other' if kind == 'no such member' else footage.PHOTO_MEMBER
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(100 * 2**20))
        return file

    monkeypatch.setattr(footage, '_run', lambda command, folder: False)
    monkeypatch.setattr(footage, 'download_wheel', write_wheel)
    with pytest.raises(footage.FootageError):
        footage.default_footage()
    assert not (cache / 'footage' / 'astronaut.png').exists()


def test_a_command_that_does_not_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(footage, 'COMMAND_TIMEOUT_S', 0.1)
    assert not footage._run(['sleep', '60'], tmp_path)
