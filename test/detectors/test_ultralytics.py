"""The detectors of ultralytics need its package, and say so."""

from __future__ import annotations

import sys

import pytest

import metrabs_ros


def test_without_the_package_it_is_named(checkpoint_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ultralytics', None)
    with pytest.raises(ImportError, match='pip install ultralytics'):
        metrabs_ros.load_model(checkpoint_folder('s_centered'), detector='ultralytics:yolo11n.pt')
