"""Absolute 3D human poses from a calibrated camera."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

# The generated message modules and the other modules share the name of this package, but colcon
# can install them into different folders.
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
    # Lazy import: importing NumPy takes long enough to be interrupted, and the programs of this
    # package install their signal handlers first.
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
    engine_file: str | os.PathLike[str] = '',
    skeletons: str | os.PathLike[str] = '',
) -> PoseEstimator:
    """
    Load a model for absolute 3D human poses.

    Parameters
    ----------
    name_or_folder
        ``blazepose`` or ``blazepose_lite``, which are part of the package; ``blazepose_heavy``,
        ``metrabs_s``, ``metrabs_l``, ``nlf_s`` or ``nlf_l``, with weights that are downloaded at
        the first use; or a folder or file with a checkpoint of MeTRAbs or NLF as published for
        PyTorch.
    engine
        Inference engine: ``torch``, ``tensorrt`` (NVIDIA GPUs), ``tensorrt_rtx`` (GeForce RTX and
        RTX professional GPUs), ``openvino`` (CPUs) or ``auto``, the fastest one that is installed.
        BlazePose supports only OpenVINO.
    precision
        ``fp32``, ``fp16``, ``bf16`` or ``auto``: fp16 on GPUs, bf16 with OpenVINO on processors
        that support it, otherwise fp32.  The detector MoveNet runs in bf16 on processors that
        support it, unless this is fp32.
    device
        ``cpu``, ``cuda``, ``cuda:1`` or ``auto``, a GPU if one is available.
    detector
        Person detector for MeTRAbs and NLF: ``auto`` or ``movenet``, which is part of the package,
        ``onnx:FILE`` (of the YOLO or DETR family) or ``ultralytics:NAME``.
    threads
        Number of CPU threads of each network; 0 uses one for each core.  In streams, BlazePose and
        its detector run in parallel.
    engine_file
        Plan of TensorRT that is run instead of building an engine: built, for example by trtexec,
        from the file of ``metrabs_ros export`` for the same model.
    skeletons
        File of skeleton definitions, which combine joints of the model, or with NLF name points of
        the body; see docs/skeletons.md.
        Their names are values of the argument ``skeleton`` of the methods.

    Returns
    -------
    PoseEstimator
        The model, ready to run.

    Raises
    ------
    ValueError
        If the model or detector does not exist or does not support the other arguments, or the
        file of skeletons is not valid or does not fit the model.
    ImportError
        If a required package is not installed.
    metrabs_ros.weights.store.WeightsError
        If the weights are damaged, inconsistent or cannot be downloaded.
    """
    from metrabs_ros import loading

    return loading.load_model(
        name_or_folder, engine, precision, device, detector, threads, engine_file, skeletons
    )
