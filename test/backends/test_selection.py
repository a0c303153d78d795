"""What runs a network is the best that is there, or what was asked for, or a clear refusal."""

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
    ('machine', 'asked', 'got'),
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
def test_the_best_there_is_or_what_was_asked_for(machine, asked, got):
    choice = choose(*asked, machine)
    assert (choice.engine, choice.precision, choice.device) == got
    assert choice.reason in str(choice)


@pytest.mark.parametrize(
    ('machine', 'asked', 'kind', 'says'),
    [
        (GPU, ('tensorrt', 'auto', 'auto'), ImportError, 'pip install torch-tensorrt'),
        (LAPTOP, ('tensorrt', 'auto', 'auto'), ValueError, 'NVIDIA GPU'),
        (BARE, ('openvino', 'auto', 'auto'), ImportError, 'pip install openvino'),
        (GPU, ('openvino', 'auto', 'cuda'), ValueError, 'runs on the CPU'),
        (LAPTOP, ('openvino', 'fp16', 'auto'), ValueError, "precision 'fp16'"),
        (LAPTOP, ('auto', 'auto', 'cuda'), ValueError, 'sees no NVIDIA GPU'),
        (LAPTOP, ('onnx', 'auto', 'auto'), ValueError, "engine 'onnx' is none of auto, torch"),
        (LAPTOP, ('auto', 'int8', 'auto'), ValueError, "precision 'int8' is none of auto, fp32"),
        (LAPTOP, ('auto', 'auto', 'tpu'), ValueError, "device 'tpu' is none of auto, cpu"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(machine, asked, kind, says):
    with pytest.raises(kind, match=says):
        choose(*asked, machine)


def test_this_machine_runs_a_network_somehow(metrabs_model):
    choice = choose('auto', 'auto', 'auto', Machine.here())
    assert metrabs_model.choice == choice


def test_a_number_of_threads_below_0_is_refused():
    with pytest.raises(ValueError, match='threads is -1'):
        metrabs_ros.load_model('blazepose', threads=-1)
