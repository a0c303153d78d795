"""Networks that crash or block a process, or fill its memory, are rejected with a short error."""

from __future__ import annotations

import itertools
import pathlib

import hostile
import numpy as np
import onnx
import pytest
from bright_box import write_detector
from onnx import TensorProto, helper, numpy_helper

from metrabs_ros.camera import Camera
from metrabs_ros.detectors import trial
from metrabs_ros.detectors.onnx import OnnxDetector
from metrabs_ros.options import Options


def save(file: pathlib.Path, nodes, constants=(), shape=(1, 3, 64, 96), kind=TensorProto.FLOAT):
    """Write a network with an output named ``out``."""
    graph = helper.make_graph(
        nodes,
        'g',
        [helper.make_tensor_value_info('images', kind, shape)],
        [helper.make_tensor_value_info('out', TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    file.write_bytes(model.SerializeToString())


def constant(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def tensor_of_claimed_size(dims, **external):
    """Return a tensor with less data than claimed, stored in the file or externally."""
    tensor = TensorProto(name='w', data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(16))
    if external:
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return tensor


MEAN = helper.make_node('ReduceMean', ['images'], ['mean'], axes=[0, 1, 2, 3], keepdims=1)
SUM = helper.make_node('Add', ['mean', 'w'], ['out'])
SAME = helper.make_node('Identity', ['images'], ['out'])


def with_tensor(dims, **external):
    return lambda file: save(file, [MEAN, SUM], [tensor_of_claimed_size(dims, **external)])


NETWORKS = {
    'claimed size': with_tensor([100_000, 100_000]),
    'negative size': with_tensor([-5, -5]),
    'overflowing size': with_tensor([2**62, 8]),
    'outside of the folder': with_tensor([4], location='../outside.bin'),
    'device': with_tensor([10**9], location='/dev/zero'),
    'missing data': with_tensor([4], location='nothing'),
    'folder as data': with_tensor([4], location='.'),
    'short data': with_tensor([10**8], location='short.bin'),
    'data from a fifo': with_tensor([4], location='fifo', offset=0, length=16),
    'expanded': lambda file: save(
        file,
        [MEAN, helper.make_node('Expand', ['mean', 's'], ['out'])],
        [constant('s', [1, 3 * 10**9, 7, 1], np.int64)],
    ),
    'huge input': lambda file: save(file, [SAME], shape=(1, 3, 10**6, 10**6)),
    'empty input': lambda file: save(file, [SAME], shape=(1, 3, 0, 0)),
    'input of two axes': lambda file: save(file, [SAME], shape=(1, 3)),
    'four channels': lambda file: save(file, [SAME], shape=(1, 4, 64, 64)),
    'an image as output': lambda file: save(file, [SAME]),
    # Reading the last axis of its shape in OpenVINO is an out-of-bounds access.
    'a number as output': lambda file: save(
        file, [helper.make_node('ReduceMean', ['images'], ['out'], keepdims=0)]
    ),
    'output of any size': lambda file: save(
        file,
        [
            helper.make_node('NonZero', ['images'], ['places']),
            helper.make_node('Cast', ['places'], ['out'], to=1),
        ],
    ),
    'random bytes': lambda file: file.write_bytes(np.random.default_rng(0).bytes(100_000)),
    'empty': lambda file: file.touch(),
    **{put.__name__: put for put in hostile.NOT_FILES},
}


def error_of(file: pathlib.Path) -> str:
    with pytest.raises(ValueError, match=file.name) as caught:
        OnnxDetector(file)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    return message


@pytest.mark.slow
@pytest.mark.parametrize('network', NETWORKS)
def test_a_network_that_is_not_a_detector_is_rejected(tmp_path, network):
    (tmp_path / 'short.bin').write_bytes(bytes(16))
    hostile.put_fifo(tmp_path / 'fifo')
    NETWORKS[network](tmp_path / 'a.onnx')
    error_of(tmp_path / 'a.onnx')


@pytest.mark.slow
def test_loading_is_aborted_after_the_processor_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, 'MAX_CPU_S', 5.0)
    names = ['images', *(f'x{i}' for i in range(20_000)), 'out']
    nodes = [helper.make_node('Relu', [a], [b]) for a, b in itertools.pairwise(names)]
    save(tmp_path / 'a.onnx', nodes)
    assert 'takes more than 5 s of processor time' in error_of(tmp_path / 'a.onnx')


def test_loading_is_aborted_after_the_idle_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, 'MAX_IDLE_S', 1.0)
    monkeypatch.setattr(trial, '_SCRIPT', 'import time; time.sleep(1000)')
    write_detector(tmp_path / 'a.onnx', 'yolo')
    assert 'is idle for more than 1 s' in error_of(tmp_path / 'a.onnx')


def test_a_crash_of_openvino_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, '_SCRIPT', 'import os; os.abort()')
    write_detector(tmp_path / 'a.onnx', 'yolo')
    assert 'makes OpenVINO crash (signal 6)' in error_of(tmp_path / 'a.onnx')


def test_loading_is_aborted_at_the_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, 'MAX_MEMORY_BYTES', 1 << 30)
    save(
        tmp_path / 'a.onnx',
        [
            MEAN,
            helper.make_node('ConstantOfShape', ['s'], ['large']),
            helper.make_node('ReduceMean', ['large'], ['w'], keepdims=0),
            SUM,
        ],
        [constant('s', [3 * 10**9], np.int64)],
    )
    assert 'takes more than 1024 MiB' in error_of(tmp_path / 'a.onnx')


@pytest.mark.slow
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_invalid_network_outputs_are_filtered(tmp_path, value):
    table = np.full((1, 5, 6), value, np.float32)
    table[:, :, 5] = 0
    nodes = [
        MEAN,
        helper.make_node('Reshape', ['mean', 'r'], ['m']),
        helper.make_node('Mul', ['m', 'zero'], ['nothing']),
        helper.make_node('Add', ['nothing', 'w'], ['out']),
    ]
    constants = [constant('r', [1, 1, 1], np.int64), constant('zero', 0), constant('w', table)]
    save(tmp_path / 'a.onnx', nodes, constants)
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = OnnxDetector(tmp_path / 'a.onnx')(image, Camera.from_fov(55, image.shape), Options())
    assert np.isfinite(boxes.boxes_px).all()
    assert ((boxes.scores >= 0) & (boxes.scores <= 1)).all()


def test_scores_above_1_are_clipped_to_1(tmp_path):
    table = np.array([[[10, 10, 50, 50, 7.0, 0]]], np.float32)
    nodes = [
        MEAN,
        helper.make_node('Reshape', ['mean', 'r'], ['m']),
        helper.make_node('Mul', ['m', 'zero'], ['nothing']),
        helper.make_node('Add', ['nothing', 'w'], ['out']),
    ]
    constants = [constant('r', [1, 1, 1], np.int64), constant('zero', 0), constant('w', table)]
    save(tmp_path / 'a.onnx', nodes, constants)
    image = np.zeros((64, 96, 3), np.uint8)
    boxes = OnnxDetector(tmp_path / 'a.onnx')(image, Camera.from_fov(55, image.shape), Options())
    assert boxes.scores.tolist() == [1.0]


def test_external_data_is_read(tmp_path):
    write_detector(tmp_path / 'inline.onnx', 'yolo')
    onnx.save(
        onnx.load(tmp_path / 'inline.onnx'),
        tmp_path / 'a.onnx',
        save_as_external_data=True,
        location='a.data',
        size_threshold=0,
    )
    OnnxDetector(tmp_path / 'a.onnx')
