"""Archives are unpacked completely, and only into the given folder."""

from __future__ import annotations

import gzip
import io
import tarfile

import hostile
import pytest

from metrabs_ros.weights import archive
from metrabs_ros.weights.archive import ArchiveError, unpack


def write_archive(file, *members):
    with tarfile.open(file, 'w:gz') as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = '/etc/passwd'
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def packed(tmp_path):
    return tmp_path / 'a.tar.gz'


def test_files_and_folders_are_unpacked(packed, tmp_path):
    write_archive(packed, ('m', b'', tarfile.DIRTYPE), ('m/a/b.txt', b'content', tarfile.REGTYPE))
    unpack(packed, tmp_path / 'out')
    assert (tmp_path / 'out' / 'm' / 'a' / 'b.txt').read_bytes() == b'content'


@pytest.mark.parametrize('name', ['../out.txt', '/tmp/out.txt', 'm/../../out.txt', 'm\\..\\out'])
def test_members_outside_of_the_folder_are_rejected(packed, tmp_path, name):
    write_archive(packed, (name, b'content', tarfile.REGTYPE))
    with pytest.raises(ArchiveError, match='member outside'):
        unpack(packed, tmp_path / 'out')
    assert [file.name for file in tmp_path.iterdir()] == ['a.tar.gz']


@pytest.mark.parametrize(
    'kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_rejected(packed, tmp_path, kind):
    write_archive(packed, ('m/link', b'', kind))
    with pytest.raises(ArchiveError, match="neither a file nor a folder: 'm/link'"):
        unpack(packed, tmp_path / 'out')


def test_archives_larger_than_the_limit_are_rejected(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, 'MAX_UNPACKED_BYTES', 10)
    write_archive(packed, ('a', b'123456', tarfile.REGTYPE), ('b', b'123456', tarfile.REGTYPE))
    with pytest.raises(ArchiveError, match='more than 10 bytes'):
        unpack(packed, tmp_path / 'out')


@pytest.mark.parametrize('damage', ['cut', 'flip', 'text', 'not tar'])
def test_damaged_archives_are_rejected(packed, tmp_path, damage):
    write_archive(packed, ('a', bytes(range(256)) * 400, tarfile.REGTYPE))
    content = packed.read_bytes()
    middle = len(content) // 2
    packed.write_bytes(
        {
            'cut': content[:middle],
            'flip': content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            'text': b'<html>not found</html>',
            'not tar': gzip.compress(b'something else' * 100),
        }[damage]
    )
    with pytest.raises(ArchiveError, match='damaged'):
        unpack(packed, tmp_path / 'out')


def pax_bomb(tar, packed):
    """Add an extended header of 300 MB, which compresses to 300 kB."""
    info = tarfile.TarInfo('header')
    info.type, info.size = tarfile.XHDTYPE, 300 << 20
    packed.write(info.tobuf())
    zeros = bytes(1 << 20)
    for _ in range(300):
        packed.write(zeros)


def name_bomb(tar, packed):
    info = tarfile.TarInfo('././@LongLink')
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 300 << 20
    packed.write(info.tobuf())
    for _ in range(300):
        packed.write(b'x' * (1 << 20))


def trailing_bomb(tar, packed):
    packed.write(bytes(1024))
    for _ in range(300):
        packed.write(bytes(1 << 20))


def sparse_bomb(tar, packed):
    info = tarfile.TarInfo('m/sparse')
    info.pax_headers = {
        'GNU.sparse.major': '0',
        'GNU.sparse.minor': '1',
        'GNU.sparse.size': str(7 << 30),
        'GNU.sparse.map': '0,0',
    }
    tar.addfile(info)


def chain_of_headers(tar, packed):
    info = tarfile.TarInfo('header')
    info.type, info.size = tarfile.XHDTYPE, 0
    packed.write(info.tobuf() * 2000)


def negative_size(tar, packed):
    header = bytearray(tarfile.TarInfo('m/a').tobuf())
    header[124:136] = b'\xff' * 11 + b'\x00'
    header[148:156] = b' ' * 8
    header[148:156] = f'{sum(header[:512]):06o}\0 '.encode()
    packed.write(header)


def many_members(tar, packed):
    for i in range(20):
        tar.addfile(tarfile.TarInfo(f'm/{i}'))


def duplicate_path(tar, packed):
    for name in ('m/a', 'm/a'):
        tar.addfile(tarfile.TarInfo(name))


def file_as_folder(tar, packed):
    for name in ('m/a', 'm/a/b'):
        tar.addfile(tarfile.TarInfo(name))


def member_with_name(name):
    def add_member(tar, packed):
        info = tarfile.TarInfo('x')
        info.pax_headers = {'path': name}
        tar.addfile(info)

    add_member.__name__ = f'name {name[:10]!r}'
    return add_member


BOMBS = (
    *(pax_bomb, name_bomb, trailing_bomb, sparse_bomb, chain_of_headers, negative_size),
    *(many_members, duplicate_path, file_as_folder),
    *(member_with_name(name) for name in ('.', 'a\0b', 'a\nb', 'a' * 5000, '\x1b[31m')),
)


@pytest.mark.slow
@pytest.mark.parametrize('bomb', BOMBS, ids=lambda bomb: bomb.__name__)
def test_malicious_archives_are_rejected(packed, tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(archive, 'MAX_MEMBERS', 10)
    with (
        gzip.open(packed, 'wb', compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode='w', format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.addfile(tarfile.TarInfo('m/first'))
        bomb(tar, stream)
    message = hostile.run_in_child(lambda: unpack(packed, tmp_path / 'out'), 256 << 20)
    assert message.startswith('ArchiveError: a.tar.gz '), message
    assert message.isprintable()
    assert len(message) < 400
    files = [file for file in (tmp_path / 'out').rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) == 0


@pytest.mark.parametrize('put', hostile.NOT_FILES)
def test_archives_that_are_not_regular_files_are_rejected(packed, tmp_path, put):
    put(packed)
    message = hostile.run_in_child(lambda: unpack(packed, tmp_path / 'out'))
    assert 'Error: ' in message
    assert str(packed) in message
