"""
Engine that runs on NVIDIA GPUs with TensorRT, by torch_tensorrt.

An engine is built for one kind of GPU and one set of package versions, which takes minutes.  It
is stored in the engine cache.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
from typing import Any

import torch
from torch import Tensor

import metrabs_ros
from metrabs_ros.backends.engine_cache import EngineCache, StorageError
from metrabs_ros.crop_networks.crop_engine import (
    MAX_BATCH,
    OPTIMAL_BATCH,
    split_batches,
    weights_hash,
)
from metrabs_ros.crop_networks.crop_network import CropConfig, CropNetwork
from metrabs_ros.crop_networks.torch_engine import move_to_device

ENGINE_FILE = 'engine.ep'
TIMINGS_FILE = 'timings.bin'
PACKAGES = ('torch', 'torch_tensorrt', 'tensorrt', 'torch_tensorrt_rtx', 'tensorrt_rtx')
"""Packages that an engine depends on; torch_tensorrt_rtx is also imported as torch_tensorrt."""


class TensorRtEngine:
    """
    Runs the network as a TensorRT engine.

    Parameters
    ----------
    model
        The network; the engine modifies it.
    config
        Configuration of the network.
    device
        The GPU.
    precision
        Precision of the backbone: ``fp32``, ``fp16`` or ``bf16``; the heads always use fp32.
    cache
        Cache of built engines.

    Raises
    ------
    ImportError
        If torch_tensorrt is not installed.
    """

    def __init__(
        self,
        model: CropNetwork,
        config: CropConfig,
        device: torch.device,
        precision: str,
        cache: EngineCache,
    ) -> None:
        self._side_px = config.side_px
        self._device = device
        key = cache_key(model, config, device, precision)
        model = move_to_device(model, device, precision)

        # Compiling takes minutes, so the result is kept in case its files cannot be written.
        compiled_network: list[Any] = []

        def compiled(timings_file: pathlib.Path) -> Any:
            if not compiled_network:
                compiled_network.append(self._compile(model, timings_file))
            return compiled_network[0]

        def build(folder: pathlib.Path) -> None:
            self._save(compiled(folder / TIMINGS_FILE), folder)

        self._network = cache.load(
            key, build, self._read, lambda: compiled(pathlib.Path(os.devnull))
        )

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops; see `CropEngine`."""
        with torch.inference_mode():
            parts = [
                self._network(crops[rows].contiguous())
                for rows, _ in split_batches(len(crops), (MAX_BATCH,))
            ]
        return tuple(torch.cat(part) for part in zip(*parts))

    def _example(self) -> Tensor:
        # torch.export would treat a batch size of one as a constant.
        return torch.zeros(OPTIMAL_BATCH, 3, self._side_px, self._side_px, device=self._device)

    def _compile(self, model: CropNetwork, timings_file: pathlib.Path) -> Any:
        """Return the network as a module that runs on TensorRT."""
        import torch_tensorrt

        example = self._example()
        shape = example.shape[1:]
        exported = torch.export.export(model, (example,), dynamic_shapes=_dynamic_shapes())
        return torch_tensorrt.dynamo.compile(
            exported,
            arg_inputs=[
                torch_tensorrt.Input(
                    min_shape=(1, *shape),
                    opt_shape=(OPTIMAL_BATCH, *shape),
                    max_shape=(MAX_BATCH, *shape),
                    dtype=torch.float32,
                )
            ],
            device=self._device,
            require_full_compilation=True,
            # With TF32 the fp32 parts, such as the heads, would be rounded to ten bits.
            disable_tf32=True,
            # The default file is shared by all users of the machine.
            timing_cache_path=str(timings_file),
        )

    def _save(self, compiled: Any, folder: pathlib.Path) -> None:
        """
        Write a compiled network's files.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        import torch_tensorrt

        file = folder / ENGINE_FILE
        try:
            torch_tensorrt.save(
                compiled,
                str(file),
                output_format='exported_program',
                arg_inputs=[self._example()],
                dynamic_shapes=_dynamic_shapes(),
            )
        except RuntimeError as error:
            # PyTorch reports a full disk as a RuntimeError.
            raise StorageError(f'torch_tensorrt cannot write {file}: {error}') from error

    def _read(self, folder: pathlib.Path) -> Any:
        import torch_tensorrt

        return torch_tensorrt.load(str(folder / ENGINE_FILE)).module()


def _dynamic_shapes() -> dict[str, dict[int, Any]]:
    return {'crops': {0: torch.export.Dim('batch', min=1, max=MAX_BATCH)}}


def cache_key(
    model: CropNetwork, config: CropConfig, device: torch.device, precision: str
) -> dict[str, str]:
    """Return the properties that an engine depends on."""
    gpu = torch.cuda.get_device_properties(device)
    versions = {name: _version(name) for name in PACKAGES}
    return {
        'engine': 'the TensorRT engine',
        'weights': weights_hash(model),
        'network': repr(config),
        'precision': precision,
        'batch': f'1 to {MAX_BATCH}, best at {OPTIMAL_BATCH}',
        'gpu': f'{gpu.name}, compute capability {gpu.major}.{gpu.minor}',
        **versions,
        'metrabs_ros': metrabs_ros.__version__,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'unknown'
