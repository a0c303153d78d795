"""The number of threads reaches every network, by OpenVINO's and torch's own account."""

from __future__ import annotations

import sys
import types

import numpy as np
import openvino
import pytest
import torch
from bright_box import write_detector

import metrabs_ros

IMAGE = np.zeros((120, 160, 3), np.uint8)


@pytest.fixture
def compiled(monkeypatch):
    """Return a list that all compiled networks are added to."""
    networks = []
    compile_model = openvino.Core.compile_model

    def compile_and_keep(core, *arguments, **options):
        networks.append(compile_model(core, *arguments, **options))
        return networks[-1]

    monkeypatch.setattr(openvino.Core, 'compile_model', compile_and_keep)
    return networks


def thread_counts(networks):
    return {network.get_property('INFERENCE_NUM_THREADS') for network in networks}


@pytest.mark.parametrize('detector', ['auto', 'blazepose', 'onnx'])
def test_the_detector_of_metrabs_has_as_many_threads_as_asked_for(
    checkpoint_folder, tmp_path, compiled, detector
):
    if detector == 'onnx':
        write_detector(tmp_path / 'a.onnx', 'yolo')
        detector = f'onnx:{tmp_path / "a.onnx"}'
    model = metrabs_ros.load_model(
        checkpoint_folder('s_centered'), 'torch', detector=detector, threads=1
    )
    model.detect_poses(IMAGE)
    assert compiled
    assert thread_counts(compiled) == {1}


def test_without_a_number_openvino_chooses(tmp_path, compiled):
    write_detector(tmp_path / 'a.onnx', 'yolo')
    from metrabs_ros.loading import load_detector

    load_detector(f'onnx:{tmp_path / "a.onnx"}')
    usual = openvino.Core().compile_model(openvino.Core().read_model(tmp_path / 'a.onnx'), 'CPU')
    assert thread_counts(compiled[:1]) == thread_counts([usual])


def test_ultralytics_has_as_many_threads_of_torch(checkpoint_folder, monkeypatch):
    seen = []

    class Network:
        def __init__(self, name):
            # The real one does so when it chooses its device.
            torch.set_num_threads(2)

        def predict(self, image, **options):
            seen.append(torch.get_num_threads())
            nothing = torch.zeros(0, 4)
            return [
                types.SimpleNamespace(
                    boxes=types.SimpleNamespace(xyxy=nothing, conf=nothing[:, 0])
                )
            ]

    package = types.ModuleType('ultralytics')
    package.YOLO = Network
    monkeypatch.setitem(sys.modules, 'ultralytics', package)
    before = torch.get_num_threads()
    try:
        model = metrabs_ros.load_model(
            checkpoint_folder('s_centered'), 'torch', detector='ultralytics:x.pt', threads=1
        )
        model.detect_poses(IMAGE)
    finally:
        torch.set_num_threads(before)
    assert seen == [1]
