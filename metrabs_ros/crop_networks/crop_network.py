"""Base class of the networks that run on crops."""

from __future__ import annotations

import abc
from typing import Protocol

from torch import Tensor, nn


class CropConfig(Protocol):
    """Configuration of a network that runs on crops; engines are cached by its `repr`."""

    @property
    def side_px(self) -> int:
        """Height and width of the crops."""
        ...


class CropNetwork(nn.Module, abc.ABC):
    """
    A network that runs on crops: a backbone in any precision, and heads in fp32.

    Attributes
    ----------
    backbone
        From crops [N, 3, side, side], RGB from 0 to 1, to features [N, C, h, w].
    """

    backbone: nn.Module

    @abc.abstractmethod
    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, each [N, ...], float32, of features [N, C, h, w], float32."""

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """
        Run the network on crops.

        Parameters
        ----------
        crops
            [N, 3, side, side], RGB from 0 to 1.

        Returns
        -------
        The outputs of `heads`, float32, whatever the precision of the backbone.
        """
        features = self.backbone(crops.to(next(self.backbone.parameters()).dtype))
        return self.heads(features.float())
