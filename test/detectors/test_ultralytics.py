"""Detectors of ultralytics need the package."""

from __future__ import annotations

import sys

import pytest

import metrabs_ros


def test_the_error_without_the_package_names_it(checkpoint_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ultralytics', None)
    with pytest.raises(ImportError, match='pip install ultralytics'):
        metrabs_ros.load_model(checkpoint_folder('s_centered'), detector='ultralytics:yolo11n.pt')
