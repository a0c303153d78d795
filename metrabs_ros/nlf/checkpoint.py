"""
NLF checkpoints: the network, the field, and the canonical points of its skeletons.

Two kinds are read: crop checkpoints, and the published multi-person archives.  Reading never
executes code from a file, and sizes are checked before memory is allocated.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.tensorrt_plan import TensorShape
from metrabs_ros.crop_networks.described_network import DescribedNetwork, describe_convention
from metrabs_ros.foreign_text import printable
from metrabs_ros.nlf.canonical import all_skeletons
from metrabs_ros.nlf.crop_folder import EIGENVALUES_FILE, NODES_FILE, read_folder
from metrabs_ros.nlf.multiperson_archive import read_archive
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
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.weights.checkpoint_checks import listed
from metrabs_ros.weights.store import WeightsError

PATTERNS = ('nlf_[sml]_crop*.pt', 'nlf_[sml]_multi*.torchscript')
"""Names of files with weights: state dicts of crop checkpoints, and archives."""
ARCHIVE_SUFFIX = '.torchscript'
EXPECTED = (
    f'nlf_s_crop*.pt or nlf_l_crop*.pt with {EIGENVALUES_FILE} and {NODES_FILE}, or '
    'nlf_s_multi*.torchscript or nlf_l_multi*.torchscript'
)

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


def read_checkpoint(path: pathlib.Path) -> NlfCheckpoint:
    """
    Read a checkpoint.

    Parameters
    ----------
    path
        The file of an archive, or of a crop checkpoint that has its other files in the same
        folder; or a folder that contains one such file.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, or does not fit the other files; the message contains the
        name of the file and the expected content.
    """
    try:
        files = weights_files(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f'{shown(path)} cannot be read: {printable(error)}') from error
    if not files:
        raise WeightsError(f'{shown(path)} is not an NLF checkpoint; expected: {EXPECTED}')
    if len(files) > 1:
        raise WeightsError(
            f'{shown(path)} contains {listed([file.name for file in files])}; give the path of '
            'one of them'
        )
    read = read_archive if files[0].suffix == ARCHIVE_SUFFIX else read_folder
    networks, table, body_points_m = read(files[0])
    points_m, conventions = all_skeletons(table, body_points_m)
    return NlfCheckpoint(
        networks.config, networks.crop_model, networks.field, points_m, conventions
    )


def weights_files(path: pathlib.Path) -> list[pathlib.Path]:
    """
    Return the files with NLF weights that a path refers to: itself, or files in its folder.

    Raises
    ------
    OSError, ValueError
        If the folder cannot be read.
    """
    if path.is_dir():
        return [file for pattern in PATTERNS for file in sorted(path.glob(pattern))]
    is_weights = path.suffix == ARCHIVE_SUFFIX or any(path.match(name) for name in PATTERNS)
    return [path] if is_weights else []
