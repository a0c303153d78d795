"""Engine that runs a plan of TensorRT or TensorRT for RTX on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from metrabs_ros.backends.tensorrt_plan import Plan, PlanError
from metrabs_ros.crop_networks.crop_engine import MAX_BATCH, split_batches
from metrabs_ros.crop_networks.described_network import DescribedNetwork

WARM_UP_SIZES = (1, 2, 3, 4)
"""Batch sizes that are run at startup, when TensorRT for RTX starts to compile their kernels."""


class PlanEngine:
    """
    Runs the network as a plan that was built from an exported ONNX file.

    The outputs of the plan stay on the GPU, as its inputs do.  The plan may have more outputs than
    the network.

    Parameters
    ----------
    package
        ``tensorrt`` or ``tensorrt_rtx``.
    content
        The plan.
    network
        The network, whose model is not used.
    device
        The GPU.

    Raises
    ------
    ImportError, metrabs_ros.backends.tensorrt_plan.PlanError
        See `Plan`; also if the plan does not run, or its outputs are not finite.
    """

    def __init__(
        self, package: str, content: bytes, network: DescribedNetwork, device: torch.device
    ) -> None:
        self._plan = Plan(package, content, [network.input], network.outputs, device)
        self._max_batch = min(self._plan.max_batch, MAX_BATCH)
        self._warm_up(torch.zeros(max(WARM_UP_SIZES), *network.input.shape, device=device))

    def _warm_up(self, crops: Tensor) -> None:
        """Run the plan; raise a PlanError if it fails or its outputs are not finite."""
        for size in WARM_UP_SIZES:
            try:
                is_finite = [bool(values.isfinite().all()) for values in self(crops[:size])]
            except RuntimeError as error:
                raise PlanError(f'the plan does not run: {error}') from error
            if not all(is_finite):
                raise PlanError(
                    'its outputs are not finite; build it from the file of '
                    'metrabs_ros export in its precisions, in trtexec --stronglyTyped'
                )

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops; see `CropEngine`."""
        with torch.inference_mode():
            parts = [
                self._plan(crops[rows])
                for rows, _ in split_batches(len(crops), (self._max_batch,))
            ]
            return tuple(torch.cat(part) for part in zip(*parts))
