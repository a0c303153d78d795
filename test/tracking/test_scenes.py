"""Tracks keep the identities of people in simulated scenes."""

from __future__ import annotations

import importlib.util

import pytest
from scenes import SCENES, score


# Not imported here, because it imports pandas, in every process of pytest-xdist.
@pytest.mark.skipif(
    importlib.util.find_spec('motmetrics') is None,
    reason='ROS distributions do not package motmetrics',
)
@pytest.mark.parametrize(
    ('rate_hz', 'length_s'), [(10, 20), pytest.param(30, 12, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('name', SCENES)
def test_identities_are_kept(name, rate_hz, length_s):
    idf1, switches = score(SCENES[name](), rate_hz, length_s)
    assert idf1 >= 0.95
    assert switches <= 1
