"""Selection of inference engine, precision and device."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

from metrabs_ros.foreign_text import printable

ENGINES = ('auto', 'torch', 'tensorrt', 'openvino')
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')


@dataclasses.dataclass(frozen=True)
class Machine:
    """
    Inference capabilities of a machine.

    Parameters
    ----------
    cuda
        Whether torch detects an NVIDIA GPU.
    torch_tensorrt, openvino
        Whether the package is installed.
    cpu_bf16
        Whether the processor has bfloat16 instructions; otherwise OpenVINO emulates them.
    """

    cuda: bool
    torch_tensorrt: bool
    openvino: bool
    cpu_bf16: bool

    @classmethod
    def detect(cls) -> Machine:
        """Return the capabilities of this machine."""
        import torch

        from metrabs_ros.backends.openvino import cpu_supports_bf16

        has_openvino = importlib.util.find_spec('openvino') is not None
        return cls(
            cuda=torch.cuda.is_available(),
            torch_tensorrt=importlib.util.find_spec('torch_tensorrt') is not None,
            openvino=has_openvino,
            cpu_bf16=has_openvino and cpu_supports_bf16(),
        )


@dataclasses.dataclass(frozen=True)
class Choice:
    """
    The selected engine, precision and device.

    Parameters
    ----------
    engine
        ``torch``, ``tensorrt`` or ``openvino``.
    precision
        ``fp32``, ``fp16`` or ``bf16``.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    reason
        Short explanation of the selection, for logs and diagnostics.
    """

    engine: str
    precision: str
    device: str
    reason: str

    def __str__(self) -> str:
        """Return a description for logs."""
        return f'{self.engine} in {self.precision} on {self.device}: {self.reason}'


def choose(engine: str, precision: str, device: str, machine: Machine) -> Choice:
    """
    Select engine, precision and device.

    Parameters
    ----------
    engine
        One of `ENGINES`.
    precision
        One of `PRECISIONS`.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    machine
        Capabilities of the machine.

    Returns
    -------
    Choice
        The requested values, with ``auto`` replaced by the fastest available ones.

    Raises
    ------
    ValueError
        If a value is unknown or not available, or the values cannot be combined.
    ImportError
        If the requested engine needs a package that is not installed.
    """
    _check_choice('engine', engine, ENGINES)
    _check_choice('precision', precision, PRECISIONS)
    device, device_reason = _device(engine, device, machine)
    on_gpu = device.startswith('cuda')
    if engine == 'auto':
        engine, engine_reason = _best_engine(on_gpu, machine)
    else:
        _check_availability(engine, on_gpu, machine)
        engine_reason = f'engine {engine} was selected by the user'
    if precision == 'auto':
        precision = _best_precision(engine, on_gpu, machine)
    elif engine == 'openvino' and precision == 'fp16':
        raise ValueError(
            "precision 'fp16' is not available with engine 'openvino'; choose fp32 or bf16"
        )
    return Choice(engine, precision, device, f'{device_reason}; {engine_reason}')


def _device(engine: str, device: str, machine: Machine) -> tuple[str, str]:
    is_gpu = isinstance(device, str) and re.fullmatch(r'cuda(:\d{1,3})?', device) is not None
    if device not in ('auto', 'cpu') and not is_gpu:
        raise ValueError(
            f"device is '{printable(device)}'; it must be one of auto, cpu, cuda, cuda:N"
        )
    if is_gpu and not machine.cuda:
        raise ValueError(
            f'device {device!r} is not available: torch does not detect an NVIDIA GPU; is its '
            'driver installed, and is this a build of torch with CUDA?'
        )
    if device != 'auto':
        return device, f'device {device} was selected by the user'
    if not machine.cuda:
        return 'cpu', 'torch does not detect an NVIDIA GPU'
    if engine == 'openvino':
        return 'cpu', 'OpenVINO uses the CPU'
    return 'cuda', 'torch detects an NVIDIA GPU'


def _best_engine(on_gpu: bool, machine: Machine) -> tuple[str, str]:
    if on_gpu:
        if machine.torch_tensorrt:
            return 'tensorrt', 'torch_tensorrt is installed'
        return 'torch', 'torch_tensorrt is not installed'
    if machine.openvino:
        return 'openvino', 'openvino is installed'
    return 'torch', 'openvino is not installed'


def _best_precision(engine: str, on_gpu: bool, machine: Machine) -> str:
    if on_gpu:
        return 'fp16'
    return 'bf16' if engine == 'openvino' and machine.cpu_bf16 else 'fp32'


def _check_availability(engine: str, on_gpu: bool, machine: Machine) -> None:
    if engine == 'tensorrt':
        if not on_gpu:
            raise ValueError(
                "engine 'tensorrt' needs an NVIDIA GPU that torch detects, and device auto or cuda"
            )
        if not machine.torch_tensorrt:
            raise ImportError(
                "engine 'tensorrt' needs the package torch_tensorrt of the same version as torch: "
                'pip install torch-tensorrt'
            )
    if engine == 'openvino':
        if on_gpu:
            raise ValueError("engine 'openvino' runs on the CPU; set device to auto or cpu")
        if not machine.openvino:
            raise ImportError("engine 'openvino' needs the package openvino: pip install openvino")


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{argument} is '{printable(value)}'; it must be one of {', '.join(choices)}"
        )
