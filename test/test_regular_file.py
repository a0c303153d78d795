"""Files are written atomically, with the permissions that they need."""

from __future__ import annotations

import os
import stat

import pytest

from metrabs_ros.regular_file import PRIVATE, SHARED, write_atomically


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize(('mode', 'expected'), [(PRIVATE, 0o600), (SHARED, 0o640)])
def test_files_have_the_mode_less_the_umask(tmp_path, umask, mode, expected):
    file = tmp_path / 'file'
    write_atomically(file, b'content', mode)
    assert file.read_bytes() == b'content'
    assert stat.S_IMODE(file.stat().st_mode) == expected


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target, link = tmp_path / 'target', tmp_path / 'link'
    target.write_bytes(b'target')
    link.symlink_to(target)
    write_atomically(link, b'content')
    assert target.read_bytes() == b'target'
    assert not link.is_symlink()


def test_a_failed_write_leaves_no_part_of_the_file(tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    with pytest.raises(OSError, match='folder'):
        write_atomically(folder, b'content')
    assert list(tmp_path.iterdir()) == [folder]
