"""
Plans: serialised engines of TensorRT or TensorRT for RTX, run on torch tensors.

Both packages have the same interface.  A plan is built for one kind of GPU and one version of its
package.  Deserialising it can execute code, so its file must not be writable by other users.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
import os
import pathlib
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import open_regular, read_opened, shown

if TYPE_CHECKING:
    import torch

MAX_PLAN_BYTES = 4 << 30
MAX_REASON_CHARS = 300
MAX_LISTED_TENSORS = 8
_LOGGER = logging.getLogger(__name__)


class PlanError(ValueError):
    """A plan cannot be built or used; the message contains the reason."""


@dataclasses.dataclass(frozen=True)
class TensorShape:
    """
    An input or output of a plan.

    Parameters
    ----------
    name
        Its name.
    shape
        Its shape without the leading batch size, which is dynamic.
    """

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return a description for messages."""
        return f'{self.name} float32 [batch, {", ".join(map(str, self.shape))}]'


class ErrorLog:
    """
    A logger of TensorRT that keeps the first error, because functions return only None.

    Parameters
    ----------
    trt
        The package ``tensorrt`` or ``tensorrt_rtx``.
    """

    def __init__(self, trt: Any) -> None:
        self._errors = errors = list[str]()

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                is_error = severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
                # Only the first one is reported; a plan in use may log errors for days.
                if is_error and not errors:
                    errors.append(message)
                _LOGGER.debug('%s', message)

        self.logger = Logger()

    def reason(self) -> str:
        """Return the first error since the last call, or a general message."""
        first = self._errors[0] if self._errors else 'TensorRT gives no reason'
        self._errors.clear()
        return printable(' '.join(first.split()), MAX_REASON_CHARS)


def read_plan_file(file: pathlib.Path) -> bytes:
    """
    Read the file of a plan.

    Raises
    ------
    PlanError
        If it is not a regular file, cannot be read, or other users may have written to it.
    """
    try:
        with open_regular(file) as opened:
            _check_writers(os.fstat(opened.fileno()))
            return read_opened(opened, MAX_PLAN_BYTES)
    except (OSError, ValueError) as error:
        reason = printable(getattr(error, 'strerror', None) or error, MAX_REASON_CHARS)
        raise PlanError(f'engine_file {shown(file)} cannot be used: {reason}') from error


def _check_writers(status: os.stat_result) -> None:
    """Raise a ValueError if users other than that of this process and root can write a file."""
    if status.st_uid not in (os.getuid(), 0):
        raise ValueError(
            f'it belongs to user {status.st_uid}, but a plan can execute code; it must belong to '
            f'user {os.getuid()} or to root'
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            'it is writable by other users, but a plan can execute code; run chmod go-w on it'
        )


class Plan:
    """
    A plan that runs on a GPU.

    Parameters
    ----------
    package
        ``tensorrt`` or ``tensorrt_rtx``.
    content
        The serialised engine.
    inputs
        Its expected inputs.
    outputs
        The outputs that are needed; it may have others.
    device
        The GPU.

    Raises
    ------
    ImportError
        If the package is not installed.
    PlanError
        If the plan is damaged, was built for another GPU or version, has other inputs, or lacks
        outputs.
    """

    def __init__(
        self,
        package: str,
        content: bytes,
        inputs: Sequence[TensorShape],
        outputs: Sequence[TensorShape],
        device: torch.device,
    ) -> None:
        import torch

        trt = importlib.import_module(package)
        self._errors = ErrorLog(trt)
        self._inputs, self._outputs, self._device = inputs, outputs, device
        with torch.cuda.device(device):
            # The runtime must exist as long as the engine.
            self._runtime = trt.Runtime(self._errors.logger)
            self._engine = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                raise PlanError(
                    f'the plan cannot be loaded by {package} {trt.__version__}: '
                    f'{self._errors.reason()}; build it on this machine with this version'
                )
            self._unused = check_tensors(trt, self._engine, inputs, outputs)
            self.max_batch = batch_limit(self._engine, inputs)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise PlanError(f'the plan cannot be started: {self._errors.reason()}')
            # TensorRT synchronises with the GPU if it runs on the default stream.
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """
        Run the plan.

        Parameters
        ----------
        inputs
            Each [batch, ...], float32, on the GPU, with a batch size of at most `max_batch`.

        Returns
        -------
        The needed outputs, each [batch, ...], float32.

        Raises
        ------
        RuntimeError
            If TensorRT reports an error.
        """
        import torch

        inputs = tuple(values.contiguous() for values in inputs)
        outputs = [
            torch.empty((len(inputs[0]), *output.shape), device=self._device)
            for output in self._outputs
        ]
        # TensorRT for RTX may compile kernels for a new shape on the current device.
        with torch.cuda.device(self._device):
            for tensor, values in zip(self._inputs, inputs):
                self._context.set_input_shape(tensor.name, tuple(values.shape))
            for tensor, values in zip((*self._inputs, *self._outputs), (*inputs, *outputs)):
                self._check_shape(tensor.name, tuple(values.shape))
                self._context.set_tensor_address(tensor.name, values.data_ptr())
            # TensorRT writes all outputs.
            unused = [self._allocate(name) for name in self._unused]
            # Both waits are on the GPU.  The second one keeps the memory of the inputs, and of the
            # outputs that are not needed, in use.
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            is_started = self._context.execute_async_v3(self._stream.cuda_stream)
            current.wait_stream(self._stream)
            del unused
        if not is_started:
            raise RuntimeError(f'TensorRT cannot run the plan: {self._errors.reason()}')
        return outputs

    def _check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        # Otherwise TensorRT would read or write outside of the memory of the tensor.
        shape = tuple(self._context.get_tensor_shape(name))
        if shape != expected:
            raise RuntimeError(
                f'TensorRT cannot run the plan: {name} has the shape {list(shape)} in the plan; '
                f'expected: {list(expected)}'
            )

    def _allocate(self, name: str) -> torch.Tensor:
        """Return memory for an output that is not needed."""
        import torch

        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise RuntimeError(
                f'TensorRT cannot run the plan: its output {printable(name)} has the shape '
                f'{list(shape)}, which depends on the content of the inputs; build the plan '
                'without it'
            )
        # The largest type of TensorRT has eight bytes.
        memory = torch.empty(math.prod(shape) or 1, dtype=torch.int64, device=self._device)
        self._context.set_tensor_address(name, memory.data_ptr())
        return memory


def check_tensors(
    trt: Any, engine: Any, inputs: Sequence[TensorShape], outputs: Sequence[TensorShape]
) -> list[str]:
    """
    Check the names, shapes and types of the inputs and of the needed outputs of an engine.

    Returns
    -------
    The names of its other outputs.

    Raises
    ------
    PlanError
        If they are not the expected ones.
    """
    expected = {tensor.name: tensor for tensor in (*inputs, *outputs)}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    found_inputs = {name for name in names if modes[name] == trt.TensorIOMode.INPUT}
    described = ', '.join(str(tensor) for tensor in expected.values())
    remedy = f'expected: {described}; build the plan from the file of metrabs_ros export'
    if found_inputs != {tensor.name for tensor in inputs} or not expected.keys() <= set(names):
        found = printable(', '.join(names[:MAX_LISTED_TENSORS]))
        raise PlanError(f'the plan has the inputs and outputs {found}; {remedy}')
    for name, tensor in expected.items():
        shape, dtype = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)
        # A plan for one batch size has a fixed shape.
        if shape[1:] != tensor.shape:
            raise PlanError(f'{name} of the plan has the shape {list(shape)}; {remedy}')
        if dtype != trt.DataType.FLOAT:
            raise PlanError(f'{name} of the plan has the type {dtype.name}; {remedy}')
    return [name for name in names if name not in expected]


def batch_limit(engine: Any, inputs: Sequence[TensorShape]) -> int:
    """
    Return the maximum batch size of an engine.

    Raises
    ------
    PlanError
        If the engine does not accept a batch size of one.
    """
    limits = []
    for tensor in inputs:
        least, _, most = (shape[0] for shape in engine.get_tensor_profile_shape(tensor.name, 0))
        if least > 1:
            size = 'x'.join(map(str, (1, *tensor.shape)))
            raise PlanError(
                f'the plan accepts batches of {least} to {most}; the smallest batch size must be '
                f'1, in trtexec --minShapes={tensor.name}:{size}'
            )
        limits.append(most)
    return min(limits)
