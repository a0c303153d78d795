"""Commands end before their work starts if a package is missing or an output cannot be created."""

from __future__ import annotations

import pytest

from metrabs_ros.commands.requirements import require_new_file, require_package


def test_the_package_to_install_is_named():
    require_package('json', 'report', 'json')
    with pytest.raises(ImportError, match='report needs ros-bags: pip install ros-bags'):
        require_package('no_module_of_this_name', 'report', 'ros-bags')


def test_new_files_and_files_to_replace_are_accepted(tmp_path, monkeypatch):
    file = tmp_path / 'file'
    require_new_file(file, overwrite=False)
    file.touch()
    require_new_file(file, overwrite=True)
    monkeypatch.chdir(tmp_path)
    require_new_file(file.relative_to(tmp_path), overwrite=True)


def test_files_that_exist_or_cannot_be_created_are_rejected(tmp_path):
    file, link = tmp_path / 'file', tmp_path / 'link'
    file.touch()
    link.symlink_to(tmp_path / 'missing')
    for existing in (file, link, tmp_path):
        with pytest.raises(ValueError, match='already exists; --overwrite replaces it'):
            require_new_file(existing, overwrite=False)
    with pytest.raises(ValueError, match='is a folder; name the file to write'):
        require_new_file(tmp_path, overwrite=True)
    for inside in (tmp_path / 'missing' / 'file', file / 'file'):
        with pytest.raises(ValueError, match='its folder does not exist'):
            require_new_file(inside, overwrite=True)
