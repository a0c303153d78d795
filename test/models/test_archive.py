"""Archives are unpacked whole, and nothing of them ends up elsewhere."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from metrabs_ros.models import archive
from metrabs_ros.models.archive import ArchiveError, unpack


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


def test_files_and_folders_come_out(packed, tmp_path):
    write_archive(packed, ('m', b'', tarfile.DIRTYPE), ('m/a/b.txt', b'content', tarfile.REGTYPE))
    unpack(packed, tmp_path / 'out')
    assert (tmp_path / 'out' / 'm' / 'a' / 'b.txt').read_bytes() == b'content'


@pytest.mark.parametrize('name', ['../out.txt', '/tmp/out.txt', 'm/../../out.txt', 'm\\..\\out'])
def test_members_that_leave_the_folder_are_refused(packed, tmp_path, name):
    write_archive(packed, (name, b'content', tarfile.REGTYPE))
    with pytest.raises(ArchiveError, match='member outside'):
        unpack(packed, tmp_path / 'out')
    assert [file.name for file in tmp_path.iterdir()] == ['a.tar.gz']


@pytest.mark.parametrize(
    'kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_refused(packed, tmp_path, kind):
    write_archive(packed, ('m/link', b'', kind))
    with pytest.raises(ArchiveError, match="no file: 'm/link'"):
        unpack(packed, tmp_path / 'out')


def test_absurd_sizes_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, 'LARGEST_BYTES', 10)
    write_archive(packed, ('a', b'123456', tarfile.REGTYPE), ('b', b'123456', tarfile.REGTYPE))
    with pytest.raises(ArchiveError, match='more than 10 bytes'):
        unpack(packed, tmp_path / 'out')


@pytest.mark.parametrize('damage', ['cut', 'flip', 'text', 'not tar'])
def test_damage_is_noticed(packed, tmp_path, damage):
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
