"""A substitute for the packages tensorrt and tensorrt_rtx that runs plans on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import json
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch

DTYPES = {'FLOAT': np.float32, 'HALF': np.float16}


def plan(
    tensors: dict[str, tuple[str, list[int], str]], batches: tuple[int, int, int] = (1, 4, 16)
) -> bytes:
    """
    Return a plan of the substitute.

    Parameters
    ----------
    tensors
        Mode, shape and type of each input and output by name, such as
        ``{'x': ('INPUT', [-1, 3], 'FLOAT')}``.
    batches
        Minimum, optimal and maximum batch size.
    """
    return json.dumps({'tensors': tensors, 'batches': batches}).encode()


class FakeTensorRt(types.ModuleType):
    """
    The package: every output is the mean of the input of each batch entry, plus its index.

    The attributes `fails` and `offset` let plans fail, and add a number to all outputs.

    Parameters
    ----------
    name
        Name of the package.
    """

    __version__ = '10.3.0'
    TensorIOMode = types.SimpleNamespace(INPUT='INPUT', OUTPUT='OUTPUT')
    DataType = types.SimpleNamespace(**{name: types.SimpleNamespace(name=name) for name in DTYPES})

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.events: list[str] = []
        self.batch_sizes: list[int] = []
        self.fails = False
        self.offset = 0.0
        self.Runtime = lambda logger: _Runtime(self, logger)


class _Runtime:
    def __init__(self, package: FakeTensorRt, logger) -> None:
        self._package, self._logger = package, logger

    def deserialize_cuda_engine(self, content: bytes):
        try:
            return _Engine(self._package, self._logger, **json.loads(content))
        except ValueError:
            self._logger.log(self._package.ILogger.WARNING, 'not this')
            self._logger.log(self._package.ILogger.ERROR, 'magic tag\n does not match')
            self._logger.log(self._package.ILogger.ERROR, 'nor this')
            return None


class _Engine:
    def __init__(self, package, logger, tensors, batches) -> None:
        self.package, self.logger, self.tensors, self.batches = package, logger, tensors, batches
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return self.tensors[name][0]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name][1]

    def get_tensor_dtype(self, name: str):
        return getattr(self.package.DataType, self.tensors[name][2])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(batch, *self.tensors[name][1][1:]) for batch in self.batches]

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._batch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        least, _, most = self._engine.batches
        assert least <= shape[0] <= most
        assert list(shape[1:]) == self._engine.tensors[name][1][1:]
        self._batch = shape[0]

    def get_tensor_shape(self, name: str) -> list[int]:
        first, *others = self._engine.tensors[name][1]
        return [self._batch if first == -1 else first, *others]

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def _array(self, name: str) -> np.ndarray:
        shape = (self._batch, *self._engine.tensors[name][1][1:])
        pointer = ctypes.cast(self._addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape)

    def execute_async_v3(self, stream: int) -> bool:
        package = self._engine.package
        package.events.append(f'run on {stream}')
        package.batch_sizes.append(self._batch)
        if package.fails:
            self._engine.logger.log(package.ILogger.ERROR, 'an illegal memory access')
            return False
        (source,) = [n for n, tensor in self._engine.tensors.items() if tensor[0] == 'INPUT']
        means = self._array(source).reshape(self._batch, -1).mean(axis=1)
        outputs = [n for n, tensor in self._engine.tensors.items() if tensor[0] == 'OUTPUT']
        for index, name in enumerate(outputs):
            target = self._array(name)
            target[:] = package.offset + index + means.reshape(-1, *[1] * (target.ndim - 1))
        return True


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> FakeTensorRt:
    """Replace a package, and the streams of CUDA, which are recorded in `FakeTensorRt.events`."""
    package = FakeTensorRt(name)

    class Stream:
        def __init__(self, name: str) -> None:
            self.cuda_stream = name

        def wait_stream(self, other: Stream) -> None:
            package.events.append(f'{self.cuda_stream} waits for {other.cuda_stream}')

    current = Stream('current')
    replacements: dict[str, Callable] = {
        'device': lambda device: contextlib.nullcontext(),
        'Stream': lambda device: Stream('own'),
        'current_stream': lambda device: current,
    }
    for attribute, replacement in replacements.items():
        monkeypatch.setattr(torch.cuda, attribute, replacement)
    monkeypatch.setitem(__import__('sys').modules, name, package)
    return package
