"""EfficientNetV2 as a feature extractor (Tan and Le, ICML 2021, arXiv 2104.00298)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3
FEATURES = 1280


@dataclasses.dataclass(frozen=True)
class Stage:
    """
    One row of table 4 of the paper.

    Parameters
    ----------
    fused
        True for Fused-MBConv blocks, False for MBConv blocks with squeeze-excitation.
    expansion
        Ratio of the inner channels to the input channels of a block.
    stride
        Stride of the first block.
    channels
        Number of output channels.
    blocks
        Number of blocks.
    """

    fused: bool
    expansion: int
    stride: int
    channels: int
    blocks: int


STEM_CHANNELS = {'s': 24, 'm': 24, 'l': 32}
STAGES = {
    's': (
        Stage(True, 1, 1, 24, 2),
        Stage(True, 4, 2, 48, 4),
        Stage(True, 4, 2, 64, 4),
        Stage(False, 4, 2, 128, 6),
        Stage(False, 6, 1, 160, 9),
        Stage(False, 6, 2, 256, 15),
    ),
    'm': (
        Stage(True, 1, 1, 24, 3),
        Stage(True, 4, 2, 48, 5),
        Stage(True, 4, 2, 80, 5),
        Stage(False, 4, 2, 160, 7),
        Stage(False, 6, 1, 176, 14),
        Stage(False, 6, 2, 304, 18),
        Stage(False, 6, 1, 512, 5),
    ),
    'l': (
        Stage(True, 1, 1, 32, 4),
        Stage(True, 4, 2, 64, 7),
        Stage(True, 4, 2, 96, 7),
        Stage(False, 4, 2, 192, 10),
        Stage(False, 6, 1, 224, 19),
        Stage(False, 6, 2, 384, 25),
        Stage(False, 6, 1, 640, 7),
    ),
}


class EfficientNetV2(nn.Sequential):
    """
    Backbone: from images [N, 3, H, W] to features [N, 1280, H / 32, W / 32].

    The parameters have the same names as in the official implementation.

    Parameters
    ----------
    size
        ``s``, ``m`` or ``l``.
    centered_stride
        Shift the windows of the last strided convolution by a pixel to the lower right, so that
        the feature cells are centred on the image (MeTRAbs, T-BIOM 2021, section III-E).

    Raises
    ------
    ValueError
        If the size is unknown.
    """

    def __init__(self, size: str, centered_stride: bool) -> None:
        if size not in STAGES:
            raise ValueError(f'there is no EfficientNetV2-{size!r}; choose one of s, m, l')
        channels = STEM_CHANNELS[size]
        layers: list[nn.Module] = [ConvNormAct(PaddedConv2d(3, channels, 3, stride=2))]
        last_strided = max(i for i, stage in enumerate(STAGES[size]) if stage.stride == 2)
        for i, stage in enumerate(STAGES[size]):
            centered = centered_stride and i == last_strided
            layers.append(stage_blocks(stage, channels, centered))
            channels = stage.channels
        layers.append(ConvNormAct(PaddedConv2d(channels, FEATURES, 1)))
        super().__init__(*layers)


class PaddedConv2d(nn.Conv2d):
    """
    A convolution without bias, with the same zero padding on all four sides.

    Parameters
    ----------
    inputs, outputs
        Numbers of channels.
    kernel_px
        Kernel size, odd.
    stride, groups
        As in `torch.nn.Conv2d`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_px: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding_px = kernel_px // 2
        super().__init__(inputs, outputs, kernel_px, stride, padding_px, groups=groups, bias=False)


class ShiftedConv2d(PaddedConv2d):
    """A 3 x 3 convolution that pads two pixels at the bottom and right, and none elsewhere."""

    def forward(self, features: Tensor) -> Tensor:
        """Convolve [N, C, H, W]."""
        padded = nn.functional.pad(features, (0, 2, 0, 2))
        return nn.functional.conv2d(
            padded, self.weight, self.bias, self.stride, groups=self.groups
        )


class ConvNormAct(nn.Sequential):
    """
    A convolution, batch normalisation and optionally SiLU.

    Parameters
    ----------
    convolution
        The convolution.
    activation
        Apply SiLU.
    """

    def __init__(self, convolution: nn.Conv2d, activation: bool = True) -> None:
        norm = nn.BatchNorm2d(convolution.out_channels, eps=BATCH_NORM_EPS)
        super().__init__(convolution, norm, *([nn.SiLU(inplace=True)] if activation else []))


class SqueezeExcitation(nn.Module):
    """
    Channel weighting that depends on the mean of each channel (squeeze-and-excitation).

    Parameters
    ----------
    channels
        Number of input and output channels.
    squeezed
        Number of hidden channels.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weight the channels of [N, C, H, W]."""
        pooled = features.mean((2, 3), keepdim=True)
        weights = torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(pooled))))
        return weights * features


class Block(nn.Module):
    """
    An inverted residual block, MBConv or Fused-MBConv (figure 2 of the paper).

    Parameters
    ----------
    layers
        The residual branch.
    shortcut
        Add the input to the output of the branch.
    """

    def __init__(self, layers: nn.Sequential, shortcut: bool) -> None:
        super().__init__()
        self.block = layers
        self._shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        """Convert features [N, C, H, W] to [N, C', H / stride, W / stride]."""
        result: Tensor = self.block(features)
        return features + result if self._shortcut else result


def stage_blocks(stage: Stage, inputs: int, centered_stride: bool) -> nn.Sequential:
    """Return the blocks of a stage with a given number of input channels."""
    outputs, expansion = stage.channels, stage.expansion
    if stage.fused:
        blocks = [fused_mbconv(inputs, outputs, expansion, stage.stride)]
        blocks += [fused_mbconv(outputs, outputs, expansion, 1) for _ in range(1, stage.blocks)]
    else:
        strided = ShiftedConv2d if centered_stride else PaddedConv2d
        blocks = [mbconv(inputs, outputs, expansion, stage.stride, strided)]
        blocks += [mbconv(outputs, outputs, expansion, 1) for _ in range(1, stage.blocks)]
    return nn.Sequential(*blocks)


def fused_mbconv(inputs: int, outputs: int, expansion: int, stride: int) -> Block:
    """Return a Fused-MBConv block."""
    inner = inputs * expansion
    if expansion == 1:
        layers = [ConvNormAct(PaddedConv2d(inputs, outputs, 3, stride))]
    else:
        layers = [
            ConvNormAct(PaddedConv2d(inputs, inner, 3, stride)),
            ConvNormAct(PaddedConv2d(inner, outputs, 1), activation=False),
        ]
    return Block(nn.Sequential(*layers), stride == 1 and inputs == outputs)


def mbconv(
    inputs: int,
    outputs: int,
    expansion: int,
    stride: int,
    depthwise: type[PaddedConv2d] = PaddedConv2d,
) -> Block:
    """Return an MBConv block; its squeeze-excitation has a quarter of the input channels."""
    inner = inputs * expansion
    layers = nn.Sequential(
        ConvNormAct(PaddedConv2d(inputs, inner, 1)),
        ConvNormAct(depthwise(inner, inner, 3, stride, inner)),
        SqueezeExcitation(inner, inputs // 4),
        ConvNormAct(PaddedConv2d(inner, outputs, 1), activation=False),
    )
    return Block(layers, stride == 1 and inputs == outputs)


class ToSignedRange(nn.Module):
    """Map colours from [0, 1] to [-1, 1]."""

    def forward(self, crops: Tensor) -> Tensor:
        """Scale a tensor of any shape."""
        return 2 * crops - 1
