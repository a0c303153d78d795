"""
NLF networks: features of a crop, and convolutions that localise canonical points in them.

Sarandi and Pons-Moll, NeurIPS 2024 (arXiv 2407.07532).  A field maps each point of a canonical
body to the weights of a 1 x 1 convolution.  It is evaluated once for a set of points; what runs
for each image is a plain convolutional network.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrabs_ros.arrays import FloatArray
from metrabs_ros.crop_networks.crop_network import CropNetwork
from metrabs_ros.crop_networks.efficientnet import (
    FEATURES,
    ConvNormAct,
    EfficientNetV2,
    ToSignedRange,
)
from metrabs_ros.crop_networks.heatmaps import (
    HeatmapGrid,
    cell_grid,
    heatmap_to_image,
    heatmap_to_metric,
    soft_argmax,
)

OTHER_MAPS = 2
"""Maps of each point besides its volumetric heatmap: uncertainty, and metric x and y."""
EMBEDDING_SCALE = 0.1
MIRROR_X = (-1.0, 1.0, 1.0)
"""Factors that map a canonical point to that on the other side of the body."""


@dataclasses.dataclass(frozen=True)
class NlfConfig(HeatmapGrid):
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
    depth
        Number of cells of the volumetric heatmaps in depth.
    box_size_mm
        Side of the cube covered by the volumetric heatmaps.
    channels
        Number of channels of the features that points are localised in.
    weak_perspective
        Whether the root is placed with the weak-perspective model.
    uncertainty_bias
        Bias of the uncertainty before softplus.
    min_uncertainty_m
        Minimum uncertainty.
    uncertainty_factor
        Factor from the network's uncertainty to that of the result.
    white_background
        Whether crops are white outside of the image, instead of black.
    """

    size: str
    side_px: int
    stride_px: int
    centered_stride: bool
    depth: int
    box_size_mm: float
    channels: int
    weak_perspective: bool = False
    uncertainty_bias: float = 0.0
    min_uncertainty_m: float = 0.001
    uncertainty_factor: float = 3.0
    white_background: bool = True

    @property
    def maps(self) -> int:
        """Number of maps for each point."""
        return OTHER_MAPS + self.depth

    @property
    def cells(self) -> int:
        """Number of cells of the features along the height and the width of the crop."""
        return self.heatmap_extent_px // self.stride_px + 1


class FeatureNetwork(CropNetwork):
    """
    The part of the network that does not depend on the points: from crops to features.

    Its only output is the features [N, channels, h, w].

    Parameters
    ----------
    config
        Configuration of the network.
    """

    def __init__(self, config: NlfConfig) -> None:
        super().__init__()
        link = nn.Conv2d(FEATURES, config.channels, 1, bias=False)
        self.backbone = nn.Sequential(
            ToSignedRange(),
            EfficientNetV2(config.size, config.centered_stride),
            ConvNormAct(link),
        )

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the features."""
        return (features,)


class PointNetwork(CropNetwork):
    """
    The whole network for a set of P points: from crops to points.

    Its outputs are those of `PointHead`, and the features [N, channels, h, w].

    Parameters
    ----------
    features
        The part that does not depend on the points; its layers are shared.
    head
        Localises the points.
    """

    def __init__(self, features: FeatureNetwork, head: PointHead) -> None:
        super().__init__()
        self.backbone = features.backbone
        self.point_head = head

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the points in features [N, C, h, w], and the features."""
        return (*self.point_head(features), features)


class PointHead(nn.Module):
    """
    Localises P points in features, by soft-argmax.

    Parameters
    ----------
    config
        Configuration of the network.
    weights
        [P, (C + 1) * (2 + depth)], weights and biases of a 1 x 1 convolution for each point, by
        `LocalizerField`.
    """

    def __init__(self, config: NlfConfig, weights: Tensor) -> None:
        super().__init__()
        # Each point has the rows of the C channels, then its biases.
        rows = weights.reshape(len(weights), config.channels + 1, config.maps)
        self.convolution = nn.Conv2d(config.channels, len(rows) * config.maps, 1)
        self.convolution.weight = nn.Parameter(
            rows[:, :-1].transpose(1, 2).flatten(0, 1)[..., None, None].contiguous(), False
        )
        self.convolution.bias = nn.Parameter(rows[:, -1].flatten().contiguous(), False)
        self._config = config
        self._points = len(rows)

    def __len__(self) -> int:
        """Return the number of points."""
        return self._points

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Localise the points in features.

        Parameters
        ----------
        features
            [N, C, h, w].

        Returns
        -------
        Image points [N, P, 2] in crop pixels; metric points [N, P, 3] in millimetres, along the
        crop's axes, with an arbitrary origin; uncertainties [N, P] in metres, before
        `NlfConfig.uncertainty_factor`.
        """
        config = self._config
        height, width = features.shape[2:]
        maps = self.convolution(features).reshape(-1, self._points, config.maps, height * width)
        metric_xy = soft_argmax(maps[:, :, 1], cell_grid((height, width), maps))
        volumes = torch.softmax(maps[:, :, OTHER_MAPS:].flatten(2), dim=-1)
        volume_points = volumes @ cell_grid((config.depth, height, width), maps)
        heatmaps = volumes.reshape(*volumes.shape[:2], config.depth, -1).sum(dim=2)
        raw = (maps[:, :, 0] * heatmaps).sum(dim=-1) + config.uncertainty_bias
        metric_points = torch.cat([metric_xy, volume_points[..., 2:]], dim=-1)
        return (
            heatmap_to_image(volume_points[..., :2], config),
            heatmap_to_metric(metric_points, config),
            functional.softplus(raw) + config.min_uncertainty_m,
        )


class LocalizerField(nn.Module):
    """
    The field: from canonical points to the weights of the convolutions that localise them.

    The points are embedded by an approximation of the eigenfunctions of the Laplacian on the body
    volume (section 3 of the paper), by Fourier features with learned frequencies and an MLP.  The
    parameters have the same names as in the official implementation.

    Parameters
    ----------
    frequencies
        Number of Fourier features, sine and cosine.
    hidden
        Width of the hidden layer of the embedding.
    embedding
        Number of eigenfunctions.
    layers
        Widths of the layers of the MLP after the embedding; the last one is the number of weights.
    """

    def __init__(
        self, frequencies: int, hidden: int, embedding: int, layers: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.gps_net = PointEmbedding(frequencies, hidden, embedding)
        widths = (embedding, *layers)
        mlp: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            mlp += [nn.GELU(), nn.Linear(inputs, outputs)]
        self.pred_mlp = nn.Sequential(*mlp[1:])
        self.register_buffer('r_sqrt_eigva', torch.ones(embedding))
        self.r_sqrt_eigva: Tensor

    def forward(self, points_m: Tensor) -> Tensor:
        """Return the weights [P, W] of canonical points [P, 3], in metres."""
        embedding = self.gps_net(points_m) * self.r_sqrt_eigva * EMBEDDING_SCALE
        weights: Tensor = self.pred_mlp(embedding)
        return weights


class PointEmbedding(nn.Module):
    """
    Embedding of canonical points; see `LocalizerField`.

    Parameters
    ----------
    frequencies, hidden, embedding
        As in `LocalizerField`.

    Attributes
    ----------
    mini, maxi
        [3], bounds of the canonical body, metres.
    """

    def __init__(self, frequencies: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.learnable_fourier = FourierFeatures(frequencies)
        self.mlp = nn.Sequential(
            nn.Linear(frequencies, hidden), nn.GELU(), nn.Linear(hidden, embedding)
        )
        self.register_buffer('mini', torch.zeros(3))
        self.register_buffer('maxi', torch.ones(3))
        self.mini: Tensor
        self.maxi: Tensor
        self._scale = frequencies**-0.5

    def forward(self, points_m: Tensor) -> Tensor:
        """Return the embedding [P, E] of points [P, 3]."""
        relative = (points_m - (self.mini + self.maxi) / 2) / (self.maxi - self.mini)
        embedding: Tensor = self.mlp(self.learnable_fourier(relative) * self._scale)
        return embedding


class FourierFeatures(nn.Module):
    """
    Sine and cosine of learned linear combinations.

    Parameters
    ----------
    features
        Number of features, even.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, features // 2, bias=False)

    def forward(self, points: Tensor) -> Tensor:
        """Return the features [P, F] of points [P, 3]."""
        phases = self.linear(points)
        return torch.cat([torch.sin(phases), torch.cos(phases)], dim=-1)


def point_head(
    config: NlfConfig, field: LocalizerField, points_m: FloatArray, mirrored: bool
) -> PointHead:
    """
    Return the head that localises canonical points.

    Parameters
    ----------
    config
        Configuration of the network.
    field
        The field; it runs on the CPU, in fp32.
    points_m
        [P, 3], canonical points, metres.
    mirrored
        Whether the crops are mirrored: a point then appears as that on the other side of the body.
    """
    points = torch.from_numpy(points_m).float()
    if mirrored:
        points = points * torch.tensor(MIRROR_X)
    with torch.no_grad():
        return PointHead(config, field(points))
