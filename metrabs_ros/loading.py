"""From a model's name or folder to a pose estimator that is ready to run."""

from __future__ import annotations

import functools
import importlib.util
import logging
import numbers
import os
import pathlib
from typing import TYPE_CHECKING

from metrabs_ros.foreign_text import printable
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.weights import store
from metrabs_ros.weights.store import BLAZEPOSE

if TYPE_CHECKING:
    from metrabs_ros.backends.selection import Choice
    from metrabs_ros.blazepose.estimator import BlazePoseEstimator
    from metrabs_ros.detectors.boxes import BoxDetector
    from metrabs_ros.metrabs.checkpoint import Checkpoint
    from metrabs_ros.metrabs.crop_engine import CropEngine

_LOGGER = logging.getLogger(__name__)
DETECTORS = ('auto', BLAZEPOSE, 'onnx:FILE', 'ultralytics:NAME')
MOST_THREADS = 1024


def load_model(
    name_or_folder: str | os.PathLike[str],
    engine: str,
    precision: str,
    device: str,
    detector: str,
    threads: int,
) -> PoseEstimator:
    """Load a model; see `metrabs_ros.load_model`."""
    name = os.fsdecode(name_or_folder)
    _require_whole('threads', threads, MOST_THREADS)
    if name == BLAZEPOSE:
        _refuse_others(name, 'engine', engine, ('auto', 'openvino'))
        _refuse_others(name, 'precision', precision, ('auto', 'fp32', 'bf16'))
        _refuse_others(name, 'device', device, ('auto', 'cpu'))
        _refuse_others(name, 'detector', detector, ('auto', BLAZEPOSE))
        return load_blazepose(precision, threads)
    return _load_metrabs(name, engine, precision, device, detector, threads)


def load_blazepose(precision: str = 'auto', threads: int = 0) -> BlazePoseEstimator:
    """
    Load BlazePose's networks, fetching them if they are not there.

    In bf16 its landmarks are off by some percent of the distance, so that it has to be asked for;
    its detector finds as many people in either, and takes what the processor is quicker in.
    """
    from metrabs_ros.backends.selection import Choice, cpu_calculates_in_bf16
    from metrabs_ros.blazepose.detector import BlazePoseDetector
    from metrabs_ros.blazepose.estimator import BlazePoseEstimator
    from metrabs_ros.blazepose.network import BlazePoseLandmarks

    folder = store.weights_folder(store.BLAZEPOSE)
    of_landmarks, of_detector, reason = precision, precision, 'it was asked for'
    if precision == 'auto':
        of_landmarks = 'fp32'
        of_detector = 'bf16' if cpu_calculates_in_bf16() else 'fp32'
        reason = f'bf16 would cost it percents of the distance; its detector is in {of_detector}'
    return BlazePoseEstimator(
        BlazePoseDetector(folder / 'pose_detection.tflite', threads, of_detector),
        BlazePoseLandmarks(folder / 'pose_landmark_full.tflite', threads, of_landmarks),
        Choice('openvino', of_landmarks, 'cpu', reason),
    )


def load_detector(name: str, threads: int = 0) -> BoxDetector:
    """
    Load a detector of people's boxes.

    Parameters
    ----------
    name
        ``auto``, ``blazepose``, ``onnx:FILE`` or ``ultralytics:NAME``.
    threads
        How many it may use on the CPU; 0 takes one for each core.

    Raises
    ------
    ValueError
        If there is no such detector, or its file cannot be used.
    ImportError
        If it needs a package that is not installed.
    """
    kind, _, rest = name.partition(':') if isinstance(name, str) else ('', '', '')
    if kind in ('auto', BLAZEPOSE) and not rest:
        # Loaded at the first detection: pose estimation in given boxes needs no detector.
        load = functools.cache(lambda: _load_blazepose_boxes(threads))
        return lambda image, camera, options: load()(image, camera, options)
    if kind == 'onnx' and rest:
        from metrabs_ros.detectors.onnx import OnnxDetector

        return OnnxDetector(_expanded('detector', rest), threads)
    if kind == 'ultralytics' and rest:
        from metrabs_ros.detectors.ultralytics import UltralyticsDetector

        return UltralyticsDetector(rest, threads)
    raise ValueError(f"detector '{printable(name)}' is none of {', '.join(DETECTORS)}")


def _load_metrabs(
    name: str, engine: str, precision: str, device: str, detector: str, threads: int
) -> PoseEstimator:
    _require_model(name)
    _require_torch()
    from metrabs_ros.backends.selection import Machine, choose
    from metrabs_ros.metrabs.estimator import MetrabsEstimator

    choice = choose(engine, precision, device, Machine.here())
    checkpoint = _read_metrabs(name)
    boxes = load_detector(detector, threads)
    _LOGGER.info('%s is run by %s', name, choice)
    return MetrabsEstimator(checkpoint, boxes, start_engine(checkpoint, choice, threads), choice)


def build_engine(name: str, precision: str, device: str) -> Choice:
    """
    Put a model's TensorRT engine into the engine cache, unless it is there; return what it is.

    Raises
    ------
    ValueError, ImportError, metrabs_ros.weights.store.WeightsError
        As `metrabs_ros.load_model` does.
    """
    _require_model(name)
    _require_torch()
    from metrabs_ros.backends.selection import Machine, choose

    choice = choose('tensorrt', precision, device, Machine.here())
    start_engine(_read_metrabs(name), choice)
    return choice


def start_engine(checkpoint: Checkpoint, choice: Choice, threads: int = 0) -> CropEngine:
    """Prepare what runs a network; the checkpoint's network becomes its own."""
    import torch

    from metrabs_ros.backends.engine_cache import EngineCache

    model, config = checkpoint.crop_model, checkpoint.config
    device, precision = torch.device(choice.device), choice.precision
    if choice.engine == 'tensorrt':
        from metrabs_ros.metrabs.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(model, config, device, precision, EngineCache())
    if choice.engine == 'openvino':
        from metrabs_ros.metrabs.openvino_engine import OpenVinoCropEngine

        return OpenVinoCropEngine(model, config, precision, EngineCache(), threads)
    from metrabs_ros.metrabs.torch_engine import CudaGraphEngine, TorchEngine

    if device.type == 'cuda':
        return CudaGraphEngine(model, config.side_px, device, precision)
    if threads:
        torch.set_num_threads(threads)
    return TorchEngine(model, device, precision)


def _load_blazepose_boxes(threads: int) -> BoxDetector:
    from metrabs_ros.blazepose.estimator import BlazePoseBoxes

    return BlazePoseBoxes(load_blazepose(threads=threads))


def _require_torch() -> None:
    if importlib.util.find_spec('torch') is None:
        raise ImportError('the package torch is needed to run MeTRAbs: pip install torch')


def _require_model(name: str) -> None:
    """Raise a ValueError unless the name is that of a release or a folder."""
    if name in store.RELEASES:
        return
    try:
        is_folder = bool(name) and _expanded('model', name).is_dir()
    except OSError as error:
        reason = printable(error.strerror or error)
        raise ValueError(f"model '{printable(name)}' cannot be read: {reason}") from error
    if not is_folder:
        raise ValueError(
            f"there is no model '{printable(name)}': it is no folder, and none of "
            f'{", ".join(store.MODELS)}'
        )


def _read_metrabs(name: str) -> Checkpoint:
    from metrabs_ros.metrabs.checkpoint import read_checkpoint

    if name in store.RELEASES:
        return read_checkpoint(store.weights_folder(name))
    return read_checkpoint(_expanded('model', name))


def _expanded(argument: str, path: str) -> pathlib.Path:
    """Return a path with its ``~`` replaced."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{argument} '{printable(path)}' names a home directory that is not known"
        ) from error


def _require_whole(argument: str, value: object, most: int) -> None:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or not 0 <= int(value) <= most:  # type: ignore[call-overload]
        raise ValueError(
            f'{argument} is {printable(repr(value))}; it must be a whole number from 0 to {most}'
        )


def _refuse_others(model: str, argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{argument} '{printable(value)}' is not available for {model}; choose one of "
            f'{", ".join(choices)}'
        )
