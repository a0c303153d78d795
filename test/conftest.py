"""Shared fixtures: photographs, models, and a separate DDS domain for each test run."""

from __future__ import annotations

import gc
import importlib.util
import os
import pathlib
import random
import signal
import sys
from collections.abc import Callable, Generator
from types import ModuleType

MAX_DOMAIN_ID = 101
"""The ports of higher domains overlap with those that Linux assigns to other programs."""


def _random_domain_id() -> int:
    """Return a DDS domain that differs from those of the other processes of pytest-xdist."""
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
    # All workers have the same seed.
    seed = os.environ.get('PYTEST_XDIST_TESTRUNUID', str(random.SystemRandom().random()))
    return 1 + worker + workers * random.Random(seed).randrange(MAX_DOMAIN_ID // workers)


# Set before numpy and torch are imported.  The tests run in more processes than there are cores;
# idle threads would use up to a quarter of the processor time waiting in loops for others.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

# Set before ROS is imported: a domain that is limited to this machine.
os.environ['ROS_DOMAIN_ID'] = str(_random_domain_id())
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

import cv2
import hypothesis
import numpy as np
import pytest

import metrabs_ros
from metrabs_ros import demo
from metrabs_ros.arrays import ImageArray
from metrabs_ros.pose_estimator import PoseEstimator

# Background processes ignore SIGINT; the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

for variable in demo.PROFILES_VARIABLES:
    os.environ[variable] = str(demo.FASTDDS_PROFILES_FILE)

# Optional packages may be missing when colcon runs the tests.
collect_ignore_glob = []
if importlib.util.find_spec('rosbags') is None:
    collect_ignore_glob += ['recordings/*', 'report/*', 'view/*', 'test_readme.py']
    collect_ignore_glob += ['node/test_recorded_demo.py']
if importlib.util.find_spec('tensorrt_rtx') is None:
    # run.py runs these tests, in an environment of their own.
    collect_ignore_glob += ['compile_rtx/*']
if importlib.util.find_spec('urdf_parser_py') is None:
    collect_ignore_glob += ['kinematics/*', 'node/test_hri*.py', 'conversions/test_bodies.py']
if importlib.util.find_spec('rerun') is None:
    collect_ignore_glob += ['view/*', 'node/test_view_node.py']

# OpenVINO emulates bfloat16 on processors with one of these instruction sets.
CAN_CALCULATE_IN_BF16 = any(
    f' {flag} ' in pathlib.Path('/proc/cpuinfo').read_text()
    for flag in ('avx512bw', 'avx_ne_convert')
)

DATA = pathlib.Path(__file__).parent / 'data'
# test/benchmarks imports the modules of benchmarks/.
sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))


def _load_script(file: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_checkpoint = _load_script(DATA / 'golden' / 'make_checkpoint.py')
make_nlf_checkpoint = _load_script(DATA / 'nlf' / 'make_nlf_checkpoint.py')

# Use the same examples in every run, so that failures are reproducible.
hypothesis.settings.register_profile('default', deadline=None, max_examples=100, derandomize=True)
hypothesis.settings.load_profile('default')


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Exclude all objects of imported modules and collected tests from garbage collections.

    The nodes collect garbage several times per test, which would take longer than most tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def photo(name: str) -> ImageArray:
    """Return a photograph of test/data, RGB."""
    image = cv2.imread(str(DATA / f'{name}.png'))
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1])


@pytest.fixture(scope='session')
def model() -> PoseEstimator:
    """Return the BlazePose model, which is part of the package."""
    return metrabs_ros.load_model('blazepose')


@pytest.fixture(scope='session')
def checkpoint_folder(tmp_path_factory) -> Callable[[str], pathlib.Path]:
    """Return a function that writes a variant of the test checkpoint and returns its folder."""
    folders: dict[str, pathlib.Path] = {}

    def folder_of(variant: str) -> pathlib.Path:
        if variant not in folders:
            folders[variant] = tmp_path_factory.mktemp(variant)
            make_checkpoint.write_checkpoint(folders[variant], variant)
        return folders[variant]

    return folder_of


@pytest.fixture(scope='session')
def metrabs_model(checkpoint_folder) -> PoseEstimator:
    """Return a small MeTRAbs model with random weights."""
    return metrabs_ros.load_model(checkpoint_folder('s_centered'))


@pytest.fixture(scope='session')
def nlf_folder(tmp_path_factory) -> Callable[..., pathlib.Path]:
    """Return a function that writes an NLF checkpoint with random weights, and its folder."""
    folders: dict[tuple[str, bool], pathlib.Path] = {}

    def folder_of(size: str = 's', pad_white_pixels: bool = True) -> pathlib.Path:
        key = size, pad_white_pixels
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(f'nlf_{size}')
            make_nlf_checkpoint.write_checkpoint(folders[key], size)
            (folders[key] / 'config.yaml').write_text(f'pad_white_pixels: {pad_white_pixels}\n')
        return folders[key]

    return folder_of


@pytest.fixture(scope='session')
def nlf_model(nlf_folder) -> PoseEstimator:
    """Return a small NLF model with random weights."""
    return metrabs_ros.load_model(nlf_folder())


@pytest.fixture(scope='session')
def street() -> ImageArray:
    """Return a photograph of walking people, 60 to 130 pixels tall."""
    return photo('street')


@pytest.fixture(scope='session')
def office() -> ImageArray:
    """Return a photograph of two men, one of them truncated and turned away."""
    return photo('office')


@pytest.fixture(scope='session')
def player() -> ImageArray:
    """Return a photograph of a footballer in mid-kick."""
    return photo('player')
