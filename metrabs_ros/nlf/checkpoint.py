"""NLF checkpoints: the network, the field, and the canonical points of its skeletons."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.tensorrt_plan import TensorShape
from metrabs_ros.foreign_text import printable
from metrabs_ros.metrabs.described_network import DescribedNetwork, describe_convention
from metrabs_ros.nlf.network import (
    FeatureNetwork,
    LocalizerField,
    NlfConfig,
    PointNetwork,
    point_head,
)
from metrabs_ros.nlf.points import (
    POINTS_SUFFIX,
    PointSet,
    point_set_of,
    read_points,
    unnamed_points,
)
from metrabs_ros.pose_estimator import MAX_SKELETON_NAMES_CHARS
from metrabs_ros.skeletons.conventions import Convention

EXPORTED_SKELETON = 'smpl_24'
"""The skeleton whose points are exported by default."""
MIRRORED_CROPS = (
    'points in mirrored crops need other weights: those of the canonical points with negative x'
)
"""Metadata of exported networks."""


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

    @property
    def engine_network(self) -> DescribedNetwork:
        """The part of the network that does not depend on the points."""
        description = dataclasses.asdict(self.config)
        outputs = (self._features,)
        return DescribedNetwork('nlf', self.crop_model, self.config, outputs, description)

    def exported_network(self, skeleton: str) -> DescribedNetwork:
        """
        Return the whole network for some points; see `CropCheckpoint`.

        Parameters
        ----------
        skeleton
            Name of a skeleton, or of a .npy file with canonical points; empty for
            `EXPORTED_SKELETON`.
        """
        points = self._point_set(skeleton or EXPORTED_SKELETON)
        head = point_head(self.config, self.field, points.points_m, mirrored=False)
        description: dict[str, Any] = {
            **dataclasses.asdict(self.config),
            'joints': points.skeleton.joint_names,
            'skeletons': {points.name: describe_convention(points.convention)},
            'canonical_points_m': points.points_m.tolist(),
            'mirrored_crops': MIRRORED_CROPS,
        }
        count = len(points.skeleton)
        outputs = (
            TensorShape('image_points_px', (count, 2)),
            TensorShape('metric_points_mm', (count, 3)),
            TensorShape('uncertainties_m', (count,)),
            self._features,
        )
        model = PointNetwork(self.crop_model, head).eval()
        return DescribedNetwork('nlf', model, self.config, outputs, description)

    @property
    def _features(self) -> TensorShape:
        config = self.config
        return TensorShape('features', (config.channels, config.cells, config.cells))

    def _point_set(self, skeleton: str) -> PointSet:
        if skeleton.endswith(POINTS_SUFFIX):
            return unnamed_points(read_points(pathlib.Path(skeleton)))
        if skeleton not in self.conventions:
            names = ', '.join(filter(None, self.conventions))
            raise ValueError(
                f"skeleton is '{printable(skeleton)}'; it must be a {POINTS_SUFFIX} file with "
                f'canonical points, or one of {printable(names, MAX_SKELETON_NAMES_CHARS)}'
            )
        convention = self.conventions[skeleton]
        return point_set_of(convention, self.conventions[''].skeleton, self.points_m)
