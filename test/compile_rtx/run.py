#!/usr/bin/env python3
"""
Run the TensorRT for RTX compile test in an environment of its own.

    .venv/bin/python test/compile_rtx/run.py

Its environment, .venv-tensorrt-rtx, contains the packages of requirements.txt and shares all other
packages with the environment of the tests.  If they cannot be installed, the test is skipped with
a message: there are wheels for Linux on x86-64 only.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
REQUIREMENTS = HERE / 'requirements.txt'
sys.path.append(str(PROJECT / 'ros_from_pypi'))

from install import BASE_PYTHON, fingerprint, log


def main() -> int:
    """Set up the environment, run the test and return the exit status."""
    venv = pathlib.Path(f'{sys.prefix}-tensorrt-rtx')
    python = venv / 'bin' / 'python'
    reason = set_up(venv, python)
    if reason:
        log(f'TensorRT for RTX compile test: skipped, its packages cannot be installed: {reason}')
        return 0
    # The test is the same with and without a GPU.
    environ = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    command = [str(python), '-m', 'pytest', '-n', '2', str(HERE)]
    return subprocess.run(command, cwd=PROJECT, env=environ).returncode


def set_up(venv: pathlib.Path, python: pathlib.Path) -> str:
    """Create the environment if its inputs have changed; return why that failed, or ''."""
    state = fingerprint([BASE_PYTHON, sys.version, sys.prefix, venv, REQUIREMENTS])
    stamp = venv / '.done'
    if stamp.exists() and stamp.read_text() == state:
        return ''
    log(f'creating {venv.name} for the TensorRT for RTX compile test, 260 MB ...')
    start_s = time.monotonic()
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([BASE_PYTHON, '-m', 'venv', str(venv)], check=True)
    options = ['--quiet', '--no-compile', '--no-deps', '--requirement', str(REQUIREMENTS)]
    install = [str(python), '-m', 'pip', 'install', '--disable-pip-version-check', *options]
    result = subprocess.run(
        install,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        shutil.rmtree(venv)
        return (result.stdout.strip().splitlines() or ['pip gives no reason'])[-1]
    packages = pathlib.Path(sysconfig.get_path('purelib', vars={'base': str(venv)}))
    # The libraries of torch_tensorrt need a driver; without them it runs in Python.
    for library in (packages / 'torch_tensorrt').rglob('*.so'):
        library.unlink()
    shared = sysconfig.get_path('purelib')
    (packages / 'shared.pth').write_text(f'import site; site.addsitedir({shared!r})\n')
    stamp.write_text(state)
    log(f'    done in {time.monotonic() - start_s:.0f} s')
    return ''


if __name__ == '__main__':
    sys.exit(main())
