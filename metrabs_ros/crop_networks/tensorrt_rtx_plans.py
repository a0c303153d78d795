"""
Plans of networks that run on crops for TensorRT for RTX: export to ONNX, compilation, cache.

A plan depends on the compute capability of the GPU only, so that it can be built on another
machine, and copied with the engine cache.
"""

from __future__ import annotations

import functools
import pathlib

import torch

import metrabs_ros
from metrabs_ros.backends import tensorrt_rtx
from metrabs_ros.backends.engine_cache import EngineCache
from metrabs_ros.backends.tensorrt_plan import MAX_PLAN_BYTES
from metrabs_ros.crop_networks.crop_engine import MAX_BATCH, OPTIMAL_BATCH, weights_hash
from metrabs_ros.crop_networks.described_network import INPUT, DescribedNetwork
from metrabs_ros.crop_networks.onnx_export import package_versions, require_packages, to_onnx
from metrabs_ros.regular_file import read_limited

ONNX_FILE, PLAN_FILE = 'network.onnx', 'network.plan'


def load_plans(
    network: DescribedNetwork, precision: str, targets: list[str], cache: EngineCache
) -> list[bytes]:
    """
    Return the plans of a network for one or several targets; build those that are not cached.

    Parameters
    ----------
    network
        The network, which is modified.
    precision
        Precision of the backbone: ``fp32`` or ``fp16``.
    targets
        Some of `tensorrt_rtx.TARGETS`.
    cache
        Cache of ONNX files and plans.

    Raises
    ------
    ImportError
        If TensorRT for RTX is not installed, or a package for the export, and that is needed.
    metrabs_ros.backends.tensorrt_plan.PlanError
        If the network cannot be compiled.
    """
    tensorrt_rtx.require_package()
    # The export changes the weights, so that the key is computed before.
    properties = network_key(network, precision)
    onnx_file = functools.cache(lambda: _load_onnx(network, precision, properties, cache))

    def load(target: str) -> bytes:
        def compiled() -> bytes:
            batches = (1, OPTIMAL_BATCH, MAX_BATCH)
            return tensorrt_rtx.compile_onnx(onnx_file(), target, INPUT, batches)

        def build(folder: pathlib.Path) -> None:
            (folder / PLAN_FILE).write_bytes(compiled())

        return cache.load(plan_key(properties, target), build, _read_plan, compiled)

    return [load(target) for target in targets]


def _load_onnx(
    network: DescribedNetwork, precision: str, properties: dict[str, str], cache: EngineCache
) -> bytes:
    require_packages()
    # The export takes long, so the result is kept in case its file cannot be written.
    exported = functools.cache(lambda: to_onnx(network, precision))

    def build(folder: pathlib.Path) -> None:
        (folder / ONNX_FILE).write_bytes(exported())

    def read(folder: pathlib.Path) -> bytes:
        return read_limited(folder / ONNX_FILE, MAX_PLAN_BYTES)

    key = {'engine': 'the ONNX network', **properties, **package_versions()}
    return cache.load(key, build, read, exported)


def _read_plan(folder: pathlib.Path) -> bytes:
    content = read_limited(folder / PLAN_FILE, MAX_PLAN_BYTES)
    tensorrt_rtx.check_plan(content)
    return content


def network_key(network: DescribedNetwork, precision: str) -> dict[str, str]:
    """Return the properties of a network that has not been modified."""
    return {
        'weights': weights_hash(network.model),
        'network': repr(network.config),
        'outputs': ', '.join(map(str, network.outputs)),
        'precision': precision,
        'metrabs_ros': metrabs_ros.__version__,
    }


def plan_key(properties: dict[str, str], target: str) -> dict[str, str]:
    """Return the properties that a plan depends on, which are the same on other machines."""
    import tensorrt_rtx as package

    return {
        'engine': f'the TensorRT for RTX engine for {target}',
        **properties,
        'batch': f'1 to {MAX_BATCH}, best at {OPTIMAL_BATCH}',
        'target': target,
        # Without the suffix +cpu or +cu130: the machine that builds the plan may have no GPU.
        'torch': torch.__version__.partition('+')[0],
        'tensorrt_rtx': package.__version__,
    }
