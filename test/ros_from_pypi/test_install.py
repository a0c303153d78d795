"""The installation script reports missing requirements and repeats interrupted steps."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / 'ros_from_pypi' / 'install.py'


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location('install', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tmp_path, tools, *arguments):
    """Run the script with only some tools in PATH."""
    (tmp_path / 'bin').mkdir()
    for tool in tools:
        (tmp_path / 'bin' / tool).symlink_to('/bin/true')
    return subprocess.run(
        [sys.executable, SCRIPT, '--venv', tmp_path / 'venv', *arguments],
        env={**os.environ, 'PATH': str(tmp_path / 'bin')},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ('tools', 'arguments', 'expected'),
    [
        (['c++'], [], 'cmake is missing'),
        (['cmake'], [], 'A C++ compiler is missing'),
        (['cmake', 'c++'], ['--distro', 'humble'], "PyPI has no ROS 2 'humble'"),
    ],
)
def test_missing_requirements_are_reported_in_one_line(tmp_path, tools, arguments, expected):
    result = run(tmp_path, tools, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(expected)
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / 'venv').exists()


def test_a_step_is_repeated_only_if_its_fingerprint_changes(install, tmp_path):
    environment = install.Environment(tmp_path, 'jazzy')
    environment.stamps.mkdir()
    done = []
    for state in ('a', 'a', 'b', 'b'):
        environment.step('build', 'building', state, lambda: done.append(1))
    assert len(done) == 2


def test_an_interrupted_step_is_repeated(install, tmp_path):
    environment = install.Environment(tmp_path, 'jazzy')
    environment.stamps.mkdir()

    def interrupt():
        raise KeyboardInterrupt

    environment.step('requirements', 'installing', 'a', lambda: None)
    with pytest.raises(KeyboardInterrupt):
        environment.step('requirements', 'installing', 'b', interrupt)
    assert environment.is_incomplete()
    assert not environment.is_done('requirements', 'a')
    assert not environment.is_done('requirements', 'b')


def test_cmake_files_contain_the_python_paths_of_this_machine(install, tmp_path, monkeypatch):
    environment = install.Environment(tmp_path, 'jazzy')
    environment.python = pathlib.Path(sys.executable)
    file = tmp_path / 'share' / 'some_msgs' / 'cmake' / 'export.cmake'
    file.parent.mkdir(parents=True)
    file.write_text(
        'set(A "/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include")'
    )
    environment.fix_cmake_paths()
    paths = file.read_text().split('"')[1].split(';')
    assert [(pathlib.Path(path) / name).exists() for path, name in zip(paths, ('Python.h', '.'))]
    assert '/opt/python' not in file.read_text()


def test_variables_of_a_sourced_ros_installation_are_removed(install, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/opt/ros/humble/lib')
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/humble')
    environ = install.Environment(tmp_path, 'jazzy').environ
    assert 'PYTHONPATH' not in environ
    assert environ['AMENT_PREFIX_PATH'] == str(tmp_path)
