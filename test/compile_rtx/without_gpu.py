"""
Import torch_tensorrt, built for TensorRT for RTX, on a machine without a GPU and driver.

Importing this module replaces functions of torch that ask for the properties of a GPU, and private
functions of torch_tensorrt that load a compiled engine.  The converters and the compiler are the
real ones.  The compiled networks are recorded in `COMPILED`.
"""

from __future__ import annotations

import dataclasses
import types

import torch

CAPABILITY = (8, 6)
TARGETS = ('SM80', 'SM86', 'SM89', 'SM120')
MEMORY_BYTES = 8 << 30


def _replace_gpu_properties() -> None:
    properties = types.SimpleNamespace(
        name='no GPU',
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        total_memory=MEMORY_BYTES,
        multi_processor_count=30,
    )
    if not hasattr(torch._C, '_CudaDeviceProperties'):
        torch._C._CudaDeviceProperties = object
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda *_, **__: CAPABILITY
    torch.cuda.get_device_properties = lambda *_, **__: properties
    torch.cuda.mem_get_info = lambda *_, **__: (MEMORY_BYTES, MEMORY_BYTES)
    torch.cuda.empty_cache = lambda: None


# torch_tensorrt asks for these when it is imported.
_replace_gpu_properties()

import tensorrt_rtx as trt
import torch_tensorrt
from torch_tensorrt.dynamo import _compiler
from torch_tensorrt.dynamo.conversion import _TRTInterpreter as interpreter
from torch_tensorrt.dynamo.runtime import _TorchTensorRTModule as runtime


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a network that was given to the compiler."""

    kind: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Network:
    """
    A network that was given to the compiler.

    Parameters
    ----------
    layers
        Kind and type of the first output of each layer.
    profiles
        Minimum, optimal and maximum shape of each input.
    tf32
        Whether products in fp32 may be rounded.
    """

    layers: list[Layer]
    profiles: list[list[tuple[int, ...]]]
    tf32: bool


COMPILED: list[Network] = []


class _UnloadedEngine:
    """A compiled engine that stays bytes, because only a driver can load it."""

    def __init__(self, content: object) -> None:
        self.serialize = lambda: content
        self.get_aliased_input_tensor = lambda name: None


class _Package:
    """The package tensorrt_rtx with another runtime."""

    class Runtime:
        def __init__(self, *_: object) -> None:
            self.deserialize_cuda_engine = _UnloadedEngine

    def __getattr__(self, name: str) -> object:
        return getattr(trt, name)


_populate = interpreter.TRTInterpreter._populate_trt_builder_config


def _populate_for_targets(self, *args, **kwargs):
    """Record the network, and compile it for targets instead of for the GPU of this machine."""
    config = _populate(self, *args, **kwargs)
    network = self.ctx.net
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    COMPILED.append(
        Network(
            [Layer(layer.type.name, layer.get_output(0).dtype.name) for layer in layers],
            [
                [tuple(shape) for shape in profile.get_shape(network.get_input(i).name)]
                for profile in self.optimization_profiles
                for i in range(network.num_inputs)
            ],
            config.get_flag(trt.BuilderFlag.TF32),
        )
    )
    config.num_compute_capabilities = len(TARGETS)
    for index, target in enumerate(TARGETS):
        assert config.set_compute_capability(getattr(trt.ComputeCapability, target), index), target
    return config


_compiler.to_torch_tensorrt_device = lambda device: torch_tensorrt.Device(gpu_id=0)
torch_tensorrt.Device.to = lambda self, kind: torch.device('cpu')
interpreter.trt = _Package()
interpreter.TRTInterpreter._populate_trt_builder_config = _populate_for_targets
runtime.TorchTensorRTModule.setup_engine = lambda self: None
runtime.TorchTensorRTModule.set_output_tensors_as_unowned = lambda self, enabled: None
