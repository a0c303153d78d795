"""The TensorRT for RTX compile test is skipped with a message where it cannot be installed."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

SCRIPT = pathlib.Path(__file__).parent / 'compile_rtx' / 'run.py'


@pytest.mark.slow
def test_missing_wheels_skip_the_compile_test_with_a_message(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('run_tensorrt_rtx', SCRIPT)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    monkeypatch.setattr(run.sys, 'prefix', str(tmp_path / '.venv'))
    for variable, value in (('NO_INDEX', '1'), ('FIND_LINKS', str(tmp_path))):
        monkeypatch.setenv(f'PIP_{variable}', value)
    assert run.main() == 0
    output = capsys.readouterr().out
    assert 'TensorRT for RTX compile test: skipped' in output
    assert 'No matching distribution found' in output
    # The next run tries again.
    assert not (tmp_path / '.venv-tensorrt-rtx').exists()
