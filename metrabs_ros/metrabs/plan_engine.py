"""Engine that runs a plan of TensorRT or TensorRT for RTX on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from metrabs_ros.backends.tensorrt_plan import Plan, PlanError, TensorShape
from metrabs_ros.metrabs.checkpoint import Checkpoint
from metrabs_ros.metrabs.crop_engine import MAX_BATCH, split_batches
from metrabs_ros.metrabs.onnx_export import INPUT, OUTPUTS

WARM_UP_SIZES = (1, 2, 3, 4)
"""Batch sizes that are run at startup, when TensorRT for RTX starts to compile their kernels."""


class PlanEngine:
    """
    Runs the network as a plan that was built from its exported ONNX file.

    The outputs of the plan stay on the GPU, as its inputs do.

    Parameters
    ----------
    package
        ``tensorrt`` or ``tensorrt_rtx``.
    content
        The plan.
    checkpoint
        Configuration of the network.
    device
        The GPU.

    Raises
    ------
    ImportError, metrabs_ros.backends.tensorrt_plan.PlanError
        See `Plan`; also if the plan does not run, or its points are not finite.
    """

    def __init__(
        self, package: str, content: bytes, checkpoint: Checkpoint, device: torch.device
    ) -> None:
        inputs, outputs = tensor_shapes(checkpoint)
        self._plan = Plan(package, content, inputs, outputs, device)
        self._max_batch = min(self._plan.max_batch, MAX_BATCH)
        self._warm_up(torch.zeros(max(WARM_UP_SIZES), *inputs[0].shape, device=device))

    def _warm_up(self, crops: Tensor) -> None:
        """Run the plan; raise a PlanError if it fails or its points are not finite."""
        for size in WARM_UP_SIZES:
            try:
                is_finite = [bool(points.isfinite().all()) for points in self(crops[:size])]
            except RuntimeError as error:
                raise PlanError(f'the plan does not run: {error}') from error
            if not all(is_finite):
                raise PlanError(
                    'the points that it predicts are not finite; build it from the file of '
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


def tensor_shapes(checkpoint: Checkpoint) -> tuple[list[TensorShape], list[TensorShape]]:
    """Return the inputs and outputs of the exported network of a checkpoint."""
    config = checkpoint.config
    points = config.latents or len(checkpoint.joints)
    inputs = [TensorShape(INPUT, (3, config.side_px, config.side_px))]
    return inputs, [TensorShape(name, (points, axes)) for name, axes in zip(OUTPUTS, (2, 3))]
