"""The package installs into an empty environment with pip, and annotates an image there."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import venv

import pytest

PROJECT = pathlib.Path(__file__).parents[1]


def run(*command: str | os.PathLike[str], cwd: pathlib.Path) -> str:
    """Run a command without the Python environment of the tests; return its output."""
    environ = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_wheel_annotates_an_image_in_an_empty_environment(tmp_path):
    # A copy, as building in the source folder would write to it.
    source = shutil.copytree(
        PROJECT, tmp_path / 'source', ignore=shutil.ignore_patterns('.*', '*_output', 'data')
    )
    environment = tmp_path / 'environment'
    venv.create(environment, with_pip=True)
    python = environment / 'bin' / 'python'
    run(python, '-m', 'pip', 'install', '--quiet', source, cwd=tmp_path)
    image = shutil.copy(PROJECT / 'test' / 'data' / 'player.png', tmp_path / 'player.png')
    output = run(
        *(environment / 'bin' / 'metrabs_ros', 'annotate', image, '--fov', '55', '--csv'),
        cwd=tmp_path,
    )
    assert '1 of 1 frames' in output
    rows = (tmp_path / 'player_people' / 'joints.csv').read_text().splitlines()
    assert len(rows) == 1 + 33
