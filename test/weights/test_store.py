"""Weights are fetched whole or not at all, and refused where they are not the published ones."""

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


def offline(monkeypatch):
    def refuse(requirement, folder):
        raise DownloadError('there is no network')

    monkeypatch.setattr(store, 'download_wheel', refuse)


def with_wheel(monkeypatch, members):
    def download(requirement, folder):
        with zipfile.ZipFile(folder / 'a.whl', 'w') as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return folder / 'a.whl'

    monkeypatch.setattr(store, 'download_wheel', download)


def test_cache_folder_follows_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path / 'own'))
    assert store.cache_folder() == tmp_path / 'own'
    monkeypatch.delenv('METRABS_ROS_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert store.cache_folder() == tmp_path / 'xdg' / 'metrabs_ros'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert store.cache_folder() == pathlib.Path.home() / '.cache' / 'metrabs_ros'


def test_whole_weights_are_not_fetched_again(filled_cache, monkeypatch):
    offline(monkeypatch)
    assert (
        store.fetch('blazepose') == store.weights_folder('blazepose') == filled_cache / 'blazepose'
    )


@pytest.mark.parametrize('content', [b'', b'not a network', None], ids=['empty', 'wrong', 'cut'])
def test_damaged_weights_are_refused_with_what_to_do(filled_cache, content):
    file = filled_cache / 'blazepose' / 'pose_detection.tflite'
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(store.WeightsError, match='metrabs_ros fetch blazepose') as caught:
        metrabs_ros.load_model('blazepose')
    assert str(file) in str(caught.value)
    assert store.BLAZEPOSE_FILES[file.name][1] in str(caught.value)


def test_fetch_replaces_damaged_weights(filled_cache, monkeypatch):
    files = store.BLAZEPOSE_FILES.items()
    with_wheel(
        monkeypatch,
        {member: (filled_cache / 'blazepose' / name).read_bytes() for name, (member, _) in files},
    )
    (filled_cache / 'blazepose' / 'pose_detection.tflite').write_bytes(b'damaged')
    store.fetch('blazepose')
    assert store.weights_folder('blazepose')


def test_a_wheel_with_other_weights_leaves_nothing_behind(cache, monkeypatch):
    with_wheel(monkeypatch, {member: b'other' for member, _ in store.BLAZEPOSE_FILES.values()})
    with pytest.raises(store.WeightsError, match='sha256'):
        store.fetch('blazepose')
    assert not (cache / 'blazepose').exists()
    assert [file.name for file in cache.iterdir()] == ['.blazepose.lock']


def test_a_wheel_without_weights_is_named(cache, monkeypatch):
    with_wheel(monkeypatch, {'README': b''})
    with pytest.raises(store.WeightsError, match='does not hold mediapipe'):
        store.fetch('blazepose')


def test_a_failed_download_says_why_and_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(store, 'BLAZEPOSE_WHEEL', 'metrabs-ros-no-such-package==0')
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    with pytest.raises(store.WeightsError, match='could not download') as caught:
        store.fetch('blazepose')
    assert 'run: metrabs_ros fetch blazepose' in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(cache, monkeypatch):
    (cache / 'blazepose').write_text('a file where a folder should be')
    with pytest.raises(store.WeightsError, match='could not be stored'):
        store.fetch('blazepose')


def test_the_command_line_refuses_in_one_line(filled_cache):
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
    """Return what packs files as a release is packed."""

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


def test_a_release_is_fetched_with_its_licence_and_held_to_its_sums(cache, packed_release, caplog):
    caplog.set_level('INFO')
    with serve(Behaviour(packed_release())) as url:
        folder = store.fetch('metrabs_s', url)
        assert folder == cache / 'metrabs_s'
        assert {file.name for file in folder.iterdir()} == set(checkpoint.FILES)
        assert 'non-commercial' in caplog.text
        # From now on what was there first counts.
        (folder / 'ckpt.pt').write_bytes(b'changed')
        with pytest.raises(store.WeightsError, match=r'ckpt.pt is damaged .* fetch metrabs_s'):
            store.weights_folder('metrabs_s')
        store.fetch('metrabs_s', url)
        assert store.weights_folder('metrabs_s') == folder
    left = {file.name for file in cache.iterdir()}
    assert left == {'metrabs_s', 'metrabs_s.sha256.json', '.metrabs_s.lock'}


def test_another_release_than_the_first_is_refused_even_after_all_was_removed(
    cache, packed_release
):
    with serve(Behaviour(packed_release())) as url:
        shutil.rmtree(store.fetch('metrabs_s', url))
    other = packed_release(**{'ckpt.pt': b'other'})
    with serve(Behaviour(other)) as url, pytest.raises(store.WeightsError, match='as recorded in'):
        store.fetch('metrabs_s', url)
    assert not (cache / 'metrabs_s').exists()


def test_the_large_release_is_held_to_the_published_sums(cache, packed_release):
    says = r'ckpt\.pt has the sha256 .* cd9be4587f364d1c'
    with serve(Behaviour(packed_release())) as url, pytest.raises(store.WeightsError, match=says):
        store.fetch('metrabs_l', url)
    assert not (cache / 'metrabs_l').exists()


def test_an_archive_of_something_else_is_refused(cache):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz') as tar:
        tar.addfile(tarfile.TarInfo('readme'), io.BytesIO())
    says = r'holds no config\.yaml'
    with serve(Behaviour(packed.getvalue())) as url, pytest.raises(store.WeightsError, match=says):
        store.fetch('metrabs_s', url)


def test_parts_of_different_versions_are_fetched_anew(cache, packed_release):
    content = packed_release()
    (cache / 'metrabs_s.tar.gz.part').write_bytes(b'of another version'.ljust(100))
    behaviour = Behaviour(content, etag=None)
    with serve(behaviour) as url:
        store.fetch('metrabs_s', url)
    assert behaviour.asked == ['bytes=100-', '']


def test_the_command_line_fetches_from_a_mirror(cache, packed_release):
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
    ('arguments', 'says'),
    [
        (('yolo',), "model 'yolo' does not exist"),
        (('blazepose', 'tensorrt'), "engine 'tensorrt'"),
        (('blazepose', 'auto', 'fp16'), "precision 'fp16'"),
        (('blazepose', 'auto', 'auto', 'cuda'), "device 'cuda'"),
    ],
)
def test_what_is_not_offered_is_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        metrabs_ros.load_model(*arguments)


def refusal(name='blazepose'):
    """Return the sentence with which weights are refused, in a child, as some block."""
    message = hostile.run_in_child(lambda: store.weights_folder(name))
    assert message.startswith('WeightsError: '), message
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_weights_that_are_no_file_are_named_and_do_not_block(filled_cache, put):
    file = filled_cache / 'blazepose' / 'pose_detection.tflite'
    file.unlink()
    put(file)
    message = refusal()
    assert str(file) in message
    assert 'fetch blazepose' in message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
@pytest.mark.parametrize('name', ['.blazepose.lock', 'blazepose'])
def test_a_cache_of_other_things_is_named(cache, monkeypatch, name, put):
    offline(monkeypatch)
    put(cache / name)
    refusal()


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_a_link_as_lock_leaves_its_target_as_it_is(cache, monkeypatch, link):
    offline(monkeypatch)
    (cache / 'victim').write_text('content')
    link(cache / 'victim', cache / '.blazepose.lock')
    assert 'link' in refusal()
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
def test_a_damaged_record_is_named(cache, record):
    content = RECORDS[record]
    file = cache / 'metrabs_s.sha256.json'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f'{file} is damaged' in refusal('metrabs_s')


@pytest.mark.parametrize('put', [*hostile.NOT_FILES, hostile.put_sparse_file])
def test_a_record_that_is_no_file_is_named(cache, put):
    put(cache / 'metrabs_s.sha256.json')
    assert 'sha256.json is damaged' in refusal('metrabs_s')


def test_a_record_is_not_written_through_a_link(cache, packed_release):
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
def test_without_a_place_for_weights_it_is_said_in_one_sentence(monkeypatch, variables):
    offline(monkeypatch)
    for name in ('METRABS_ROS_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert 'METRABS_ROS_CACHE' in refusal()


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch, filled_cache):
    files = store.BLAZEPOSE_FILES.items()
    members = {member: (filled_cache / 'blazepose' / n).read_bytes() for n, (member, _) in files}
    with hostile.small_disk(tmp_path / 'disk', 4 << 20) as disk:
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        with_wheel(monkeypatch, members)
        assert 'No space left' in refusal()
        assert [file.name for file in disk.iterdir()] == ['.blazepose.lock']


def test_a_read_only_disk_with_weights_is_used(tmp_path, monkeypatch, filled_cache):
    with hostile.small_disk(tmp_path / 'disk', 32 << 20) as disk:
        shutil.copytree(filled_cache / 'blazepose', disk / 'blazepose')
        hostile.make_read_only(disk)
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        assert store.weights_folder('blazepose') == disk / 'blazepose'


def test_what_a_killed_process_left_is_removed(cache, packed_release):
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
def test_a_hostile_wheel_is_named(cache, monkeypatch, wheel):
    content = wheel()

    def download(requirement, folder):
        (folder / 'a.whl').write_bytes(content)
        return folder / 'a.whl'

    monkeypatch.setattr(store, 'download_wheel', download)
    message = refusal()
    assert 'a.whl does not hold' in message
    assert 'MemoryError' not in message
