"""Create pose estimators and person detectors from their names or files."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import numbers
import os
import pathlib
from typing import TYPE_CHECKING

from metrabs_ros.foreign_text import printable
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.definition_file import read_definitions
from metrabs_ros.weights import store

if TYPE_CHECKING:
    from metrabs_ros.backends.engine_cache import EngineCache
    from metrabs_ros.backends.selection import Choice
    from metrabs_ros.blazepose.estimator import BlazePoseEstimator
    from metrabs_ros.crop_networks.crop_engine import CropEngine
    from metrabs_ros.crop_networks.crop_estimator import CropPoseEstimator
    from metrabs_ros.crop_networks.described_network import CropCheckpoint
    from metrabs_ros.detectors.boxes import BoxDetector
    from metrabs_ros.metrabs.checkpoint import Checkpoint
    from metrabs_ros.movenet.detector import MoveNetDetector
    from metrabs_ros.nlf.checkpoint import NlfCheckpoint

_LOGGER = logging.getLogger(__name__)
MOVENET = 'movenet'
MOVENET_FILE = 'movenet_multipose.xml'
DETECTORS = ('auto', MOVENET, 'onnx:FILE', 'ultralytics:NAME')
BUILT_ENGINES = ('auto', 'tensorrt', 'tensorrt_rtx')
"""Engines that are built before they are used."""
MAX_THREADS = 1024
"""Maximum value of the argument ``threads``."""
MODEL_SUFFIXES = ('.torchscript', '.pt')
"""Suffixes of files that contain a whole NLF model, or are next to its other files."""


@dataclasses.dataclass(frozen=True)
class ModelArguments:
    """
    Arguments of `load_model` that determine the networks.

    Parameters
    ----------
    name
        Name of a model, or path of a checkpoint.
    engine, precision, device, detector, threads
        See `metrabs_ros.load_model`.
    plan_file
        Path of a plan of TensorRT; empty to build the engine.
    """

    name: str
    engine: str
    precision: str
    device: str
    detector: str
    threads: int
    plan_file: str


def load_model(
    name_or_folder: str | os.PathLike[str],
    engine: str,
    precision: str,
    device: str,
    detector: str,
    threads: int,
    engine_file: str | os.PathLike[str] = '',
    skeletons: str | os.PathLike[str] = '',
) -> PoseEstimator:
    """Load a model; see `metrabs_ros.load_model`."""
    arguments = ModelArguments(
        os.fsdecode(name_or_folder),
        engine,
        precision,
        device,
        detector,
        threads,
        os.fsdecode(engine_file),
    )
    _check_threads(threads)
    # Read first, because loading a network takes long.
    definitions = []
    if file := os.fsdecode(skeletons):
        definitions = read_definitions(_expand_home('skeletons', file))
    model = _load(arguments)
    model.add_skeletons(definitions)
    return model


def _load(arguments: ModelArguments) -> PoseEstimator:
    name, precision = arguments.name, arguments.precision
    if name in store.BLAZEPOSE_MODELS:
        _check_choice(name, 'engine_file', arguments.plan_file, ('',))
        _check_choice(name, 'engine', arguments.engine, ('auto', 'openvino'))
        _check_choice(name, 'precision', precision, ('auto', 'fp32', 'bf16'))
        _check_choice(name, 'device', arguments.device, ('auto', 'cpu'))
        _check_choice(name, 'detector', arguments.detector, ('auto', MOVENET))
        return load_blazepose(name, precision, arguments.threads)
    return _load_crop_estimator(arguments)


def load_blazepose(
    name: str = store.BLAZEPOSE, precision: str = 'auto', threads: int = 0
) -> BlazePoseEstimator:
    """
    Load BlazePose with the detector MoveNet.

    Parameters
    ----------
    name
        One of `store.BLAZEPOSE_MODELS`.
    precision
        Precision of both networks.  ``auto`` is fp32 for the landmark network, because bf16 causes
        errors of several percent of the distance, and that of `load_movenet` for the detector.
    threads
        Number of CPU threads; 0 uses one for each core.
    """
    from metrabs_ros.backends.selection import Choice
    from metrabs_ros.blazepose.estimator import BlazePoseEstimator
    from metrabs_ros.blazepose.network import SIZE_FACTORS, STATURE_BIASES, BlazePoseLandmarks
    from metrabs_ros.weights.bundled import bundled_network

    if name in store.BUNDLED:
        landmark_file = bundled_network(store.BUNDLED[name])
    else:
        landmark_file = store.weights_folder(name) / store.HEAVY_FILE
    movenet_precision = _movenet_precision(precision)
    reason = 'selected by the user'
    if precision == 'auto':
        precision = 'fp32'
        reason = 'bf16 would cause errors of several percent of the distance'
    if movenet_precision != precision:
        reason += f'; the detector runs in {movenet_precision}'
    estimator = BlazePoseEstimator(
        load_movenet(threads, movenet_precision),
        BlazePoseLandmarks(landmark_file, threads, precision, SIZE_FACTORS[name]),
        Choice('openvino', precision, 'cpu', reason),
    )
    estimator.stature_bias = STATURE_BIASES[name]
    return estimator


def load_movenet(threads: int = 0, precision: str = 'auto') -> MoveNetDetector:
    """
    Load the person detector MoveNet MultiPose.

    Parameters
    ----------
    threads
        Number of CPU threads; 0 uses one for each core.
    precision
        ``fp32``; otherwise bf16 on processors that support it, where it takes half the time.
    """
    from metrabs_ros.weights.bundled import bundled_network

    return _start_movenet(bundled_network(MOVENET_FILE), threads, _movenet_precision(precision))


def _movenet_precision(precision: str) -> str:
    """Return the precision of MoveNet for that of a model."""
    from metrabs_ros.backends.openvino import cpu_supports_bf16

    return 'bf16' if precision != 'fp32' and cpu_supports_bf16() else 'fp32'


def _start_movenet(file: pathlib.Path, threads: int, precision: str) -> MoveNetDetector:
    from metrabs_ros.movenet.detector import MoveNetDetector
    from metrabs_ros.movenet.network import MoveNet

    return MoveNetDetector(MoveNet(file, threads, precision))


def _load_movenet_boxes(threads: int, precision: str) -> BoxDetector:
    """Check the files of MoveNet, and return a detector that starts it at the first image."""
    from metrabs_ros.weights.bundled import bundled_network

    file = bundled_network(MOVENET_FILE)

    # Pose estimation in given boxes needs neither the detector nor its packages.
    @functools.cache
    def start() -> BoxDetector:
        from metrabs_ros.movenet.detector import MoveNetBoxes

        return MoveNetBoxes(_start_movenet(file, threads, _movenet_precision(precision)))

    return lambda image, camera, options: start()(image, camera, options)


def load_detector(name: str, threads: int = 0, precision: str = 'auto') -> BoxDetector:
    """
    Load a person detector.

    Parameters
    ----------
    name
        ``auto``, ``movenet``, ``onnx:FILE`` or ``ultralytics:NAME``.
    threads
        Number of CPU threads; 0 uses one for each core.
    precision
        Precision of MoveNet; see `load_movenet`.

    Raises
    ------
    ValueError
        If the detector does not exist, or its file is not valid.
    ImportError
        If a required package is not installed.
    metrabs_ros.weights.store.WeightsError
        If a file of MoveNet is missing or was changed.
    """
    kind, _, argument = name.partition(':') if isinstance(name, str) else ('', '', '')
    if kind in ('auto', MOVENET) and not argument:
        return _load_movenet_boxes(threads, precision)
    if kind == 'onnx' and argument:
        from metrabs_ros.detectors.onnx import OnnxDetector

        return OnnxDetector(_expand_home('detector', argument), threads)
    if kind == 'ultralytics' and argument:
        from metrabs_ros.detectors.ultralytics import UltralyticsDetector

        return UltralyticsDetector(argument, threads)
    raise ValueError(f"detector is '{printable(name)}'; it must be one of {', '.join(DETECTORS)}")


def _load_crop_estimator(arguments: ModelArguments) -> PoseEstimator:
    """Load MeTRAbs or NLF."""
    name, detector, threads = arguments.name, arguments.detector, arguments.threads
    _require_model(name)
    _require_torch()
    from metrabs_ros.backends.engine_cache import EngineCache
    from metrabs_ros.backends.selection import Machine, choose, choose_for_plan
    from metrabs_ros.metrabs.checkpoint import Checkpoint

    select = choose_for_plan if arguments.plan_file else choose
    choice = select(arguments.engine, arguments.precision, arguments.device, Machine.detect())
    checkpoint = _read_checkpoint(name)
    boxes = load_detector(detector, threads, arguments.precision)
    _LOGGER.info('%s runs with %s', name, choice)
    if arguments.plan_file:
        plan_file = _expand_home('engine_file', arguments.plan_file)
        network = start_plan(checkpoint, choice, plan_file)
    else:
        network = start_engine(checkpoint, choice, EngineCache(), threads)
    if isinstance(checkpoint, Checkpoint):
        from metrabs_ros.metrabs.estimator import MetrabsEstimator

        estimator: CropPoseEstimator = MetrabsEstimator(checkpoint, boxes, network, choice)
    else:
        from metrabs_ros.nlf.estimator import NlfEstimator

        estimator = NlfEstimator(checkpoint, boxes, network, choice)
    # MoveNet runs on the CPU.
    estimator.detects_in_background = choice.device != 'cpu' and detector in ('auto', MOVENET)
    return estimator


def build_engine(name: str, engine: str, precision: str, device: str) -> Choice:
    """
    Build the TensorRT engine of a model for a GPU of this machine, unless it is in the cache.

    Parameters
    ----------
    name
        One of `store.RELEASES`, or a checkpoint.
    engine
        ``tensorrt``, ``tensorrt_rtx``, or ``auto`` for the one that is installed.
    precision, device
        See `metrabs_ros.load_model`.

    Returns
    -------
    Choice
        Engine, precision and device of the cached engine.

    Raises
    ------
    ValueError, ImportError, metrabs_ros.weights.store.WeightsError
        See `metrabs_ros.load_model`.
    OSError
        If the cache cannot be used.
    """
    _require_model(name)
    _require_torch()
    from metrabs_ros.backends.engine_cache import RequiredCache
    from metrabs_ros.backends.selection import Machine, choose

    _check_choice('build-engine', 'engine', engine, BUILT_ENGINES)
    machine = Machine.detect()
    if engine == 'auto':
        only_rtx = 'torch_tensorrt' not in machine.packages and 'tensorrt_rtx' in machine.packages
        engine = 'tensorrt_rtx' if only_rtx else 'tensorrt'
    choice = choose(engine, precision, device, machine)
    start_engine(_read_checkpoint(name), choice, RequiredCache())
    return choice


def build_plans(name: str, precision: str, targets: str) -> list[str]:
    """
    Compile a model with TensorRT for RTX for other machines, unless the result is in the cache.

    No GPU is needed.

    Parameters
    ----------
    name
        As in `build_engine`.
    precision
        ``fp32``, ``fp16``, or ``auto`` for fp16.
    targets
        Comma-separated compute capabilities, for example ``sm86,sm89``.

    Returns
    -------
    The targets.

    Raises
    ------
    ValueError, ImportError, metrabs_ros.weights.store.WeightsError
        See `metrabs_ros.load_model`.
    OSError
        If the cache cannot be used.
    """
    from metrabs_ros.backends.tensorrt_rtx import parse_targets, require_package

    wanted = parse_targets(targets)
    _check_choice('--target', 'precision', precision, ('auto', 'fp32', 'fp16'))
    _require_model(name)
    _require_torch()
    # The weights, which may have to be downloaded, are read afterwards.
    require_package()
    from metrabs_ros.backends.engine_cache import RequiredCache
    from metrabs_ros.crop_networks.tensorrt_rtx_plans import load_plans

    precision = 'fp16' if precision == 'auto' else precision
    load_plans(_read_checkpoint(name).engine_network, precision, wanted, RequiredCache())
    return wanted


def export_onnx(name: str, precision: str, skeleton: str = '') -> bytes:
    """
    Return the network of a model as an ONNX file; see `metrabs_ros.crop_networks.onnx_export`.

    Parameters
    ----------
    name
        As in `build_engine`.
    precision
        Precision of the backbone: ``fp32`` or ``fp16``.
    skeleton
        NLF: the joints that the network predicts, by the name of their skeleton or of a .npy file
        of canonical points; empty for SMPL's.  MeTRAbs networks predict all joints.

    Raises
    ------
    ValueError, ImportError, metrabs_ros.weights.store.WeightsError
        See `metrabs_ros.load_model`.
    """
    _check_choice('export', 'precision', precision, ('fp32', 'fp16'))
    _require_model(name)
    _require_torch()
    from metrabs_ros.crop_networks.onnx_export import require_packages, to_onnx

    require_packages()
    return to_onnx(_read_checkpoint(name).exported_network(skeleton), precision)


def start_engine(
    checkpoint: CropCheckpoint, choice: Choice, cache: EngineCache, threads: int = 0
) -> CropEngine:
    """
    Create the inference engine of a checkpoint.

    The engine takes over the network of the checkpoint and may modify it.

    Parameters
    ----------
    checkpoint
        The network and its configuration.
    choice
        Engine, precision and device.
    cache
        Cache of built engines.
    threads
        Number of CPU threads; 0 uses one for each core.
    """
    import torch

    network = checkpoint.engine_network
    model, config = network.model, network.config
    device, precision = torch.device(choice.device), choice.precision
    if choice.engine == 'tensorrt':
        from metrabs_ros.crop_networks.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(model, config, device, precision, cache)
    if choice.engine == 'tensorrt_rtx':
        from metrabs_ros.backends.tensorrt_rtx import target_of
        from metrabs_ros.crop_networks.plan_engine import PlanEngine
        from metrabs_ros.crop_networks.tensorrt_rtx_plans import load_plans

        target = target_of(torch.cuda.get_device_capability(device))
        (plan,) = load_plans(network, precision, [target], cache)
        return PlanEngine('tensorrt_rtx', plan, network, device)
    if choice.engine == 'openvino':
        from metrabs_ros.crop_networks.openvino_engine import OpenVinoCropEngine

        return OpenVinoCropEngine(model, config, precision, cache, threads)
    from metrabs_ros.crop_networks.torch_engine import CudaGraphEngine, TorchEngine

    if device.type == 'cuda':
        return CudaGraphEngine(model, config.side_px, device, precision)
    if threads:
        torch.set_num_threads(threads)
    return TorchEngine(model, device, precision)


def start_plan(checkpoint: CropCheckpoint, choice: Choice, file: pathlib.Path) -> CropEngine:
    """
    Create the inference engine of a checkpoint from the file of a plan.

    Parameters
    ----------
    checkpoint
        The network.
    choice
        Package and device that run the plan.
    file
        The plan, built from the exported network of the same checkpoint.

    Raises
    ------
    metrabs_ros.backends.tensorrt_plan.PlanError
        If the file cannot be used.
    """
    import torch

    from metrabs_ros.backends.tensorrt_plan import PlanError, read_plan_file
    from metrabs_ros.crop_networks.plan_engine import PlanEngine

    content = read_plan_file(file)
    network, device = checkpoint.engine_network, torch.device(choice.device)
    try:
        return PlanEngine(choice.engine, content, network, device)
    except PlanError as error:
        raise PlanError(f'engine_file {shown(file)} cannot be used: {error}') from error


def _require_torch() -> None:
    if importlib.util.find_spec('torch') is None:
        raise ImportError(
            'MeTRAbs and NLF need the package torch: pip install torch '
            '(from a clone of metrabs_ros: pip install ".[metrabs]")'
        )


def _require_model(name: str) -> None:
    """Raise a ValueError if the name is neither a release of MeTRAbs or NLF nor a checkpoint."""
    if name in store.RELEASES:
        return
    if name in store.BLAZEPOSE_MODELS:
        raise ValueError(
            f"model '{name}' is not a MeTRAbs or NLF network; choose the path of a checkpoint, or "
            f'{" or ".join(store.RELEASES)}'
        )
    path = _expand_home('model', name)
    try:
        exists = bool(name) and (
            path.is_dir() or (path.suffix in MODEL_SUFFIXES and path.exists())
        )
    except OSError as error:
        reason = printable(error.strerror or error)
        raise ValueError(f"model '{printable(name)}' cannot be read: {reason}") from error
    if not exists:
        raise ValueError(
            f"model '{printable(name)}' does not exist: it is neither a folder, nor a file "
            f'{" or ".join(MODEL_SUFFIXES)}, nor one of {", ".join(store.MODELS)}'
        )


def _read_checkpoint(name: str) -> Checkpoint | NlfCheckpoint:
    """
    Read a checkpoint of MeTRAbs or NLF.

    Raises
    ------
    metrabs_ros.weights.store.WeightsError
        If it is neither of them, damaged, or cannot be downloaded.
    """
    from metrabs_ros.metrabs import checkpoint as metrabs
    from metrabs_ros.nlf import checkpoint as nlf

    path = store.weights_folder(name) if name in store.RELEASES else _expand_home('model', name)
    try:
        if nlf.weights_files(path):
            return nlf.read_checkpoint(path)
        if any(os.path.lexists(path / file) for file in metrabs.FILES):
            return metrabs.read_checkpoint(path)
    except OSError as error:
        raise store.WeightsError(f'{shown(path)} cannot be read: {printable(error)}') from error
    raise store.WeightsError(
        f'{shown(path)} contains no checkpoint; expected for MeTRAbs: {", ".join(metrabs.FILES)}; '
        f'for NLF: {nlf.EXPECTED}'
    )


def _expand_home(argument: str, path: str) -> pathlib.Path:
    """Replace a leading ``~`` of a path by the home directory."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{argument} '{printable(path)}' refers to an unknown home directory; give an "
            'absolute path'
        ) from error


def _check_threads(threads: object) -> None:
    is_whole = isinstance(threads, numbers.Integral) and not isinstance(threads, bool)
    if not is_whole or not 0 <= int(threads) <= MAX_THREADS:  # type: ignore[call-overload]
        raise ValueError(
            f'threads is {printable(repr(threads))}; it must be a whole number from 0 to '
            f'{MAX_THREADS}'
        )


def _check_choice(model: str, argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{argument} '{printable(value)}' is not available for {model}; choose one of "
            f'{", ".join(choices)}'
        )
