"""Members of zip archives are verified without unpacking more than the size of the file."""

from __future__ import annotations

import io
import zipfile

import pytest

from metrabs_ros.weights.zip_archive import open_zip, verify_stored


def write_zip(file, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def verify(file):
    with file.open('rb') as opened, open_zip(opened) as archive:
        verify_stored(archive)


def test_intact_members_are_accepted(tmp_path):
    write_zip(tmp_path / 'a.zip', a=bytes(3 << 20), b=b'')
    verify(tmp_path / 'a.zip')


def test_damage_anywhere_in_a_member_is_found(tmp_path):
    file = tmp_path / 'a.zip'
    content = bytes(range(256)) * 8192
    write_zip(file, a=content)
    whole = file.read_bytes()
    start = whole.index(content)
    for position in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(whole)
        damaged[start + position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(zipfile.BadZipFile, match='CRC'):
            verify(file)


def test_an_archive_of_compressed_members_only_contains_no_data(tmp_path):
    write_zip(tmp_path / 'a.zip', zipfile.ZIP_DEFLATED, a=bytes(10 << 20))
    with pytest.raises(zipfile.BadZipFile, match='no data'):
        verify(tmp_path / 'a.zip')


def test_many_entries_for_the_same_data_are_rejected(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        archive.writestr('a', bytes(1 << 20))
        # All entries in the directory refer to the first member.
        archive.filelist *= 1000
    (tmp_path / 'a.zip').write_bytes(packed.getvalue())
    with pytest.raises(zipfile.BadZipFile, match='larger than the file'):
        verify(tmp_path / 'a.zip')
