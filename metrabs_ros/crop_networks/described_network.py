"""Networks that run on crops, with what exported files and plans of them contain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from metrabs_ros.backends.tensorrt_plan import TensorShape
from metrabs_ros.crop_networks.crop_network import CropConfig, CropNetwork
from metrabs_ros.skeletons.conventions import Convention

INPUT = 'crops'


@dataclasses.dataclass(frozen=True)
class DescribedNetwork:
    """
    A network, with the names of its outputs and their meaning.

    Parameters
    ----------
    name
        Name of the graph in exported files.
    model
        The network, on the CPU, in evaluation mode.
    config
        Configuration of the network.
    outputs
        Names and shapes of its outputs, in their order.
    description
        Metadata of exported files by name; the values can be represented in JSON.
    """

    name: str
    model: CropNetwork
    config: CropConfig
    outputs: tuple[TensorShape, ...]
    description: Mapping[str, Any]

    @property
    def input(self) -> TensorShape:
        """Name and shape of its input, RGB from 0 to 1."""
        return TensorShape(INPUT, (3, self.config.side_px, self.config.side_px))


class CropCheckpoint(Protocol):
    """A trained network that runs on crops, and the meaning of its outputs."""

    @property
    def engine_network(self) -> DescribedNetwork:
        """The network that engines run."""
        ...

    def exported_network(self, skeleton: str) -> DescribedNetwork:
        """
        Return the network for other programs.

        Parameters
        ----------
        skeleton
            Name of the joints that the network predicts; empty for the default.

        Raises
        ------
        ValueError
            If the network cannot predict them.
        """
        ...


def describe_convention(convention: Convention) -> dict[str, Any]:
    """Return a convention whose joints are some of the points of a network, for metadata."""
    return {
        'joint_names': convention.skeleton.joint_names,
        'edges': convention.skeleton.edges,
        'indices': convention.indices.tolist(),
    }
