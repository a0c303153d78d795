"""The sample video is downloaded from an available source and verified."""

from __future__ import annotations

import zipfile

import pytest

from metrabs_ros import demo_video
from metrabs_ros.weights.download import DownloadError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder."""
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    return tmp_path


def test_the_photograph_is_used_without_apt(cache, monkeypatch):
    def write_photo(scratch, target):
        target.write_bytes(b'photo')
        return True

    monkeypatch.setattr(demo_video.shutil, 'which', lambda name: None)
    monkeypatch.setattr(demo_video, '_fetch_photo', write_photo)
    assert demo_video.default_footage().name == 'astronaut.png'


def test_an_error_with_a_remedy_is_raised_without_a_network(cache, monkeypatch):
    def fail(requirement, folder):
        raise DownloadError('network unreachable')

    monkeypatch.setattr(demo_video, '_run', lambda command, folder: False)
    monkeypatch.setattr(demo_video, 'download_wheel', fail)
    with pytest.raises(demo_video.FootageError, match='--input'):
        demo_video.default_footage()


def test_a_video_with_a_wrong_checksum_is_not_used(cache, monkeypatch):
    def write_wrong_video(command, folder):
        (folder / 'a.deb').touch()
        file = folder / demo_video.VIDEO_MEMBER
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'other')
        return True

    monkeypatch.setattr(demo_video.shutil, 'which', lambda name: name)
    monkeypatch.setattr(demo_video, '_run', write_wrong_video)
    monkeypatch.setattr(demo_video, '_fetch_photo', lambda scratch, target: False)
    with pytest.raises(demo_video.FootageError):
        demo_video.default_footage()
    assert not (cache / 'footage' / 'vtest.avi').exists()


@pytest.mark.parametrize('kind', ['not an archive', 'missing member', 'huge member'])
def test_malicious_wheels_are_not_unpacked(cache, monkeypatch, kind):
    def write_wheel(requirement, folder):
        file = folder / 'a.whl'
        if kind == 'not an archive':
            file.write_bytes(b'nothing')
            return file
        member = 'other' if kind == 'missing member' else demo_video.PHOTO_MEMBER
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(100 * 2**20))
        return file

    monkeypatch.setattr(demo_video, '_run', lambda command, folder: False)
    monkeypatch.setattr(demo_video, 'download_wheel', write_wheel)
    with pytest.raises(demo_video.FootageError):
        demo_video.default_footage()
    assert not (cache / 'footage' / 'astronaut.png').exists()


def test_commands_have_a_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_video, 'COMMAND_TIMEOUT_S', 0.1)
    assert not demo_video._run(['sleep', '60'], tmp_path)
