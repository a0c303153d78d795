"""Running MeTRAbs's network with torch: on the CPU as it is, on GPUs from recorded graphs."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrabs_ros.metrabs.crop_engine import DTYPES, LARGEST_BATCH, in_batches
from metrabs_ros.metrabs.efficientnet import ConvNormAct
from metrabs_ros.metrabs.network import CropModel

GRAPH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, LARGEST_BATCH)
PREPARED_SIZES = (1, 2, 3, 4)
"""Recorded beforehand; the others are when they are needed first."""
WARM_UP_RUNS = 3


class TorchEngine:
    """
    Runs the network as torch does.

    Parameters
    ----------
    model
        The network, which becomes the engine's own: its batch norms vanish into the convolutions.
    device
        Where it runs.
    precision
        Of the backbone, ``fp32``, ``fp16`` or ``bf16``; the heads are always in fp32.
    """

    def __init__(self, model: CropModel, device: torch.device, precision: str) -> None:
        fuse_norms(model.eval())
        self._model = on_device(model, device, precision)

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points in crops; see `CropEngine`."""
        with torch.inference_mode():
            points: tuple[Tensor, Tensor] = self._model(crops)
        return points


@dataclasses.dataclass(frozen=True)
class Recording:
    """
    What a GPU does for a batch of some size, to be repeated without being told each step.

    Parameters
    ----------
    graph
        The steps.
    crops
        [size, 3, side, side], where they read.
    points
        Where they write.
    """

    graph: torch.cuda.CUDAGraph
    crops: Tensor
    points: tuple[Tensor, Tensor]


class CudaGraphEngine:
    """
    Runs the network on a GPU, from recordings for a few batch sizes.

    Parameters
    ----------
    model
        The network, which becomes the engine's own.
    side_px
        Height and width of the crops.
    device
        The GPU.
    precision
        As in `TorchEngine`.
    """

    def __init__(
        self, model: CropModel, side_px: int, device: torch.device, precision: str
    ) -> None:
        fuse_norms(model.eval())
        model = on_device(model, device, precision)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._shape = (3, side_px, side_px)
        self._device = device
        self._recordings: dict[int, Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()
        for size in PREPARED_SIZES:
            self._recordings[size] = self._record(size)

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Find the points in crops; see `CropEngine`."""
        parts = []
        with torch.inference_mode():
            for rows, size in in_batches(len(crops), GRAPH_SIZES):
                if size not in self._recordings:
                    self._recordings[size] = self._record(size)
                recording = self._recordings[size]
                count = rows.stop - rows.start
                # What an earlier batch left behind these rows is computed again, and not used.
                recording.crops[:count].copy_(crops[rows])
                recording.graph.replay()
                parts.append([points[:count].clone() for points in recording.points])
        image_points_px, metric_points_mm = (torch.cat(part) for part in zip(*parts))
        return image_points_px, metric_points_mm

    def _record(self, size: int) -> Recording:
        # The quickest convolutions are found out on the first runs, and fp32 is to be fp32.
        convolutions = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with torch.inference_mode(), torch.cuda.device(self._device), convolutions:
            crops = torch.zeros(size, *self._shape, device=self._device)
            crops = crops.to(memory_format=torch.channels_last)
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    self._model(crops)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
                points = self._model(crops)
        return Recording(graph, crops, points)


def on_device(model: CropModel, device: torch.device, precision: str) -> CropModel:
    """
    Bring a network to a device, its backbone to a precision.

    Places are means over heatmaps, which numbers of half the length would round to a hundredth of
    the crop; so the heads stay in fp32.
    """
    model = model.eval().to(device)
    model.backbone.to(DTYPES[precision])
    return model


def fuse_norms(module: nn.Module) -> None:
    """Replace all batch norms by what they do to the convolutions before them."""
    for layer in module.modules():
        if isinstance(layer, ConvNormAct):
            convolution, norm = layer[0], layer[1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layer[0] = fuse_conv_bn_eval(convolution, norm)
                layer[1] = nn.Identity()
