"""NLF checkpoints: the network, the field, and the canonical points of its skeletons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from metrabs_ros.arrays import FloatArray
from metrabs_ros.nlf.network import FeatureNetwork, LocalizerField, NlfConfig
from metrabs_ros.skeletons.conventions import Convention


@dataclasses.dataclass(frozen=True)
class NlfCheckpoint:
    """
    A trained network, and the canonical points of its skeletons.

    Parameters
    ----------
    config
        Configuration of the network.
    crop_model
        The part of the network that computes features, on the CPU, in evaluation mode.
    field
        Maps canonical points to the weights that localise them; on the CPU, in evaluation mode.
    points_m
        [J, 3], the canonical points of all skeletons, metres.
    conventions
        Skeletons of these points by name; the first one, with the empty name, has all points.
    """

    config: NlfConfig
    crop_model: FeatureNetwork
    field: LocalizerField
    points_m: FloatArray
    conventions: Mapping[str, Convention]
