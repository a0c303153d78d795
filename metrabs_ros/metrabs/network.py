"""
MeTRAbs networks: 2D heatmaps and metric, truncation-robust 3D heatmaps from one crop.

Sarandi et al., T-BIOM 2021 (arXiv 2007.07227); the affine-combining autoencoder is from WACV 2023
(arXiv 2212.14474).
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from metrabs_ros.crop_networks.crop_network import CropNetwork
from metrabs_ros.crop_networks.efficientnet import FEATURES, EfficientNetV2, ToSignedRange
from metrabs_ros.crop_networks.heatmaps import (
    HeatmapGrid,
    cell_grid,
    heatmap_to_image,
    heatmap_to_metric,
    soft_argmax,
)


@dataclasses.dataclass(frozen=True)
class MetrabsConfig(HeatmapGrid):
    """
    Configuration of the network and of the computation of absolute poses.

    Parameters
    ----------
    size
        Size of the EfficientNetV2: ``s``, ``m`` or ``l``.
    side_px
        Height and width of the crops.
    stride_px
        Distance between adjacent cells of the heatmaps.
    centered_stride
        Whether the cells are centred on the crop.
    legacy_centered_stride_bug
        Whether the network was trained with image points shifted by another half stride.
    depth
        Number of cells of the volumetric heatmaps in depth.
    box_size_mm
        Side of the cube covered by the volumetric heatmaps.
    weak_perspective
        Whether the root is placed with the weak-perspective model.
    mix_3d_inside_fov
        Share of the 3D head in joints inside the view, from 0 to 1.
    latents
        Number of latent points of an affine-combining autoencoder that the network predicts; the
        joints are linear combinations of them.  0 if the network predicts the joints directly.
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

    def point_count(self, joints: int) -> int:
        """Return the number of points that the network predicts for a number of joints."""
        if not self.latents:
            return joints
        return self.latents + joints * self.predicts_joints_too

    @property
    def first_cell_px(self) -> int:
        """Position of the first cell's centre, in crop pixels."""
        return super().first_cell_px + self.stride_px // 2 * self.legacy_centered_stride_bug


class CropModel(CropNetwork):
    """
    The network: from crops to points.

    Its outputs are image points [N, P, 2] in crop pixels, and metric points [N, P, 3] in
    millimetres, along the crop's axes, with an arbitrary origin.  The parameters have the same
    names as in the official implementation.

    Parameters
    ----------
    config
        Configuration of the network.
    joints
        Number of joints.
    """

    def __init__(self, config: MetrabsConfig, joints: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            ToSignedRange(), EfficientNetV2(config.size, config.centered_stride)
        )
        self.heatmap_heads = HeatmapHeads(config, config.point_count(joints))

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the points of features [N, C, h, w]."""
        points: tuple[Tensor, ...] = self.heatmap_heads(features)
        return points


class HeatmapHeads(nn.Module):
    """
    Heads: from features to points, by soft-argmax (T-BIOM 2021, sections III-B and III-C).

    Parameters
    ----------
    config
        Configuration of the network.
    points
        Number of points that the network predicts.
    """

    def __init__(self, config: MetrabsConfig, points: int) -> None:
        super().__init__()
        self.conv_final = nn.Conv2d(FEATURES, points * (1 + config.depth), 1)
        self._points = points
        # If there are latent points, the joints that follow them are not needed.
        self._used = config.latents or points
        self._config = config

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Convert features [N, C, H, W] to crop pixels [N, P, 2] and millimetres [N, P, 3]."""
        heatmaps = self.conv_final(features)
        height, width = heatmaps.shape[2:]
        flat = heatmaps[:, : self._used].flatten(2)
        volumes = heatmaps[:, self._points :].reshape(
            -1, self._config.depth, self._points, height * width
        )
        volumes = volumes[:, :, : self._used].transpose(1, 2).flatten(2)
        image_points = soft_argmax(flat, cell_grid((height, width), flat))
        metric_points = soft_argmax(volumes, cell_grid((self._config.depth, height, width), flat))
        return (
            heatmap_to_image(image_points, self._config),
            heatmap_to_metric(metric_points, self._config),
        )
