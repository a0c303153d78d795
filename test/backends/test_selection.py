"""Engine, precision and device are the fastest available, the requested ones, or an error."""

from __future__ import annotations

import dataclasses

import pytest

import metrabs_ros
from metrabs_ros.backends.selection import Machine, choose, choose_for_plan

AMPERE, ADA, BLACKWELL = (8, 6), (8, 9), (12, 0)
TURING, HOPPER, ORIN = (7, 5), (9, 0), (8, 7)

LAPTOP = Machine(gpus=(), packages=frozenset({'openvino'}), cpu_bf16=False)
SERVER = dataclasses.replace(LAPTOP, cpu_bf16=True)
BARE = dataclasses.replace(LAPTOP, packages=frozenset())
GPU = dataclasses.replace(SERVER, gpus=(ADA, HOPPER))
JETSON = dataclasses.replace(
    SERVER, gpus=(ORIN,), packages=frozenset({'openvino', 'torch_tensorrt', 'tensorrt'})
)


def with_rtx(*gpus, packages=('tensorrt_rtx',), exporter=('onnx', 'onnxscript')):
    """Return a machine with GPUs, TensorRT for RTX and the packages of the export."""
    found = frozenset({'openvino', *packages, *exporter})
    return Machine(gpus=gpus, packages=found, cpu_bf16=True)


BOTH = with_rtx(ADA, packages=('tensorrt_rtx', 'torch_tensorrt', 'tensorrt'))
RTX_BUILD = ('tensorrt_rtx', 'torch_tensorrt_rtx')


@pytest.mark.parametrize(
    ('machine', 'requested', 'selected'),
    [
        (JETSON, ('auto', 'auto', 'auto'), ('tensorrt', 'fp16', 'cuda')),
        (GPU, ('auto', 'auto', 'auto'), ('torch', 'fp16', 'cuda')),
        (GPU, ('torch', 'fp32', 'cuda:1'), ('torch', 'fp32', 'cuda:1')),
        (BOTH, ('auto', 'auto', 'auto'), ('tensorrt', 'fp16', 'cuda')),
        (BOTH, ('tensorrt_rtx', 'fp32', 'auto'), ('tensorrt_rtx', 'fp32', 'cuda')),
        (with_rtx(AMPERE), ('auto', 'auto', 'auto'), ('tensorrt_rtx', 'fp16', 'cuda')),
        (with_rtx(BLACKWELL), ('auto', 'fp32', 'cuda:0'), ('tensorrt_rtx', 'fp32', 'cuda:0')),
        (with_rtx(ADA), ('auto', 'bf16', 'auto'), ('torch', 'bf16', 'cuda')),
        (with_rtx(ADA, exporter=['onnx']), ('auto', 'auto', 'auto'), ('torch', 'fp16', 'cuda')),
        (
            with_rtx(ADA, exporter=[]),
            ('tensorrt_rtx', 'auto', 'auto'),
            ('tensorrt_rtx', 'fp16', 'cuda'),
        ),
        (with_rtx(ADA), ('auto', 'auto', 'cpu'), ('openvino', 'bf16', 'cpu')),
        (with_rtx(), ('auto', 'auto', 'auto'), ('openvino', 'bf16', 'cpu')),
        (with_rtx(TURING), ('auto', 'auto', 'auto'), ('torch', 'fp16', 'cuda')),
        (with_rtx(HOPPER), ('auto', 'auto', 'auto'), ('torch', 'fp16', 'cuda')),
        (with_rtx(ADA, HOPPER), ('auto', 'auto', 'cuda:1'), ('torch', 'fp16', 'cuda:1')),
        (
            with_rtx(ADA, packages=RTX_BUILD),
            ('tensorrt', 'bf16', 'auto'),
            ('tensorrt', 'bf16', 'cuda'),
        ),
        (
            with_rtx(ADA, packages=RTX_BUILD),
            ('auto', 'auto', 'auto'),
            ('tensorrt_rtx', 'fp16', 'cuda'),
        ),
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
        (GPU, ('auto', 'auto', 'cuda:2'), ValueError, 'torch detects 2 NVIDIA GPU'),
        (GPU, ('tensorrt_rtx', 'auto', 'auto'), ImportError, 'pip install tensorrt-rtx onnx'),
        (with_rtx(), ('tensorrt_rtx', 'auto', 'auto'), ValueError, 'needs an NVIDIA GPU'),
        (with_rtx(ADA), ('tensorrt_rtx', 'bf16', 'auto'), ValueError, 'choose fp32 or fp16'),
        (with_rtx(TURING), ('tensorrt_rtx', 'auto', 'auto'), ValueError, "Turing.*engine 'torch'"),
        (with_rtx(HOPPER), ('tensorrt_rtx', 'auto', 'auto'), ValueError, 'Hopper.*torch-tensorrt'),
        (with_rtx(ORIN), ('tensorrt_rtx', 'auto', 'auto'), ValueError, 'Jetson.*engine_file'),
        (with_rtx((6, 1)), ('tensorrt_rtx', 'auto', 'auto'), ValueError, '6.1: its targets are'),
        (
            with_rtx(HOPPER, packages=RTX_BUILD),
            ('tensorrt', 'auto', 'auto'),
            ValueError,
            'TensorRT for RTX is not available for compute capability 9.0',
        ),
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


@pytest.mark.parametrize(
    ('machine', 'requested', 'selected'),
    [
        (JETSON, ('auto', 'auto', 'auto'), ('tensorrt', 'cuda')),
        (BOTH, ('auto', 'fp32', 'auto'), ('tensorrt', 'cuda')),
        (BOTH, ('tensorrt_rtx', 'auto', 'cuda:0'), ('tensorrt_rtx', 'cuda:0')),
        (with_rtx(ADA), ('auto', 'auto', 'auto'), ('tensorrt_rtx', 'cuda')),
    ],
)
def test_a_plan_from_a_file_runs_with_the_installed_package(machine, requested, selected):
    choice = choose_for_plan(*requested, machine)
    assert (choice.engine, choice.device) == selected
    assert str(choice).startswith(f'{choice.engine} in the precision of the plan on cuda')


@pytest.mark.parametrize(
    ('machine', 'requested', 'error', 'message'),
    [
        (LAPTOP, ('auto', 'auto', 'auto'), ValueError, 'engine_file needs an NVIDIA GPU'),
        (JETSON, ('torch', 'auto', 'auto'), ValueError, "engine 'torch' on 'cuda' does not use"),
        (JETSON, ('auto', 'auto', 'cpu'), ValueError, "'cpu'.*set engine to auto, tensorrt or"),
        (JETSON, ('openvino', 'auto', 'auto'), ValueError, "engine 'openvino'"),
        (GPU, ('auto', 'auto', 'auto'), ImportError, 'tensorrt or tensorrt_rtx.*python3-libnvin'),
        (JETSON, ('tensorrt_rtx', 'auto', 'auto'), ImportError, 'the package tensorrt_rtx'),
        (JETSON, ('auto', 'int8', 'auto'), ValueError, "precision is 'int8'"),
    ],
)
def test_a_plan_without_its_package_or_gpu_is_an_error(machine, requested, error, message):
    with pytest.raises(error, match=message):
        choose_for_plan(*requested, machine)


def test_a_model_uses_the_selection_for_this_machine(metrabs_model):
    choice = choose('auto', 'auto', 'auto', Machine.detect())
    assert metrabs_model.choice == choice


def test_negative_thread_counts_are_rejected():
    with pytest.raises(ValueError, match='threads is -1'):
        metrabs_ros.load_model('blazepose', threads=-1)
