"""Running MeTRAbs's network on the CPU with OpenVINO."""

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
from metrabs_ros.backends.openvino import CompiledNetwork, create_core
from metrabs_ros.metrabs.crop_engine import in_batches, weights_hash
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig
from metrabs_ros.metrabs.torch_engine import fuse_norms

BATCH_SIZES = (1, 2, 3, 4)
"""Larger batches are no quicker for each crop, and each size is prepared at the start."""
NETWORK_FILE = 'network.xml'


class OpenVinoCropEngine:
    """
    Runs the network with OpenVINO.

    The backbone is OpenVINO's; the heads are torch's, in fp32 whatever the precision.  Crops run
    side by side, each on a thread or few, which is a tenth quicker than all threads on each in
    turn; what is left over, and a single crop, has all threads.

    Parameters
    ----------
    model
        The network, which becomes the engine's own.
    config
        What kind of network.
    precision
        ``fp32`` or ``bf16``.
    cache
        Where converted networks are.
    threads
        How many to use; 0 takes one for each core.

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    ValueError
        If the processor cannot calculate in that precision.
    """

    def __init__(
        self,
        model: CropModel,
        config: MetrabsConfig,
        precision: str,
        cache: EngineCache,
        threads: int = 0,
    ) -> None:
        self._heads = model.heatmap_heads.eval()

        def read(folder: pathlib.Path) -> Any:
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

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points in crops; see `CropEngine`."""
        features = torch.from_numpy(self._features(crops.contiguous().numpy()))
        with torch.inference_mode():
            # Heatmaps of all crops at once would only take memory.
            parts = [
                self._heads(features[rows]) for rows, _ in in_batches(len(crops), BATCH_SIZES)
            ]
        image_points_px, metric_points_mm = (torch.cat(part) for part in zip(*parts))
        return image_points_px, metric_points_mm

    def _features(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        (features,) = self._backbone.allocate_outputs(len(crops))
        left_over = len(crops) % self._backbone.width
        start = len(crops) - left_over
        self._backbone.infer_items(crops[:start], [features[:start]])
        for rows, _ in in_batches(left_over, BATCH_SIZES):
            self._backbone.infer_batch(crops[start:][rows], [features[start:][rows]])
        return features


def _convert(model: CropModel, config: MetrabsConfig) -> Any:
    """Return the backbone as an ``openvino.Model``."""
    import openvino

    fuse_norms(model.backbone.eval())
    shape = (3, config.side_px, config.side_px)
    example = torch.zeros(1, *shape)
    with torch.inference_mode(), warnings.catch_warnings():
        # OpenVINO reads other forms as well, in three times the time.
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
    import openvino

    try:
        openvino.save_model(network, folder / NETWORK_FILE, compress_to_fp16=False)
    except RuntimeError as error:
        # A full disk, too, is a RuntimeError here, without an error number.
        raise StorageError(f'OpenVINO cannot write {folder / NETWORK_FILE}: {error}') from error


def cache_key(model: CropModel, config: MetrabsConfig) -> dict[str, str]:
    """Return all that a converted network depends on."""
    import openvino

    return {
        'engine': 'the OpenVINO backbone',
        'weights': weights_hash(model),
        'network': repr(config),
        'torch': torch.__version__,
        'openvino': openvino.__version__,
        'metrabs_ros': metrabs_ros.__version__,
    }
