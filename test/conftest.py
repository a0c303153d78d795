"""What all tests share: real photographs, a real model, and a DDS domain of their own."""

from __future__ import annotations

import os
import pathlib
import random

# Before anything of ROS is imported: a domain that nobody else is on, on this machine only.
os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 100))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

import cv2
import hypothesis
import numpy as np
import pytest

import metrabs_ros
from metrabs_ros import demo
from metrabs_ros.arrays import ImageArray
from metrabs_ros.estimator import PoseEstimator

for variable in demo.PROFILES_VARIABLES:
    os.environ[variable] = str(demo.LARGE_IMAGES)

DATA = pathlib.Path(__file__).parent / 'data'

# The same examples every time, so that whoever breaks something is the one who sees it.
hypothesis.settings.register_profile('default', deadline=None, max_examples=100, derandomize=True)
hypothesis.settings.load_profile('default')


def photo(name: str) -> ImageArray:
    """Return a photograph of test/data, RGB."""
    image = cv2.imread(str(DATA / f'{name}.png'))
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1])


@pytest.fixture(scope='session')
def model() -> PoseEstimator:
    """Return the model that needs no download but a wheel's."""
    return metrabs_ros.load_model('blazepose')


@pytest.fixture(scope='session')
def street() -> ImageArray:
    """Return a photograph of people walking, each 60 to 130 pixels tall."""
    return photo('street')


@pytest.fixture(scope='session')
def office() -> ImageArray:
    """Return a photograph of two men, one of them cut off and turned away."""
    return photo('office')


@pytest.fixture(scope='session')
def player() -> ImageArray:
    """Return a photograph of a footballer in mid-kick."""
    return photo('player')
