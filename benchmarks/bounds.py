"""
Calculate the least time that networks need on some GPUs.  Nothing is measured.

    python benchmarks/bounds.py

The arithmetic bound is the number of floating-point operations divided by the rate of fp16 matrix
products.  The memory bound is the time to read the weights once, and to read the input and write
the output of each convolution, if no layer finds its input in the cache.  Both use the rates of
the data sheets, which matrix products reach to about 80 percent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metrabs_ros.crop_networks.crop_network import CropNetwork
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig
from metrabs_ros.nlf.network import FeatureNetwork, NlfConfig

JOINTS = 36
NLF_CHANNELS = 512
NETWORKS = (('s', 256), ('m', 384), ('l', 384))
BYTES = 2


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU's dense fp16 rate with fp32 accumulation, and its memory bandwidth."""

    name: str
    tflops: float
    tb_per_s: float


GPUS = (
    Gpu('H200', 989, 4.8),
    Gpu('H100 SXM', 989, 3.35),
    Gpu('RTX 4090', 165, 1.008),
    Gpu('Jetson AGX Orin', 42.5, 0.2048),
)


@dataclasses.dataclass(frozen=True)
class Work:
    """
    Work of a network.

    Parameters
    ----------
    gflop_per_crop
        Floating-point operations, in 1e9; a multiplication and an addition are two.
    weights_mb
        Size of the weights in fp16, in 1e6 bytes.
    activations_mb_per_crop
        Inputs and outputs of all convolutions in fp16, in 1e6 bytes.
    """

    gflop_per_crop: float
    weights_mb: float
    activations_mb_per_crop: float

    def arithmetic_ms(self, crops: int, tflops: float) -> float:
        """Return the time of the operations in milliseconds."""
        return crops * self.gflop_per_crop / tflops

    def memory_ms(self, crops: int, tb_per_s: float) -> float:
        """Return the time of the transfers in milliseconds."""
        return 1e-3 * (self.weights_mb + crops * self.activations_mb_per_crop) / tb_per_s


def metrabs(size: str, side_px: int) -> CropNetwork:
    """Return a MeTRAbs network."""
    return CropModel(MetrabsConfig(size, side_px, 32, True, False, 8, 2200), JOINTS)


def nlf(size: str, side_px: int) -> CropNetwork:
    """Return the part of an NLF network that does not depend on the points."""
    return FeatureNetwork(NlfConfig(size, side_px, 32, True, 8, 2200, NLF_CHANNELS))


def count(build: Callable[[str, int], CropNetwork], size: str, side_px: int) -> Work:
    """Count the work of a network of a size for crops of a side length."""
    with torch.device('meta'):
        model = build(size, side_px).eval()
        crop = torch.zeros(1, 3, side_px, side_px)
    values = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda _, inputs, output: values.append(inputs[0].numel() + output.numel())
            )
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(crop)
    weights = sum(weight.numel() for weight in model.parameters())
    return Work(
        counter.get_total_flops() / 1e9, 1e-6 * BYTES * weights, 1e-6 * BYTES * sum(values)
    )


def main() -> None:
    """Print the work and the bounds."""
    for size, side_px in NETWORKS:
        work = count(metrabs, size, side_px)
        print(
            f'EfficientNetV2-{size.upper()}, {side_px} px: {work.gflop_per_crop:.1f} GFLOP per '
            f'crop, weights {work.weights_mb:.0f} MB, activations '
            f'{work.activations_mb_per_crop:.0f} MB per crop'
        )
        for gpu in GPUS:
            for crops in (1, 3, 20):
                print(
                    f'    {gpu.name}, {crops} crops: arithmetic '
                    f'{work.arithmetic_ms(crops, gpu.tflops):.2f} ms, memory '
                    f'{work.memory_ms(crops, gpu.tb_per_s):.2f} ms'
                )


if __name__ == '__main__':
    main()
