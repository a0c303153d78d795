"""
MeTRAbs's networks: 2D heatmaps and metric, truncation-robust 3D heatmaps from one crop.

Sarandi et al., T-BIOM 2021 (arXiv 2007.07227), and for the affine-combining autoencoder WACV
2023 (arXiv 2212.14474).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.metrabs.efficientnet import FEATURES, EfficientNetV2

INSIDE_MARGIN = 0.75
"""Joints nearer to the crop's edge than this many strides are not trusted to be inside."""


@dataclasses.dataclass(frozen=True)
class MetrabsConfig:
    """
    What of a checkpoint's configuration the network's outputs depend on.

    Parameters
    ----------
    size
        Of the EfficientNetV2: ``s``, ``m`` or ``l``.
    side_px
        Height and width of the crops.
    stride_px
        From one cell of the heatmaps to the next.
    centered_stride
        Whether the cells lie centred on the crop.
    legacy_centered_stride_bug
        Whether the network was trained with image points another half stride off.
    depth
        Cells of the volumetric heatmaps in depth.
    box_size_mm
        Side of the cube that the volumetric heatmaps fill.
    weak_perspective
        Whether the absolute step assumes weak perspective.
    mix_3d_inside_fov
        The share of the 3D head in joints inside the view, from 0 to 1.
    latents
        How many latent points of an affine-combining autoencoder the network predicts first, of
        which the joints are made; 0 if it predicts the joints themselves.
    predicts_joints_too
        Whether the joints follow the latent points in the network's output.
    """

    size: str
    side_px: int
    stride_px: int
    centered_stride: bool
    legacy_centered_stride_bug: bool
    depth: int
    box_size_mm: float
    weak_perspective: bool = False
    mix_3d_inside_fov: float = 0.0
    latents: int = 0
    predicts_joints_too: bool = False

    def points(self, joints: int) -> int:
        """Return how many points the network predicts for so many joints."""
        if not self.latents:
            return joints
        return self.latents + joints * self.predicts_joints_too

    @property
    def reach_px(self) -> int:
        """How far apart the centres of the first and the last cell are, in crop pixels."""
        last = self.side_px - 1
        return last - last % self.stride_px

    @property
    def first_cell_px(self) -> int:
        """Where the first cell's centre is taken to lie in the crop."""
        half = self.stride_px // 2
        return half * self.centered_stride + half * self.legacy_centered_stride_bug

    def inside(self, points_px: FloatArray) -> BoolArray:
        """Tell which points [..., 2] in crop pixels lie well within the crop, [...]."""
        offset_px = 0 if self.centered_stride else -self.stride_px / 2
        margin_px = INSIDE_MARGIN * self.stride_px
        low, high = margin_px + offset_px, self.side_px - margin_px + offset_px
        return np.all((points_px >= low) & (points_px <= high), axis=-1)


class CropModel(nn.Module):
    """
    The network, from crops to points.

    Its parameters have the names of the official implementation's.

    Parameters
    ----------
    config
        What kind of network.
    joints
        How many joints it is for.
    """

    def __init__(self, config: MetrabsConfig, joints: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            ToSignedRange(), EfficientNetV2(config.size, config.centered_stride)
        )
        self.heatmap_heads = HeatmapHeads(config, config.points(joints))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """
        Find the points in crops.

        Parameters
        ----------
        crops
            [N, 3, side, side], RGB from 0 to 1.

        Returns
        -------
        Image points [N, P, 2] in crop pixels, and metric points [N, P, 3] in millimetres, along
        the crop's axes, from an origin of the network's own choice; float32, as the heads are
        whatever the type of the backbone's numbers.
        """
        features = self.backbone(crops.to(next(self.backbone.parameters()).dtype))
        image_points_px, metric_points_mm = self.heatmap_heads(features.float())
        return image_points_px, metric_points_mm


class ToSignedRange(nn.Module):
    """From colours between 0 and 1 to -1 and 1."""

    def forward(self, crops: Tensor) -> Tensor:
        """Scale a tensor of any shape."""
        return 2 * crops - 1


class HeatmapHeads(nn.Module):
    """
    From features to points, by soft-argmax over heatmaps (T-BIOM 2021, section III-B and III-C).

    Parameters
    ----------
    config
        What kind of network.
    points
        How many points it predicts.
    """

    def __init__(self, config: MetrabsConfig, points: int) -> None:
        super().__init__()
        self.conv_final = nn.Conv2d(FEATURES, points * (1 + config.depth), 1)
        self._points = points
        # With all latents in front, what follows them need not be evaluated.
        self._used = config.latents or points
        self._config = config

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return crop pixels [N, P, 2] and millimetres [N, P, 3] of features [N, C, H, W]."""
        heatmaps = self.conv_final(features)
        height, width = heatmaps.shape[2:]
        flat = heatmaps[:, : self._used].flatten(2)
        volumes = heatmaps[:, self._points :].reshape(
            -1, self._config.depth, self._points, height * width
        )
        volumes = volumes[:, :, : self._used].transpose(1, 2).flatten(2)
        image_points = soft_argmax(flat, grid((height, width), flat))
        metric_points = soft_argmax(volumes, grid((self._config.depth, height, width), flat))
        return (
            heatmap_to_image(image_points, self._config),
            heatmap_to_metric(metric_points, self._config),
        )


def soft_argmax(heatmaps: Tensor, places: Tensor) -> Tensor:
    """
    Return the mean place under the softmax of heatmaps.

    Parameters
    ----------
    heatmaps
        [N, P, cells], logits.
    places
        [cells, D].

    Returns
    -------
    [N, P, D]
    """
    return torch.softmax(heatmaps, dim=-1) @ places


def grid(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """
    Return the places of a heatmap's cells.

    Parameters
    ----------
    shape
        Cells along the axes, the outermost first.
    like
        Of the type and on the device wanted.

    Returns
    -------
    [cells, D], from 0 at the first cell of an axis to 1 at the last; the innermost axis, x, comes
    first.
    """
    axes = [torch.linspace(0, 1, size, dtype=like.dtype, device=like.device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing='ij')[::-1], dim=-1).flatten(0, -2)


def heatmap_to_image(points: Tensor, config: MetrabsConfig) -> Tensor:
    """Take points [..., 2], from 0 to 1 across the heatmap, to crop pixels."""
    return points * config.reach_px + config.first_cell_px


def heatmap_to_metric(points: Tensor, config: MetrabsConfig) -> Tensor:
    """Take points [..., 3], from 0 to 1 across the volume, to millimetres."""
    in_image_px = heatmap_to_image(points[..., :2], config)
    across_mm = in_image_px * (config.box_size_mm / config.side_px)
    return torch.cat([across_mm, points[..., 2:] * config.box_size_mm], dim=-1)


def export_example() -> tuple[nn.Module, tuple[Tensor]]:
    """Return a network with random weights and inputs for it, to try exporters on."""
    config = MetrabsConfig(
        size='s',
        side_px=256,
        stride_px=32,
        centered_stride=False,
        legacy_centered_stride_bug=True,
        depth=8,
        box_size_mm=2200,
    )
    return CropModel(config, joints=36).eval(), (torch.rand(2, 3, 256, 256),)
