"""Weights are stored atomically, and rejected if they are not the published ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

import hostile
import pytest
from nlf_archives import crop_tensors, multiperson_model, save_archive, with_half_backbone
from servers import Behaviour, serve

import metrabs_ros
from metrabs_ros.metrabs import checkpoint
from metrabs_ros.nlf import checkpoint as nlf_checkpoint
from metrabs_ros.weights import store
from metrabs_ros.weights.download import DownloadError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder."""
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    return tmp_path


HEAVY = store.BLAZEPOSE_HEAVY
CONTENT = b'content of the network'.ljust(1000)


@pytest.fixture
def published(monkeypatch):
    """Return the content of a file that is regarded as the published network."""
    monkeypatch.setattr(store, 'HEAVY_SHA256', hashlib.sha256(CONTENT).hexdigest())
    return CONTENT


@pytest.fixture
def filled_cache(cache, published):
    """Return a cache folder with the published network."""
    (cache / HEAVY).mkdir()
    (cache / HEAVY / store.HEAVY_FILE).write_bytes(published)
    return cache


def disable_downloads(monkeypatch):
    def fail(download):
        raise DownloadError('network unreachable')

    monkeypatch.setattr(store.Download, 'run', fail)


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
    assert store.fetch(HEAVY) == store.weights_folder(HEAVY) == filled_cache / HEAVY


def test_missing_weights_are_downloaded_from_the_published_address(cache, published, monkeypatch):
    with serve(Behaviour(published)) as url:
        monkeypatch.setattr(store, 'HEAVY_URL', url)
        assert store.weights_folder(HEAVY) == cache / HEAVY
    assert (cache / HEAVY / store.HEAVY_FILE).read_bytes() == published
    assert {file.name for file in cache.iterdir()} == {HEAVY, f'.{HEAVY}.lock'}


def test_an_interrupted_download_of_a_network_is_continued(cache, published, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    behaviour = Behaviour(published, disconnect_after=[600])
    with serve(behaviour) as url:
        folder = store.fetch(HEAVY, url)
    assert behaviour.requested_ranges == ['', 'bytes=600-']
    assert (folder / store.HEAVY_FILE).read_bytes() == published


def test_a_download_of_a_network_is_continued_after_a_failed_run(cache, published, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    fruitless = [600, *[0] * 5]
    with (
        serve(Behaviour(published, disconnect_after=fruitless)) as url,
        pytest.raises(store.WeightsError, match='no new data'),
    ):
        store.fetch(HEAVY, url)
    behaviour = Behaviour(published)
    with serve(behaviour) as url:
        folder = store.fetch(HEAVY, url)
    assert behaviour.requested_ranges == ['bytes=600-']
    assert (folder / store.HEAVY_FILE).read_bytes() == published
    assert {file.name for file in cache.iterdir()} == {HEAVY, f'.{HEAVY}.lock'}


def test_a_network_from_parts_of_different_files_is_downloaded_again(cache, published):
    part = cache / f'{store.HEAVY_FILE}.part'
    part.write_bytes(b'part of another file')
    # Without a version, the server does not notice that the file has changed.
    behaviour = Behaviour(published, etag=None)
    with serve(behaviour) as url:
        folder = store.fetch(HEAVY, url)
    assert behaviour.requested_ranges == ['bytes=20-', '']
    assert (folder / store.HEAVY_FILE).read_bytes() == published


def test_a_local_file_may_be_given_as_an_address(cache, published, tmp_path, monkeypatch):
    disable_downloads(monkeypatch)
    file = tmp_path / 'downloaded file.tflite'
    file.write_bytes(published)
    assert file.as_uri().endswith('downloaded%20file.tflite')
    assert (store.fetch(HEAVY, file.as_uri()) / store.HEAVY_FILE).read_bytes() == published


@pytest.mark.parametrize('is_missing', [False, True])
def test_the_message_about_a_local_file_names_it_and_the_published_file(
    cache, tmp_path, is_missing
):
    file = tmp_path / 'my network.tflite'
    if not is_missing:
        file.write_bytes(b'other')
    with pytest.raises(store.WeightsError) as caught:
        store.fetch(HEAVY, str(file))
    assert str(file) in str(caught.value)
    assert f'use the file from {store.HEAVY_URL}' in str(caught.value)


@pytest.mark.parametrize('is_link', [False, True])
def test_weights_are_copied_from_a_local_file(cache, published, tmp_path, monkeypatch, is_link):
    disable_downloads(monkeypatch)
    file = tmp_path / 'downloaded file.tflite'
    file.write_bytes(published)
    if is_link:
        file = tmp_path / 'link'
        file.symlink_to('downloaded file.tflite')
    stored = store.fetch(HEAVY, str(file)) / store.HEAVY_FILE
    assert stored.read_bytes() == published
    assert not stored.is_symlink()
    assert file.exists()


@pytest.mark.parametrize('is_local', [False, True])
def test_weights_with_a_wrong_checksum_leave_no_files(cache, tmp_path, is_local):
    file = tmp_path / 'other'
    file.write_bytes(b'other')
    pattern = f'has the sha256 .* expected {store.HEAVY_SHA256}'
    with serve(Behaviour(b'other')) as url, pytest.raises(store.WeightsError, match=pattern):
        store.fetch(HEAVY, str(file) if is_local else url)
    assert {path.name for path in cache.iterdir()} == {'other', f'.{HEAVY}.lock'}


def test_fetch_replaces_damaged_weights(filled_cache, published):
    file = filled_cache / HEAVY / store.HEAVY_FILE
    file.write_bytes(b'damaged')
    with serve(Behaviour(published)) as url:
        store.fetch(HEAVY, url)
    assert store.weights_folder(HEAVY) == file.parent
    assert file.read_bytes() == published


def test_weights_with_a_wrong_checksum_do_not_replace_others(filled_cache, tmp_path):
    stored, other = filled_cache / HEAVY / store.HEAVY_FILE, tmp_path / 'other'
    for file in (stored, other):
        file.write_bytes(b'damaged')
    with pytest.raises(store.WeightsError, match='sha256'):
        store.fetch(HEAVY, str(other))
    assert stored.read_bytes() == b'damaged'


@pytest.mark.parametrize('content', [b'', b'not a network', None], ids=['empty', 'wrong', 'cut'])
def test_damaged_weights_raise_an_error_with_a_remedy(filled_cache, content):
    file = filled_cache / HEAVY / store.HEAVY_FILE
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(store.WeightsError, match=f'metrabs_ros fetch {HEAVY}') as caught:
        metrabs_ros.load_model(HEAVY)
    assert str(file) in str(caught.value)
    assert store.HEAVY_SHA256 in str(caught.value)


def test_a_file_that_is_not_a_network_raises_an_error(filled_cache):
    with pytest.raises(store.WeightsError, match='OpenVINO cannot read'):
        metrabs_ros.load_model(HEAVY)


def test_a_failed_download_raises_an_error_with_reason_and_remedy(cache):
    with (
        serve(Behaviour(b'', status=404)) as url,
        pytest.raises(store.WeightsError, match='the server returned 404') as caught,
    ):
        store.fetch(HEAVY, url)
    assert f'run: metrabs_ros fetch {HEAVY}' in str(caught.value)


@pytest.mark.parametrize(
    'url', ['ftp://host/file', 'no such file', '', 'x' * 5000, 'a\0b', '\x1b[31m', '/']
)
def test_an_address_that_is_neither_http_nor_a_file_is_rejected(cache, url):
    with pytest.raises(store.WeightsError, match='neither an http or https address') as caught:
        store.fetch(HEAVY, url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_a_local_file_that_is_not_a_regular_file_is_rejected_without_blocking(
    cache, tmp_path, put
):
    put(tmp_path / 'local')
    message = hostile.run_in_child(lambda: store.fetch(HEAVY, str(tmp_path / 'local')))
    assert message.startswith('WeightsError: '), message
    assert 'nor a file that can be read' in message


def test_a_cache_that_is_not_writable_raises_an_error(cache, published, tmp_path):
    (cache / HEAVY).write_text('a file where a folder should be')
    (tmp_path / 'network').write_bytes(published)
    with pytest.raises(store.WeightsError, match='could not be stored'):
        store.fetch(HEAVY, str(tmp_path / 'network'))


def test_the_command_line_prints_errors_in_one_line(cache, tmp_path):
    (tmp_path / 'network').write_bytes(b'damaged')
    result = run_fetch(cache, HEAVY, '--url', str(tmp_path / 'network'))
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert result.stderr.startswith(f'metrabs_ros: {tmp_path / "network"} has the sha256')
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize('model', store.BUNDLED)
def test_bundled_models_are_not_downloaded(cache, model):
    result = run_fetch(cache, model)
    assert result.returncode == 0
    assert 'part of the package' in result.stdout
    assert list(cache.iterdir()) == []


def run_fetch(cache, *arguments):
    return subprocess.run(
        [sys.executable, '-m', 'metrabs_ros.cli', 'fetch', *arguments],
        capture_output=True,
        text=True,
        env={'METRABS_ROS_CACHE': str(cache)},
    )


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
        result = run_fetch(cache, 'metrabs_s', '--url', url)
    assert result.returncode == 0
    assert store.METRABS_LICENCE in result.stdout
    assert result.stdout.splitlines()[-1] == f'the metrabs_s weights are in {cache / "metrabs_s"}'


NLF_FILE = 'nlf_s_multi_0.2.2.torchscript'


def zip_of(**members: bytes) -> bytes:
    """Return a zip archive like those of torch, with a pickle and other members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for name, content in {'data.pkl': b'N.', **members}.items():
            archive.writestr(f'nlf_s/{name}', content)
    return packed.getvalue()


def test_a_release_of_one_file_is_downloaded_with_its_licence_and_verified(cache, caplog):
    caplog.set_level('INFO')
    content = zip_of(weights=bytes(1000))
    with serve(Behaviour(content)) as url:
        folder = store.fetch('nlf_s', url)
        assert folder == cache / 'nlf_s'
        assert [file.name for file in folder.iterdir()] == [NLF_FILE]
        assert (folder / NLF_FILE).read_bytes() == content
        assert store.NLF_LICENCE in caplog.text
        assert 'non-commercial' in store.NLF_LICENCE
        (folder / NLF_FILE).write_bytes(b'changed')
        with pytest.raises(store.WeightsError, match=rf'{NLF_FILE} is damaged .* fetch nlf_s'):
            store.weights_folder('nlf_s')
        store.fetch('nlf_s', url)
        assert store.weights_folder('nlf_s') == folder
    assert {file.name for file in cache.iterdir()} == {
        *('nlf_s', 'nlf_s.sha256.json', '.nlf_s.lock')
    }
    shutil.rmtree(folder)
    with (
        serve(Behaviour(zip_of(weights=b'other'))) as url,
        pytest.raises(store.WeightsError, match='as recorded in'),
    ):
        store.fetch('nlf_s', url)
    assert not folder.exists()


def test_published_files_have_the_names_by_which_nlf_checkpoints_are_found():
    for name in ('nlf_s', 'nlf_l'):
        release = store.RELEASES[name]
        assert release.url.startswith('https://')
        assert not release.is_packed
        assert pathlib.Path(release.file_name).match(nlf_checkpoint.PATTERNS[1])
        assert release.file_name.startswith(name)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'<html>not found</html>', 'not a zip file'),
        (zip_of(weights=b'abcdefgh').replace(b'abcdefgh', b'abcdefgx', 1), 'CRC'),
        (zip_of(weights=b'abcdefgh')[:-30], 'not a zip file'),
        (zip_of().replace(b'data.pkl', b'data.txt'), r'does not contain data\.pkl'),
    ],
)
def test_another_file_than_an_archive_is_rejected_and_not_recorded(cache, content, message):
    with (
        serve(Behaviour(content)) as url,
        pytest.raises(store.WeightsError, match=rf'{NLF_FILE} is damaged or another .*{message}'),
    ):
        store.fetch('nlf_s', url)
    assert [file.name for file in cache.iterdir()] == ['.nlf_s.lock']


def test_parts_of_different_versions_of_one_file_are_downloaded_again(cache):
    content = zip_of(weights=bytes(1000))
    (cache / 'nlf_s.download.part').write_bytes(content[:60] + bytes(40))
    behaviour = Behaviour(content, etag=None)
    with serve(behaviour) as url:
        folder = store.fetch('nlf_s', url)
    assert behaviour.requested_ranges == ['bytes=100-', '']
    assert (folder / NLF_FILE).read_bytes() == content


def test_an_interrupted_download_of_one_file_is_continued(cache, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    content = zip_of(weights=bytes(1000))
    behaviour = Behaviour(content, disconnect_after=[600])
    with serve(behaviour) as url:
        folder = store.fetch('nlf_s', url)
    assert behaviour.requested_ranges == ['', 'bytes=600-']
    assert (folder / NLF_FILE).read_bytes() == content


def test_a_published_nlf_model_is_loaded_from_the_cache(cache, nlf_folder, tmp_path, street):
    tensors = with_half_backbone(crop_tensors(nlf_folder()))
    file = save_archive(multiperson_model(nlf_folder(), tensors), tmp_path / 'a.torchscript')
    with serve(Behaviour(file.read_bytes())) as url:
        store.fetch('nlf_s', url)
    model = metrabs_ros.load_model('nlf_s', 'torch', 'fp32', 'cpu', threads=1)
    poses = model.estimate_poses(street, [[236, 155, 62, 150]], skeleton='smplx_55')
    assert poses['poses3d'].shape == (1, 55, 3)


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


def weights_error(name=HEAVY):
    """Return the error message for the weights; a child process cannot block the test."""
    message = hostile.run_in_child(lambda: store.weights_folder(name))
    assert message.startswith('WeightsError: '), message
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_weights_that_are_not_regular_files_are_rejected_without_blocking(filled_cache, put):
    file = filled_cache / HEAVY / store.HEAVY_FILE
    file.unlink()
    put(file)
    message = weights_error()
    assert str(file) in message
    assert f'fetch {HEAVY}' in message


@pytest.mark.parametrize('put', hostile.NOT_FILES)
@pytest.mark.parametrize('name', [f'.{HEAVY}.lock', HEAVY])
def test_locks_and_folders_of_a_wrong_type_are_rejected(cache, monkeypatch, name, put):
    disable_downloads(monkeypatch)
    put(cache / name)
    weights_error()


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_the_target_of_a_linked_lock_is_not_changed(cache, monkeypatch, link):
    disable_downloads(monkeypatch)
    (cache / 'victim').write_text('content')
    link(cache / 'victim', cache / f'.{HEAVY}.lock')
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


def test_a_full_disk_raises_an_error(tmp_path, monkeypatch):
    with (
        hostile.small_disk(tmp_path / 'disk', 4 << 20) as disk,
        serve(Behaviour(bytes(8 << 20))) as url,
    ):
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        monkeypatch.setattr(store, 'HEAVY_URL', url)
        assert 'No space left' in weights_error()
        # The download can be continued.
        part = f'{store.HEAVY_FILE}.part'
        names = {f'.{HEAVY}.lock', part, f'{part}.json'}
        assert {file.name for file in disk.iterdir()} == names


def test_weights_on_a_read_only_disk_are_used(tmp_path, monkeypatch, filled_cache):
    with hostile.small_disk(tmp_path / 'disk', 32 << 20) as disk:
        shutil.copytree(filled_cache / HEAVY, disk / HEAVY)
        hostile.make_read_only(disk)
        monkeypatch.setenv('METRABS_ROS_CACHE', str(disk))
        assert store.weights_folder(HEAVY) == disk / HEAVY


def test_temporary_folders_of_killed_processes_are_removed(cache, packed_release):
    (cache / '.fetch-metrabs_s-abc' / 'unpacked').mkdir(parents=True)
    with serve(Behaviour(packed_release())) as url:
        store.fetch('metrabs_s', url)
    assert not (cache / '.fetch-metrabs_s-abc').exists()
