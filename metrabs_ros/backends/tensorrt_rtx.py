"""
Compilation of ONNX networks with TensorRT for RTX.

The compiler needs neither a GPU nor a driver: it compiles for named targets.  A target is a
compute capability, for example ``sm89`` for 8.9.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from metrabs_ros.backends.tensorrt_plan import ErrorLog, PlanError
from metrabs_ros.foreign_text import printable

TARGETS = ('sm80', 'sm86', 'sm89', 'sm120', 'sm121')
"""Ampere, Ada and Blackwell; other compute capabilities are rejected by the compiler."""
TURING = (7, 5)
HOPPER = (9, 0)
ORIN = (8, 7)
MISSING = (
    "engine 'tensorrt_rtx' needs the packages tensorrt-rtx, onnx and onnxscript: "
    'pip install tensorrt-rtx onnx onnxscript'
)


def require_package() -> None:
    """Raise an ImportError that names the packages to install if TensorRT for RTX is missing."""
    if importlib.util.find_spec('tensorrt_rtx') is None:
        raise ImportError(MISSING)


def target_of(capability: tuple[int, int]) -> str:
    """Return the target of a compute capability."""
    return f'sm{capability[0]}{capability[1]}'


def is_supported(capability: tuple[int, int]) -> bool:
    """Return whether TensorRT for RTX supports GPUs of a compute capability."""
    return target_of(capability) in TARGETS


def why_unsupported(capability: tuple[int, int]) -> str:
    """Return why a compute capability is not supported, and which engine to use instead."""
    kinds = {
        TURING: 'Turing GPUs cannot run the fp32 heads of the networks with it',
        HOPPER: 'it does not support Hopper GPUs (H100, H200)',
        ORIN: 'it does not support Jetson modules',
    }
    reason = kinds.get(capability, f'its targets are {", ".join(TARGETS)}')
    instead = (
        "choose engine 'tensorrt' with a plan of trtexec (parameter engine_file)"
        if capability == ORIN
        else "choose engine 'torch', or 'tensorrt' with the package torch-tensorrt"
    )
    return (
        f'TensorRT for RTX is not available for compute capability {capability[0]}.'
        f'{capability[1]}: {reason}; {instead}'
    )


def parse_targets(text: str) -> list[str]:
    """
    Parse a comma-separated list of targets.

    Raises
    ------
    ValueError
        If it is empty or contains an unsupported target.
    """
    targets = [part.strip().lower() for part in text.split(',')]
    for target in targets:
        if target in TARGETS:
            continue
        for capability in (TURING, HOPPER, ORIN):
            if target == target_of(capability):
                raise ValueError(f'target {target}: {why_unsupported(capability)}')
        raise ValueError(
            f"target is '{printable(target)}'; it must be one or several of {', '.join(TARGETS)}"
        )
    return list(dict.fromkeys(targets))


def compile_onnx(
    network: bytes, target: str, input_name: str, batches: tuple[int, int, int]
) -> bytes:
    """
    Compile an ONNX network with one input.

    Parameters
    ----------
    network
        The content of the ONNX file; the precision of each layer is that of the file.
    target
        One of `TARGETS`.
    input_name
        Name of the input, of which only the batch size is dynamic.
    batches
        Minimum, optimal and maximum batch size.

    Returns
    -------
    The plan.

    Raises
    ------
    ImportError
        If TensorRT for RTX is not installed.
    PlanError
        If the network cannot be read or compiled; the message contains the first reason.
    """
    require_package()
    import tensorrt_rtx as trt

    errors = ErrorLog(trt)
    builder = trt.Builder(errors.logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, errors.logger)
    if not parser.parse(network):
        reason = errors.reason()
        if parser.num_errors:
            first = parser.get_error(0)
            operator = printable(first.node_operator() or 'the whole file')
            reason = f'{operator}: {printable(first.desc())}'
        raise PlanError(f'TensorRT for RTX cannot read the ONNX network: {reason}')
    config = builder.create_builder_config()
    # With TF32 the fp32 parts, such as the heads, would be rounded to ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    capability = getattr(trt.ComputeCapability, target.upper(), None)
    if capability is None or not config.set_compute_capability(capability, 0):
        raise PlanError(f'tensorrt_rtx {trt.__version__} does not have the target {target}')
    config.add_optimization_profile(_profile(builder, definition, input_name, batches))
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise PlanError(
            f'TensorRT for RTX cannot compile the network for {target}: {errors.reason()}'
        )
    return bytes(plan)


def _profile(builder: Any, definition: Any, input_name: str, batches: tuple[int, int, int]) -> Any:
    shapes = {
        definition.get_input(i).name: tuple(definition.get_input(i).shape)
        for i in range(definition.num_inputs)
    }
    if list(shapes) != [input_name]:
        found = printable(', '.join(shapes)) or 'none'
        raise PlanError(f'the inputs of the ONNX network are {found}; expected: {input_name}')
    profile = builder.create_optimization_profile()
    profile.set_shape(input_name, *((batch, *shapes[input_name][1:]) for batch in batches))
    return profile


def check_plan(content: bytes) -> None:
    """
    Check the header of a plan.

    Without a driver only its first bytes are checked.  A plan for other GPUs than those of this
    machine is accepted, because it may have been built for another machine.

    Raises
    ------
    PlanError
        If it is not a plan of TensorRT for RTX, or was built by another version.
    """
    require_package()
    import tensorrt_rtx as trt

    errors = ErrorLog(trt)
    _, found = trt.Runtime(errors.logger).get_engine_validity(content)
    problems = trt.EngineInvalidityDiagnostics
    if found & int(problems.MALFORMED_ENGINE):
        raise PlanError('it is not a plan of TensorRT for RTX, or it is damaged')
    if found & int(problems.VERSION_MISMATCH):
        raise PlanError(f'it was not built by tensorrt_rtx {trt.__version__}')
