"""Engine, precision and device are the fastest available, the requested ones, or an error."""

from __future__ import annotations

import dataclasses

import pytest

import metrabs_ros
from metrabs_ros.backends.selection import Machine, choose

LAPTOP = Machine(cuda=False, torch_tensorrt=False, openvino=True, cpu_bf16=False)
SERVER = dataclasses.replace(LAPTOP, cpu_bf16=True)
BARE = dataclasses.replace(LAPTOP, openvino=False)
GPU = Machine(cuda=True, torch_tensorrt=False, openvino=True, cpu_bf16=True)
JETSON = dataclasses.replace(GPU, torch_tensorrt=True)


@pytest.mark.parametrize(
    ('machine', 'requested', 'selected'),
    [
        (JETSON, ('auto', 'auto', 'auto'), ('tensorrt', 'fp16', 'cuda')),
        (GPU, ('auto', 'auto', 'auto'), ('torch', 'fp16', 'cuda')),
        (GPU, ('torch', 'fp32', 'cuda:1'), ('torch', 'fp32', 'cuda:1')),
        (GPU, ('openvino', 'auto', 'auto'), ('openvino', 'bf16', 'cpu')),
        (GPU, ('auto', 'auto', 'cpu'), ('openvino', 'bf16', 'cpu')),
        (SERVER, ('auto', 'auto', 'auto'), ('openvino', 'bf16', 'cpu')),
        (SERVER, ('auto', 'fp32', 'auto'), ('openvino', 'fp32', 'cpu')),
        (LAPTOP, ('auto', 'auto', 'auto'), ('openvino', 'fp32', 'cpu')),
        (LAPTOP, ('torch', 'bf16', 'auto'), ('torch', 'bf16', 'cpu')),
        (BARE, ('auto', 'auto', 'auto'), ('torch', 'fp32', 'cpu')),
    ],
)
def test_auto_selects_the_fastest_and_requested_values_are_kept(machine, requested, selected):
    choice = choose(*requested, machine)
    assert (choice.engine, choice.precision, choice.device) == selected
    assert choice.reason in str(choice)


@pytest.mark.parametrize(
    ('machine', 'requested', 'error', 'message'),
    [
        (GPU, ('tensorrt', 'auto', 'auto'), ImportError, 'pip install torch-tensorrt'),
        (LAPTOP, ('tensorrt', 'auto', 'auto'), ValueError, 'NVIDIA GPU'),
        (BARE, ('openvino', 'auto', 'auto'), ImportError, 'pip install openvino'),
        (GPU, ('openvino', 'auto', 'cuda'), ValueError, 'runs on the CPU'),
        (LAPTOP, ('openvino', 'fp16', 'auto'), ValueError, "precision 'fp16'"),
        (LAPTOP, ('auto', 'auto', 'cuda'), ValueError, 'does not detect an NVIDIA GPU'),
        (
            LAPTOP,
            ('onnx', 'auto', 'auto'),
            ValueError,
            "engine is 'onnx'; it must be one of auto, torch",
        ),
        (
            LAPTOP,
            ('auto', 'int8', 'auto'),
            ValueError,
            "precision is 'int8'; it must be one of auto, fp32",
        ),
        (
            LAPTOP,
            ('auto', 'auto', 'tpu'),
            ValueError,
            "device is 'tpu'; it must be one of auto, cpu",
        ),
    ],
)
def test_unavailable_values_raise_an_error_with_a_remedy(machine, requested, error, message):
    with pytest.raises(error, match=message):
        choose(*requested, machine)


def test_a_model_uses_the_selection_for_this_machine(metrabs_model):
    choice = choose('auto', 'auto', 'auto', Machine.detect())
    assert metrabs_model.choice == choice


def test_negative_thread_counts_are_rejected():
    with pytest.raises(ValueError, match='threads is -1'):
        metrabs_ros.load_model('blazepose', threads=-1)
