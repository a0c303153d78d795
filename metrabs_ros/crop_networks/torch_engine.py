"""Engines that run with torch: directly on the CPU, with CUDA graphs on GPUs."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrabs_ros.crop_networks.crop_engine import DTYPES, MAX_BATCH, split_batches
from metrabs_ros.crop_networks.crop_network import CropNetwork
from metrabs_ros.crop_networks.efficientnet import ConvNormAct

GRAPH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MAX_BATCH)
PREPARED_SIZES = (1, 2, 3, 4)
"""Batch sizes that are captured at startup; the others are captured when first needed."""
WARM_UP_RUNS = 3


class TorchEngine:
    """
    Runs the network with torch.

    Parameters
    ----------
    model
        The network; the engine fuses its batch normalisations into the convolutions.
    device
        Device that the network runs on.
    precision
        Precision of the backbone: ``fp32``, ``fp16`` or ``bf16``; the heads always use fp32.
    """

    def __init__(self, model: CropNetwork, device: torch.device, precision: str) -> None:
        fuse_norms(model.eval())
        self._model = move_to_device(model, device, precision)

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops; see `CropEngine`."""
        with torch.inference_mode():
            outputs: tuple[Tensor, ...] = self._model(crops)
        return outputs


@dataclasses.dataclass(frozen=True)
class CapturedGraph:
    """
    The network captured as a CUDA graph for one batch size.

    Parameters
    ----------
    graph
        The CUDA graph.
    crops
        [size, 3, side, side], its input.
    outputs
        Its outputs.
    """

    graph: torch.cuda.CUDAGraph
    crops: Tensor
    outputs: tuple[Tensor, ...]


class CudaGraphEngine:
    """
    Runs the network on a GPU, with CUDA graphs for a few batch sizes.

    Parameters
    ----------
    model
        The network; the engine modifies it.
    side_px
        Height and width of the crops.
    device
        The GPU.
    precision
        As in `TorchEngine`.
    """

    def __init__(
        self, model: CropNetwork, side_px: int, device: torch.device, precision: str
    ) -> None:
        fuse_norms(model.eval())
        replace_pointwise_convolutions(model.backbone)
        model = move_to_device(model, device, precision)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._shape = (3, side_px, side_px)
        self._device = device
        self._graphs: dict[int, CapturedGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        for size in PREPARED_SIZES:
            self._graphs[size] = self._capture(size)

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Run the network on crops; see `CropEngine`."""
        parts = []
        with torch.inference_mode():
            for rows, size in split_batches(len(crops), GRAPH_SIZES):
                if size not in self._graphs:
                    self._graphs[size] = self._capture(size)
                captured = self._graphs[size]
                count = rows.stop - rows.start
                # The rows after these hold crops of an earlier batch; their results are unused.
                captured.crops[:count].copy_(crops[rows])
                captured.graph.replay()
                parts.append(tuple(output[:count].clone() for output in captured.outputs))
        return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts))

    def _capture(self, size: int) -> CapturedGraph:
        # The first runs select the fastest convolutions.  TF32 would reduce the precision of fp32.
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
                outputs = self._model(crops)
        return CapturedGraph(graph, crops, outputs)


def move_to_device(model: CropNetwork, device: torch.device, precision: str) -> CropNetwork:
    """
    Move a network to a device, and convert its backbone to a precision.

    The heads stay in fp32: the points are means over heatmaps, and 16-bit numbers would round them
    to a hundredth of the crop.
    """
    model = model.eval().to(device)
    model.backbone.to(DTYPES[precision])
    return model


def fuse_norms(module: nn.Module) -> None:
    """Fuse all batch normalisations into the preceding convolutions."""
    for layer in module.modules():
        if isinstance(layer, ConvNormAct):
            convolution, norm = layer[0], layer[1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layer[0] = fuse_conv_bn_eval(convolution, norm)
                layer[1] = nn.Identity()


class PointwiseConvolution(nn.Module):
    """
    A 1 x 1 convolution as a matrix product over the channels.

    On a GPU, the matrix product adds the bias, while PyTorch's convolutions need another kernel
    for it.  That makes the network a fifth faster for a few crops.

    Parameters
    ----------
    convolution
        A 1 x 1 convolution with a bias; its weights are used, not copied.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        self.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.bias = nn.Parameter(convolution.bias, requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve [N, C, H, W], which should be in the memory format channels_last."""
        channels_last = features.permute(0, 2, 3, 1)
        return functional.linear(channels_last, self.weight, self.bias).permute(0, 3, 1, 2)


def replace_pointwise_convolutions(module: nn.Module) -> None:
    """Replace all 1 x 1 convolutions of a network whose batch normalisations are fused."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
                setattr(parent, name, PointwiseConvolution(layer))
