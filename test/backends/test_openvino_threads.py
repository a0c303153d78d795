"""The number of threads is passed to every network, as OpenVINO and torch report it."""

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
    """Return the list of all networks that the test compiles."""
    networks = []
    compile_model = openvino.Core.compile_model

    def compile_and_record(core, *arguments, **options):
        networks.append(compile_model(core, *arguments, **options))
        return networks[-1]

    monkeypatch.setattr(openvino.Core, 'compile_model', compile_and_record)
    return networks


def thread_counts(networks):
    return {network.get_property('INFERENCE_NUM_THREADS') for network in networks}


@pytest.mark.slow
@pytest.mark.parametrize('detector', ['auto', 'movenet', 'onnx'])
def test_the_detector_of_metrabs_uses_the_requested_number_of_threads(
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


def test_openvino_chooses_the_number_of_threads_by_default(tmp_path, compiled):
    write_detector(tmp_path / 'a.onnx', 'yolo')
    from metrabs_ros.loading import load_detector

    load_detector(f'onnx:{tmp_path / "a.onnx"}')
    default = openvino.Core().compile_model(openvino.Core().read_model(tmp_path / 'a.onnx'), 'CPU')
    assert thread_counts(compiled[:1]) == thread_counts([default])


def test_ultralytics_uses_the_requested_number_of_torch_threads(checkpoint_folder, monkeypatch):
    used_threads = []

    class Network:
        def __init__(self, name):
            # The real package also does this when it selects its device.
            torch.set_num_threads(2)

        def predict(self, image, **options):
            used_threads.append(torch.get_num_threads())
            no_boxes = torch.zeros(0, 4)
            return [
                types.SimpleNamespace(
                    boxes=types.SimpleNamespace(xyxy=no_boxes, conf=no_boxes[:, 0])
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
    assert used_threads == [1]
