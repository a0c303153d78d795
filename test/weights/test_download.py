"""Downloads from faulty servers are complete, or fail with the reason."""

from __future__ import annotations

import contextlib
import os

import hostile
import numpy as np
import pytest
from servers import Behaviour, serve

from metrabs_ros.regular_file import sha256_of
from metrabs_ros.weights import download as download_module
from metrabs_ros.weights.download import MAX_DOWNLOAD_BYTES, Download, DownloadError

CONTENT = np.random.default_rng(0).bytes(300_000)


def download(url, target):
    job = Download(url, target, stall_timeout_s=0.3, retry_delay_s=0.01)
    job.run()
    return job


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'cache' / 'file.tar.gz'


@pytest.mark.slow
@pytest.mark.parametrize(
    'behaviour',
    [
        Behaviour(CONTENT),
        Behaviour(CONTENT, etag=None),
        Behaviour(CONTENT, disconnect_after=[100_000, 0, 70_000, 0, 0, 10]),
        Behaviour(CONTENT, disconnect_after=[100_000], stall=True),
        Behaviour(CONTENT, disconnect_after=[100_000, 200_000], ignore_range=True),
        Behaviour(CONTENT, disconnect_after=[100_000], wrong_start=True, ignore_range=False),
    ],
    ids=['plain', 'no etag', 'disconnects', 'stalls', 'ignores ranges', 'wrong start'],
)
def test_the_downloaded_file_is_complete(behaviour, target):
    if behaviour.wrong_start:
        # The client discards the response and requests the whole file.
        behaviour.disconnect_after = [100_000, 0]
    with serve(behaviour) as url:
        download(url, target)
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == [target.name]


def test_downloads_of_another_process_are_resumed(target):
    behaviour = Behaviour(CONTENT, disconnect_after=[120_000] + [0] * 5)
    with serve(behaviour) as url:
        with pytest.raises(DownloadError, match=r'after 120000 bytes \(5 attempts'):
            download(url, target)
        behaviour.requested_ranges.clear()
        assert download(url, target).is_resumed
    assert behaviour.requested_ranges == ['bytes=120000-']
    assert target.read_bytes() == CONTENT


def test_versions_of_a_file_are_not_mixed(target):
    behaviour = Behaviour(CONTENT, disconnect_after=[120_000] + [0] * 5)
    with serve(behaviour) as url:
        with pytest.raises(DownloadError):
            download(url, target)
        behaviour.content, behaviour.etag = CONTENT[::-1], '"2"'
        download(url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_complete_part_becomes_the_file(target):
    target.parent.mkdir()
    target.with_name('file.tar.gz.part').write_bytes(CONTENT)
    with serve(Behaviour(CONTENT)) as url:
        download(url, target)
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_discarded(target):
    target.parent.mkdir()
    target.with_name('file.tar.gz.part').write_bytes(CONTENT + b'more')
    with serve(Behaviour(CONTENT)) as url:
        download(url, target)
    assert target.read_bytes() == CONTENT


def test_a_file_shorter_than_declared_is_rejected(target):
    behaviour = Behaviour(CONTENT, length=len(CONTENT) + 1, ignore_range=True)
    with serve(behaviour) as url, pytest.raises(DownloadError, match='returned no new data'):
        download(url, target)
    assert not target.exists()


@pytest.mark.parametrize(('status', 'request_count'), [(404, 1), (403, 1), (500, 5)])
def test_only_server_errors_are_retried(target, status, request_count):
    behaviour = Behaviour(CONTENT, status=status)
    with serve(behaviour) as url, pytest.raises(DownloadError, match=f'server returned {status}'):
        download(url, target)
    assert len(behaviour.requested_ranges) == request_count


def test_an_unreachable_server_is_reported(target):
    with serve(Behaviour(CONTENT)) as url:
        pass
    with pytest.raises(DownloadError, match='is not available'):
        download(url, target)


@pytest.mark.parametrize('url', ['file:///etc/passwd', 'weights.tar.gz', ''])
def test_only_http_addresses_are_accepted(target, url):
    with pytest.raises(DownloadError, match='not an http or https address'):
        download(url, target)


def test_the_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')
    assert sha256_of(tmp_path / 'file').startswith('ba7816bf8f01cfea')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['file.tar.gz', 'file.tar.gz.part', 'file.tar.gz.part.json'])
@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_targets_that_are_not_regular_files_neither_block_nor_are_written(target, name, put):
    target.parent.mkdir()
    put(target.with_name(name))
    with serve(Behaviour(CONTENT)) as url:
        message = hostile.run_in_child(lambda: download(url, target))
    if name.endswith('.json') and put is not hostile.put_directory:
        assert message == 'returned'
        assert target.read_bytes() == CONTENT
    else:
        assert 'Error: ' in message
        assert name in message


@pytest.mark.parametrize('name', ['file.tar.gz.part', 'file.tar.gz.part.json'])
@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_links_are_not_written_through(target, tmp_path, name, link):
    victim = tmp_path / 'victim'
    victim.write_bytes(b'content')
    target.parent.mkdir()
    link(victim, target.with_name(name))
    with serve(Behaviour(CONTENT)) as url, contextlib.suppress(OSError):
        download(url, target)
    assert victim.read_bytes() == b'content'


@pytest.mark.slow
@pytest.mark.parametrize(
    'metadata',
    [b'[' * 4000, b'{"validator": 5}', b'\xff', b'{"validator": "a\\nb"}', b'1', b'[]'],
)
def test_damaged_metadata_is_ignored(target, metadata):
    target.parent.mkdir()
    target.with_name('file.tar.gz.part').write_bytes(CONTENT[:1000])
    target.with_name('file.tar.gz.part.json').write_bytes(metadata)
    with serve(Behaviour(CONTENT)) as url:
        download(url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize('length', [MAX_DOWNLOAD_BYTES + 1, 10**17])
def test_a_file_declared_larger_than_the_limit_is_not_downloaded(target, length):
    behaviour = Behaviour(CONTENT, length=length)
    with serve(behaviour) as url, pytest.raises(DownloadError, match='more than'):
        download(url, target)
    assert len(behaviour.requested_ranges) == 1
    assert not list(target.parent.iterdir())


def test_a_download_stops_at_the_size_limit(target, monkeypatch):
    monkeypatch.setattr(download_module, 'MAX_DOWNLOAD_BYTES', 100_000)
    with serve(Behaviour(CONTENT)) as url, pytest.raises(DownloadError, match='more than'):
        download(url, target)
    assert not target.with_name('file.tar.gz.part').exists()


@pytest.mark.parametrize(
    'url',
    [
        'http://',
        'http://[::1',
        'http://' + 'a' * 70 + '.b',
        'http://a b/c',
        'http://127.0.0.1:99999/',
        'http://127.0.0.1:x/',
        'http://\x00/',
        'http://127.0.0.1/\n',
    ],
)
def test_errors_contain_addresses_that_cannot_be_parsed(target, url):
    with pytest.raises(DownloadError, match='http') as caught:
        download(url, target)
    assert str(caught.value).isprintable()
