"""From a model's name or folder to a pose estimator that is ready to run."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

from metrabs_ros.estimator import PoseEstimator
from metrabs_ros.models import store
from metrabs_ros.models.store import BLAZEPOSE

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector
    from metrabs_ros.estimators.blazepose import BlazePoseEstimator

DETECTORS = ('auto', BLAZEPOSE, 'onnx:FILE', 'ultralytics:NAME')


def load_model(
    name_or_folder: str | os.PathLike[str], engine: str, precision: str, device: str, detector: str
) -> PoseEstimator:
    """Load a model; see `metrabs_ros.load_model`."""
    name = os.fspath(name_or_folder)
    if name == BLAZEPOSE:
        _refuse_others(name, 'engine', engine, ('auto', 'openvino'))
        _refuse_others(name, 'precision', precision, ('auto', 'fp32'))
        _refuse_others(name, 'device', device, ('auto', 'cpu'))
        _refuse_others(name, 'detector', detector, ('auto', BLAZEPOSE))
        return load_blazepose()
    if name not in store.RELEASES and not pathlib.Path(name).expanduser().is_dir():
        raise ValueError(
            f'there is no model {name!r}: it is no folder, and none of {", ".join(store.MODELS)}'
        )
    _refuse_others(name, 'engine', engine, ('auto', 'torch'))
    _refuse_others(name, 'precision', precision, ('auto', 'fp32'))
    return _load_metrabs(name, device, detector)


def load_blazepose() -> BlazePoseEstimator:
    """Load BlazePose's networks, fetching them if they are not there."""
    from metrabs_ros.detectors.blazepose import BlazePoseDetector
    from metrabs_ros.estimators.blazepose import BlazePoseEstimator
    from metrabs_ros.models.blazepose import BlazePoseLandmarks

    folder = store.weights_folder(store.BLAZEPOSE)
    return BlazePoseEstimator(
        BlazePoseDetector(folder / 'pose_detection.tflite'),
        BlazePoseLandmarks(folder / 'pose_landmark_full.tflite'),
    )


def load_detector(name: str) -> BoxDetector:
    """
    Load what finds people's boxes.

    Parameters
    ----------
    name
        ``auto``, ``blazepose``, ``onnx:FILE`` or ``ultralytics:NAME``.

    Raises
    ------
    ValueError
        If there is no such detector, or its file is none.
    ImportError
        If it needs a package that is not installed.
    """
    kind, _, rest = name.partition(':')
    if kind in ('auto', BLAZEPOSE) and not rest:
        from metrabs_ros.estimators.blazepose import BlazePoseBoxes

        return BlazePoseBoxes(load_blazepose)
    if kind == 'onnx' and rest:
        from metrabs_ros.detectors.onnx import OnnxDetector

        return OnnxDetector(pathlib.Path(rest).expanduser())
    if kind == 'ultralytics' and rest:
        from metrabs_ros.detectors.ultralytics import UltralyticsDetector

        return UltralyticsDetector(rest)
    raise ValueError(f'detector {name!r} is none of {", ".join(DETECTORS)}')


def _load_metrabs(name: str, device: str, detector: str) -> PoseEstimator:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'the package torch is needed to run MeTRAbs: pip install torch'
        ) from error
    from metrabs_ros.estimators.metrabs import MetrabsEstimator
    from metrabs_ros.models.checkpoint import read_checkpoint

    choices = ('auto', 'cpu', *(['cuda'] if torch.cuda.is_available() else []))
    _refuse_others(name, 'device', device, choices)
    folder = store.weights_folder(name) if name in store.RELEASES else pathlib.Path(name)
    checkpoint = read_checkpoint(folder.expanduser())
    return MetrabsEstimator(
        checkpoint, load_detector(detector), choices[-1] if device == 'auto' else device
    )


def _refuse_others(model: str, argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f'{argument} {value!r} cannot be had for {model}; choose of {", ".join(choices)}'
        )
