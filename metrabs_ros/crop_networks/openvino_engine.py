"""Engine that runs a network on the CPU with OpenVINO."""

from __future__ import annotations

import functools
import pathlib
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import metrabs_ros
from metrabs_ros.backends.engine_cache import EngineCache, StorageError
from metrabs_ros.backends.openvino import CompiledNetwork, create_core, import_openvino
from metrabs_ros.crop_networks.crop_engine import split_batches, weights_hash
from metrabs_ros.crop_networks.crop_network import CropConfig, CropNetwork
from metrabs_ros.crop_networks.torch_engine import fuse_norms

BATCH_SIZES = (1, 2, 3, 4)
"""Larger batches are not faster per crop, and each size has to be prepared at startup."""
NETWORK_FILE = 'network.xml'


class OpenVinoCropEngine:
    """
    Runs the network with OpenVINO.

    OpenVINO runs the backbone; torch runs the heads, in fp32 for every precision.  Crops run in
    parallel, each on one or a few threads, which is a tenth faster than all threads on one crop
    after the other.  Remaining crops, and single crops, use all threads.

    Parameters
    ----------
    model
        The network; the engine modifies it.
    config
        Configuration of the network.
    precision
        ``fp32`` or ``bf16``.
    cache
        Cache of converted networks.
    threads
        Number of CPU threads; 0 uses one thread per core.

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    ValueError
        If the processor does not support the precision.
    """

    def __init__(
        self,
        model: CropNetwork,
        config: CropConfig,
        precision: str,
        cache: EngineCache,
        threads: int = 0,
    ) -> None:
        self._heads = model.eval().heads

        def read(folder: pathlib.Path) -> Any:
            # Memory-mapped files must not be moved.
            return create_core(use_mmap=False).read_model(folder / NETWORK_FILE)

        @functools.cache
        def convert() -> Any:
            return _convert(model, config)

        key = cache_key(model, config)
        network = cache.load(key, lambda folder: _save(convert(), folder), read, convert)

        self._backbone = CompiledNetwork(network, precision, threads)
        width = self._backbone.width
        for size in (*(size for size in BATCH_SIZES if size < width), width):
            self(torch.zeros(size, 3, config.side_px, config.side_px))

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops; see `CropEngine`."""
        features = torch.from_numpy(self._features(crops.contiguous().numpy()))
        with torch.inference_mode():
            # In batches, because the heatmaps of all crops together would need much memory.
            parts = [
                self._heads(features[rows]) for rows, _ in split_batches(len(crops), BATCH_SIZES)
            ]
        return tuple(torch.cat(part) for part in zip(*parts))

    def _features(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        (features,) = self._backbone.allocate_outputs(len(crops))
        left_over = len(crops) % self._backbone.width
        start = len(crops) - left_over
        self._backbone.infer_items(crops[:start], [features[:start]])
        for rows, _ in split_batches(left_over, BATCH_SIZES):
            self._backbone.infer_batch(crops[start:][rows], [features[start:][rows]])
        return features


def _convert(model: CropNetwork, config: CropConfig) -> Any:
    """Return the backbone as an ``openvino.Model``."""
    openvino = import_openvino()
    fuse_norms(model.backbone.eval())
    shape = (3, config.side_px, config.side_px)
    example = torch.zeros(1, *shape)
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO also converts other formats, but takes three times as long.
        warnings.simplefilter('ignore', DeprecationWarning)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            model.backbone, example, check_trace=False
        )
        return openvino.convert_model(traced, example_input=example, input=[(-1, *shape)])


def _save(network: Any, folder: pathlib.Path) -> None:
    """
    Write a network's files.

    Raises
    ------
    StorageError
        If they cannot be written.
    """
    openvino = import_openvino()
    try:
        openvino.save_model(network, folder / NETWORK_FILE, compress_to_fp16=False)
    except RuntimeError as error:
        # OpenVINO raises a RuntimeError without error number, also if the disk is full.
        raise StorageError(f'OpenVINO cannot write {folder / NETWORK_FILE}: {error}') from error


def cache_key(model: CropNetwork, config: CropConfig) -> dict[str, str]:
    """Return the properties that a converted network depends on."""
    return {
        'engine': 'the OpenVINO backbone',
        'weights': weights_hash(model),
        'network': repr(config),
        'torch': torch.__version__,
        'openvino': import_openvino().__version__,
        'metrabs_ros': metrabs_ros.__version__,
    }
