"""Absolute 3D human poses from a calibrated camera."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

# The messages, generated at build time, and the hand-written modules share this package's name
# but not always a folder.
__path__ = pkgutil.extend_path(__path__, __name__)

if TYPE_CHECKING:
    import os

    from metrabs_ros.camera import Camera
    from metrabs_ros.people import People
    from metrabs_ros.pose_estimator import PoseEstimator
    from metrabs_ros.tracking.tracker import Tracker

__all__ = ['Camera', 'People', 'Tracker', 'load_model']
__version__ = '0.1.0'

_MODULES = {
    'Camera': 'metrabs_ros.camera',
    'People': 'metrabs_ros.people',
    'Tracker': 'metrabs_ros.tracking.tracker',
}


def __getattr__(name: str) -> Any:
    # Imported at the first use: programs of this package must first be ready for signals, and
    # importing NumPy takes long enough to be interrupted.
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_model(
    name_or_folder: str | os.PathLike[str],
    engine: str = 'auto',
    precision: str = 'auto',
    device: str = 'auto',
    detector: str = 'auto',
    threads: int = 0,
) -> PoseEstimator:
    """
    Load a model for absolute 3D human poses.

    Parameters
    ----------
    name_or_folder
        ``blazepose``, ``metrabs_s`` or ``metrabs_l``, whose weights are fetched at the first
        use, or a folder with a MeTRAbs checkpoint as published for PyTorch.
    engine
        What runs the network: ``torch``, ``tensorrt`` (NVIDIA GPUs), ``openvino`` (CPUs) or
        ``auto``, which takes the fastest that is installed.  BlazePose has OpenVINO only.
    precision
        ``fp32``, ``fp16``, ``bf16`` or ``auto``: fp16 on GPUs, bf16 with OpenVINO where the
        processor has it, else fp32.
    device
        ``cpu``, ``cuda``, ``cuda:1`` or ``auto``, which takes a GPU where there is one.
    detector
        What finds people for MeTRAbs: ``auto``, ``blazepose``, ``onnx:FILE`` (of the YOLO or DETR
        family) or ``ultralytics:NAME``.
    threads
        How many the network may use on the CPU; 0 takes one for each core.

    Raises
    ------
    ValueError
        If there is no such model or detector, or it cannot run in the way asked for.
    ImportError
        If a package is needed that is not installed.
    metrabs_ros.weights.store.WeightsError
        If the weights are damaged, do not fit together or cannot be fetched.
    """
    from metrabs_ros import loading

    return loading.load_model(name_or_folder, engine, precision, device, detector, threads)
