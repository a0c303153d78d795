"""What runs a network, in which precision and where: what was asked for, or what is best here."""

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
    What a machine has to run networks with.

    Parameters
    ----------
    cuda
        Torch sees an NVIDIA GPU.
    torch_tensorrt, openvino
        The package is installed.
    cpu_bf16
        The processor calculates in bfloat16, rather than emulating it.
    """

    cuda: bool
    torch_tensorrt: bool
    openvino: bool
    cpu_bf16: bool

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine."""
        import torch

        has_openvino = importlib.util.find_spec('openvino') is not None
        return cls(
            cuda=torch.cuda.is_available(),
            torch_tensorrt=importlib.util.find_spec('torch_tensorrt') is not None,
            openvino=has_openvino,
            cpu_bf16=has_openvino and cpu_calculates_in_bf16(),
        )


@dataclasses.dataclass(frozen=True)
class Choice:
    """
    What runs a network.

    Parameters
    ----------
    engine
        ``torch``, ``tensorrt`` or ``openvino``.
    precision
        ``fp32``, ``fp16`` or ``bf16``.
    device
        ``cpu``, ``cuda`` or one of several GPUs, ``cuda:1``.
    reason
        Why these, in a few words.
    """

    engine: str
    precision: str
    device: str
    reason: str

    def __str__(self) -> str:
        """Return it in a sentence."""
        return f'{self.engine} in {self.precision} on {self.device}: {self.reason}'


def choose(engine: str, precision: str, device: str, machine: Machine) -> Choice:
    """
    Choose what runs a network.

    Parameters
    ----------
    engine
        One of `ENGINES`.
    precision
        One of `PRECISIONS`.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    machine
        What there is.

    Raises
    ------
    ValueError
        If one of them does not exist, or they do not go together.
    ImportError
        If what was asked for needs a package that is not installed.
    """
    _refuse_others('engine', engine, ENGINES)
    _refuse_others('precision', precision, PRECISIONS)
    device, where = _device(engine, device, machine)
    on_gpu = device.startswith('cuda')
    if engine == 'auto':
        engine, why = _best_engine(on_gpu, machine)
    else:
        _refuse_missing(engine, on_gpu, machine)
        why = 'it was asked for'
    if precision == 'auto':
        precision = _best_precision(engine, on_gpu, machine)
    elif engine == 'openvino' and precision == 'fp16':
        raise ValueError(
            "precision 'fp16' is not available with engine 'openvino'; choose fp32 or bf16"
        )
    return Choice(engine, precision, device, f'{where}; {why}')


def _device(engine: str, device: str, machine: Machine) -> tuple[str, str]:
    is_gpu = isinstance(device, str) and re.fullmatch(r'cuda(:\d{1,3})?', device) is not None
    if device not in ('auto', 'cpu') and not is_gpu:
        raise ValueError(f"device '{printable(device)}' is none of auto, cpu, cuda, cuda:N")
    if is_gpu and not machine.cuda:
        raise ValueError(
            f'device {device!r} is not available: torch sees no NVIDIA GPU; is its driver '
            'installed, and is this a build of torch with CUDA?'
        )
    if device != 'auto':
        return device, f'device {device} was asked for'
    if not machine.cuda:
        return 'cpu', 'torch sees no NVIDIA GPU'
    return ('cpu', 'OpenVINO uses the CPU') if engine == 'openvino' else ('cuda', 'there is a GPU')


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


def _refuse_missing(engine: str, on_gpu: bool, machine: Machine) -> None:
    if engine == 'tensorrt':
        if not on_gpu:
            raise ValueError("engine 'tensorrt' needs an NVIDIA GPU that torch sees, and no other")
        if not machine.torch_tensorrt:
            raise ImportError(
                "engine 'tensorrt' needs the package torch_tensorrt, of the version that torch "
                'has: pip install torch-tensorrt'
            )
    if engine == 'openvino':
        if on_gpu:
            raise ValueError("engine 'openvino' runs on the CPU; leave device at auto or cpu")
        if not machine.openvino:
            raise ImportError("engine 'openvino' needs the package openvino: pip install openvino")


def _refuse_others(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{argument} '{printable(value)}' is none of {', '.join(choices)}")


def cpu_calculates_in_bf16() -> bool:
    """Tell whether the processor has instructions for bfloat16; it can be emulated everywhere."""
    try:
        import openvino
    except ImportError:
        return False
    return 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
