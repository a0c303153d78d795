"""Selection of inference engine, precision and device."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import re

from metrabs_ros.backends import tensorrt_rtx
from metrabs_ros.foreign_text import printable

ENGINES = ('auto', 'torch', 'tensorrt', 'tensorrt_rtx', 'openvino')
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')
UNAVAILABLE = {'openvino': 'fp16', 'tensorrt_rtx': 'bf16'}
"""The precision that an engine does not have."""
PLAN_PACKAGES = ('tensorrt', 'tensorrt_rtx')
"""Packages that run a plan from a file."""
EXPORT_PACKAGES = ('onnx', 'onnxscript')
"""Packages that the export to ONNX needs, and therefore a plan that is not in the cache."""
PLAN_PRECISION = 'the precision of the plan'


@dataclasses.dataclass(frozen=True)
class Machine:
    """
    Inference capabilities of a machine.

    Parameters
    ----------
    gpus
        Compute capabilities of the NVIDIA GPUs that torch detects.
    packages
        Those of the packages torch_tensorrt, torch_tensorrt_rtx, tensorrt, tensorrt_rtx, openvino
        and `EXPORT_PACKAGES` that are installed.  torch_tensorrt_rtx is torch_tensorrt for
        TensorRT for RTX; it takes the place of torch_tensorrt.
    cpu_bf16
        Whether the processor has bfloat16 instructions; otherwise OpenVINO emulates them.
    """

    gpus: tuple[tuple[int, int], ...]
    packages: frozenset[str]
    cpu_bf16: bool

    @classmethod
    def detect(cls) -> Machine:
        """Return the capabilities of this machine."""
        import torch

        from metrabs_ros.backends.openvino import cpu_supports_bf16

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        modules = ('torch_tensorrt', *PLAN_PACKAGES, 'openvino', *EXPORT_PACKAGES)
        packages = {name for name in modules if importlib.util.find_spec(name) is not None}
        if 'torch_tensorrt' in packages and _is_distribution('torch_tensorrt_rtx'):
            packages = packages - {'torch_tensorrt'} | {'torch_tensorrt_rtx'}
        return cls(
            gpus=tuple(torch.cuda.get_device_capability(index) for index in range(count)),
            packages=frozenset(packages),
            cpu_bf16='openvino' in packages and cpu_supports_bf16(),
        )

    def capability(self, device: str) -> tuple[int, int]:
        """Return the compute capability of a device ``cuda`` or ``cuda:N``."""
        return self.gpus[_gpu_index(device)]


def _is_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Choice:
    """
    The selected engine, precision and device.

    Parameters
    ----------
    engine
        ``torch``, ``tensorrt``, ``tensorrt_rtx`` or ``openvino``.
    precision
        ``fp32``, ``fp16``, ``bf16``, or `PLAN_PRECISION` with a plan from a file.
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
    if engine == 'auto':
        engine, engine_reason = _best_engine(device, precision, machine)
    else:
        _check_availability(engine, device, machine)
        engine_reason = f'engine {engine} was selected by the user'
    if precision == 'auto':
        precision = _best_precision(engine, _is_gpu(device), machine)
    check_precision(engine, precision)
    return Choice(engine, precision, device, f'{device_reason}; {engine_reason}')


def choose_for_plan(engine: str, precision: str, device: str, machine: Machine) -> Choice:
    """
    Select the package and the device that run a plan from a file.

    Parameters
    ----------
    engine
        ``auto``, ``tensorrt`` or ``tensorrt_rtx``; ``auto`` prefers ``tensorrt``.
    precision, device, machine
        As in `choose`; the plan has its own precision.

    Raises
    ------
    ValueError, ImportError
        As in `choose`.
    """
    _check_choice('engine', engine, ENGINES)
    _check_choice('precision', precision, PRECISIONS)
    device, device_reason = _device(engine, device, machine)
    if engine not in ('auto', *PLAN_PACKAGES) or not _is_gpu(device):
        raise ValueError(
            'engine_file needs an NVIDIA GPU that torch detects, which '
            f"engine '{engine}' on '{device}' does not use; set engine to auto, tensorrt or "
            'tensorrt_rtx, and device to auto or cuda'
        )
    wanted = PLAN_PACKAGES if engine == 'auto' else (engine,)
    installed = [package for package in wanted if package in machine.packages]
    if not installed:
        raise ImportError(
            f'engine_file needs the package {" or ".join(wanted)}; on a Jetson, '
            'apt install python3-libnvinfer'
        )
    return Choice(installed[0], PLAN_PRECISION, device, f'{device_reason}; engine_file is set')


def check_precision(engine: str, precision: str) -> None:
    """Raise a ValueError if an engine does not have a precision."""
    if UNAVAILABLE.get(engine) == precision:
        others = [name for name in PRECISIONS[1:] if name != precision]
        raise ValueError(
            f"precision '{precision}' is not available with engine '{engine}'; choose "
            f'{" or ".join(others)}'
        )


def _is_gpu(device: str) -> bool:
    return re.fullmatch(r'cuda(:\d{1,3})?', device) is not None


def _gpu_index(device: str) -> int:
    return int(device.partition(':')[2] or 0)


def _device(engine: str, device: str, machine: Machine) -> tuple[str, str]:
    is_gpu = isinstance(device, str) and _is_gpu(device)
    if device not in ('auto', 'cpu') and not is_gpu:
        raise ValueError(
            f"device is '{printable(device)}'; it must be one of auto, cpu, cuda, cuda:N"
        )
    if is_gpu and not machine.gpus:
        raise ValueError(
            f'device {device!r} is not available: torch does not detect an NVIDIA GPU; is its '
            'driver installed, and is this a build of torch with CUDA?'
        )
    if is_gpu and _gpu_index(device) >= len(machine.gpus):
        raise ValueError(
            f'device {device!r} is not available: torch detects {len(machine.gpus)} NVIDIA GPU, '
            'which are counted from cuda:0'
        )
    if device != 'auto':
        return device, f'device {device} was selected by the user'
    if not machine.gpus:
        return 'cpu', 'torch does not detect an NVIDIA GPU'
    if engine == 'openvino':
        return 'cpu', 'OpenVINO uses the CPU'
    return 'cuda', 'torch detects an NVIDIA GPU'


def _best_engine(device: str, precision: str, machine: Machine) -> tuple[str, str]:
    if _is_gpu(device):
        if 'torch_tensorrt' in machine.packages:
            return 'tensorrt', 'torch_tensorrt is installed'
        if 'tensorrt_rtx' not in machine.packages:
            return 'torch', 'neither torch_tensorrt nor tensorrt_rtx is installed'
        if not tensorrt_rtx.is_supported(machine.capability(device)):
            return 'torch', tensorrt_rtx.why_unsupported(machine.capability(device))
        if precision == UNAVAILABLE['tensorrt_rtx']:
            return 'torch', f'tensorrt_rtx does not have {precision}'
        if not machine.packages.issuperset(EXPORT_PACKAGES):
            return 'torch', f'tensorrt_rtx also needs the packages {" and ".join(EXPORT_PACKAGES)}'
        return 'tensorrt_rtx', 'tensorrt_rtx is installed'
    if 'openvino' in machine.packages:
        return 'openvino', 'openvino is installed'
    return 'torch', 'openvino is not installed'


def _best_precision(engine: str, on_gpu: bool, machine: Machine) -> str:
    if on_gpu:
        return 'fp16'
    return 'bf16' if engine == 'openvino' and machine.cpu_bf16 else 'fp32'


def _check_availability(engine: str, device: str, machine: Machine) -> None:
    if engine in PLAN_PACKAGES and not _is_gpu(device):
        raise ValueError(
            f"engine '{engine}' needs an NVIDIA GPU that torch detects, and device auto or cuda"
        )
    if engine == 'tensorrt' and not machine.packages & {'torch_tensorrt', 'torch_tensorrt_rtx'}:
        raise ImportError(
            "engine 'tensorrt' needs the package torch_tensorrt of the same version as torch: "
            'pip install torch-tensorrt'
        )
    if engine == 'tensorrt_rtx' and 'tensorrt_rtx' not in machine.packages:
        raise ImportError(tensorrt_rtx.MISSING)
    if engine == 'tensorrt_rtx' or (
        engine == 'tensorrt' and 'torch_tensorrt_rtx' in machine.packages
    ):
        capability = machine.capability(device)
        if not tensorrt_rtx.is_supported(capability):
            raise ValueError(tensorrt_rtx.why_unsupported(capability))
    if engine == 'openvino':
        if _is_gpu(device):
            raise ValueError("engine 'openvino' runs on the CPU; set device to auto or cpu")
        if 'openvino' not in machine.packages:
            raise ImportError("engine 'openvino' needs the package openvino: pip install openvino")


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{argument} is '{printable(value)}'; it must be one of {', '.join(choices)}"
        )
