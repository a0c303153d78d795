"""Heatmaps on a crop: positions of their cells, and points from them by soft-argmax."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metrabs_ros.arrays import BoolArray, FloatArray

INSIDE_MARGIN = 0.75
"""Minimum distance of joints inside the crop from its edge, in strides."""


class HeatmapGrid:
    """
    Cells of heatmaps on a crop; base class of the configurations of networks.

    Attributes
    ----------
    side_px, stride_px, centered_stride, box_size_mm
        As in the configurations of the networks.
    """

    side_px: int
    stride_px: int
    centered_stride: bool
    box_size_mm: float

    @property
    def heatmap_extent_px(self) -> int:
        """Distance between the centres of the first and the last cell, in crop pixels."""
        last = self.side_px - 1
        return last - last % self.stride_px

    @property
    def first_cell_px(self) -> int:
        """Position of the first cell's centre, in crop pixels."""
        return self.stride_px // 2 * self.centered_stride

    def is_inside(self, points_px: FloatArray, margin: float = INSIDE_MARGIN) -> BoolArray:
        """
        Return which points lie inside the crop, [...].

        Parameters
        ----------
        points_px
            [..., 2], crop pixels.
        margin
            Minimum distance from the edges, in strides.
        """
        offset_px = 0 if self.centered_stride else -self.stride_px / 2
        margin_px = margin * self.stride_px
        low, high = margin_px + offset_px, self.side_px - margin_px + offset_px
        return np.all((points_px >= low) & (points_px <= high), axis=-1)


def soft_argmax(heatmaps: Tensor, positions: Tensor) -> Tensor:
    """
    Return the mean of the cell positions, weighted by the softmax of the heatmaps.

    Parameters
    ----------
    heatmaps
        [N, P, cells], logits.
    positions
        [cells, D].

    Returns
    -------
    [N, P, D]
    """
    return torch.softmax(heatmaps, dim=-1) @ positions


def cell_grid(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """
    Return the positions of a heatmap's cells.

    Parameters
    ----------
    shape
        Number of cells along each axis, the outermost axis first.
    like
        Tensor that determines type and device of the result.

    Returns
    -------
    [cells, D], from 0 at the first cell of an axis to 1 at the last one; the coordinates are in
    reverse order of the axes, with x first.
    """
    axes = [torch.linspace(0, 1, size, dtype=like.dtype, device=like.device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing='ij')[::-1], dim=-1).flatten(0, -2)


def heatmap_to_image(points: Tensor, config: HeatmapGrid) -> Tensor:
    """Map points [..., 2], from 0 to 1 across the heatmap, to crop pixels."""
    return points * config.heatmap_extent_px + config.first_cell_px


def heatmap_to_metric(points: Tensor, config: HeatmapGrid) -> Tensor:
    """Map points [..., 3], from 0 to 1 across the volume, to millimetres."""
    in_image_px = heatmap_to_image(points[..., :2], config)
    across_mm = in_image_px * (config.box_size_mm / config.side_px)
    return torch.cat([across_mm, points[..., 2:] * config.box_size_mm], dim=-1)
