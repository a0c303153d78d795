"""
Reader for checkpoints as published for the official implementation.

Reading never executes code from a file, and sizes are checked before memory is allocated.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.tensorrt_plan import TensorShape
from metrabs_ros.crop_networks.described_network import DescribedNetwork, describe_convention
from metrabs_ros.foreign_text import printable
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig
from metrabs_ros.regular_file import read_limited, shown
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.skeleton_table import conventions_of_table
from metrabs_ros.weights.array_file import read_npy, read_npz
from metrabs_ros.weights.checkpoint_checks import (
    MAX_JOINTS,
    MAX_REASON_CHARS,
    as_edges,
    as_names,
    as_parameters,
    check_tensors,
    read_untrusted,
)
from metrabs_ros.weights.plain_pickle import MAX_PICKLE_BYTES, read_plain
from metrabs_ros.weights.settings import Settings, read_settings
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import open_weights, state_items

CONFIG, WEIGHTS = 'config.yaml', 'ckpt.pt'
JOINTS, SKELETONS, TRANSFORM = 'joint_info.npz', 'skeleton_infos.pkl', 'joint_transform_matrix.npy'
FILES = (CONFIG, WEIGHTS, JOINTS, SKELETONS, TRANSFORM)

MAX_SIDE_PX = 1024
MAX_DEPTH = 256
MAX_BOX_SIZE_MM = 1e5
MAX_JOINT_WEIGHT = 1e6
"""Maximum coefficient of a joint in a linear combination of joints."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """
    A trained network, and the meaning of its outputs.

    Parameters
    ----------
    config
        Configuration of the network.
    crop_model
        The network with its weights, on the CPU, in evaluation mode.
    joints
        The J joints that the network predicts.
    decoder
        [L, J], weights of the latent points in the joints; None if the network predicts joints.
    outputs
        The J' joints of all conventions, as combinations of the J joints.
    conventions
        Conventions of the J' joints by name; the empty name stands for all of them.
    """

    config: MetrabsConfig
    crop_model: CropModel
    joints: Skeleton
    decoder: FloatArray | None
    outputs: Convention
    conventions: Mapping[str, Convention]

    @property
    def joint_transform_matrix(self) -> FloatArray:
        """[J, J'], weights of the joints in the J' joints of the conventions."""
        assert self.outputs.weights is not None
        return self.outputs.weights.T

    @property
    def engine_network(self) -> DescribedNetwork:
        """
        The network, which predicts all points.

        In its description, a matrix [M, N] is a list of its non-zero entries
        ``[row, column, value]``; its transpose times the points gives the joints.  The skeleton
        with the empty name has all joints.
        """
        points = self.config.latents or len(self.joints)
        description = {
            **dataclasses.asdict(self.config),
            'joints': self.joints.joint_names,
            'joint_transform_matrix': _entries(self.joint_transform_matrix),
            'skeletons': {
                name: describe_convention(convention)
                for name, convention in self.conventions.items()
            },
        }
        if self.decoder is not None:
            description['decoder'] = _entries(self.decoder)
        outputs = (
            TensorShape('image_points_px', (points, 2)),
            TensorShape('metric_points_mm', (points, 3)),
        )
        return DescribedNetwork('metrabs', self.crop_model, self.config, outputs, description)

    def exported_network(self, skeleton: str) -> DescribedNetwork:
        """Return the same network as `engine_network`; see `CropCheckpoint`."""
        if skeleton:
            raise ValueError(
                f"skeleton is '{printable(skeleton)}', but MeTRAbs networks predict all joints; "
                'leave it out: the metadata of the exported file describe all skeletons'
            )
        return self.engine_network


def _entries(matrix: FloatArray) -> list[list[float]]:
    return [
        [int(row), int(column), float(matrix[row, column])]
        for row, column in np.argwhere(matrix != 0)
    ]


def read_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """
    Read the folder of a checkpoint.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, or does not fit the other files; the message contains the
        name of the file and the expected content.
    """
    try:
        missing = [name for name in FILES if not (folder / name).exists()]
    except (OSError, ValueError) as error:
        raise WeightsError(f'{shown(folder)} cannot be read: {printable(error)}') from error
    if missing:
        raise WeightsError(
            f'{shown(folder)} is not a MeTRAbs checkpoint: it lacks {", ".join(missing)}; '
            f'expected: {", ".join(FILES)}'
        )
    settings = read_untrusted(folder / CONFIG, read_settings, 'settings in YAML')
    joints = read_untrusted(
        folder / JOINTS, _read_joints, 'arrays joint_names [J] and joint_edges [E, 2]'
    )
    decoder = _decoder(folder, settings, len(joints))
    config = _config(folder / CONFIG, settings, 0 if decoder is None else len(decoder))
    transform = _joint_transform_matrix(folder / TRANSFORM, len(joints))
    conventions = read_untrusted(
        folder / SKELETONS,
        lambda file: _read_conventions(file, transform.shape[1]),
        'indices, names and edges of each skeleton, in plain containers or numpy arrays',
    )
    crop_model = _crop_model(folder / WEIGHTS, config, len(joints))
    outputs = Convention(conventions[''].skeleton, np.arange(len(joints)), transform.T)
    return Checkpoint(config, crop_model, joints, decoder, outputs, conventions)


def _config(file: pathlib.Path, values: dict[str, Any], latents: int) -> MetrabsConfig:
    values = {'legacy_centered_stride_bug': False, 'weak_perspective': False, **values}
    if values.get('mix_3d_inside_fov') is None:
        values['mix_3d_inside_fov'] = 0.0
    if 'efficientnet_size' not in values:
        backbone = Settings(file, values).value('backbone', str)
        values['efficientnet_size'] = backbone.removeprefix('efficientnetv2-')
    settings = Settings(file, values)
    side_px = settings.number('proc_side', int, 32, MAX_SIDE_PX)
    return MetrabsConfig(
        size=settings.value('efficientnet_size', str),
        side_px=side_px,
        stride_px=settings.number('stride_test', int, 1, side_px),
        centered_stride=settings.value('centered_stride', bool),
        legacy_centered_stride_bug=settings.value('legacy_centered_stride_bug', bool),
        depth=settings.number('depth', int, 1, MAX_DEPTH),
        box_size_mm=settings.number('box_size_mm', float, 1, MAX_BOX_SIZE_MM),
        weak_perspective=settings.value('weak_perspective', bool),
        mix_3d_inside_fov=settings.number('mix_3d_inside_fov', float, 0, 1),
        latents=latents,
        predicts_joints_too=bool(values.get('predict_all_and_latents')),
    )


def _decoder(folder: pathlib.Path, values: dict[str, Any], joints: int) -> FloatArray | None:
    """Return the weights [L, J] of latent points in joints; None if there are no latents."""
    if not (values.get('transform_coords') or values.get('predict_all_and_latents')):
        return None
    settings, name = Settings(folder / CONFIG, values), values.get('affine_weights')
    if not isinstance(name, str) or not name:
        raise settings.error(
            'affine_weights', 'the name of a file, because the network predicts latent points'
        )
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\0' in name:
        raise settings.error('affine_weights', 'a file in this folder')
    file = folder / path
    if not file.exists():
        raise WeightsError(f'{shown(file)} is missing; it is named by affine_weights in {CONFIG}')
    expected = f'an array w2 [latent points, {joints}] of finite numbers'
    decoder = read_untrusted(file, lambda file: read_npz(file, ['w2'])[0], expected)
    return _checked_matrix(file, decoder, joints, 1, expected)


def _read_joints(file: pathlib.Path) -> Skeleton:
    joint_names, joint_edges = read_npz(file, ['joint_names', 'joint_edges'])
    names = as_names(joint_names)
    if not names:
        raise ValueError('it has no joints')
    return Skeleton('', names, as_edges(joint_edges, len(names)))


def _joint_transform_matrix(file: pathlib.Path, joints: int) -> FloatArray:
    expected = f'a matrix [{joints}, joints of the skeletons] of finite numbers'
    return _checked_matrix(file, read_untrusted(file, read_npy, expected), joints, 0, expected)


def _checked_matrix(
    file: pathlib.Path, array: NDArray[Any], joints: int, joint_axis: int, expected: str
) -> FloatArray:
    """Check that an array contains the weights [J, P] or [P, J] of J joints in P points."""
    is_matrix = array.ndim == 2 and array.dtype.kind in 'fiu'
    if is_matrix and array.shape[joint_axis] == joints:
        weights = array.astype(np.float64)
        bounded = bool((np.abs(weights) <= MAX_JOINT_WEIGHT).all())
        if bounded and 0 < array.shape[1 - joint_axis] <= MAX_JOINTS:
            return weights
    raise WeightsError(
        f'{shown(file)} contains {array.dtype} of shape {array.shape}; expected: {expected}'
    )


def _read_conventions(file: pathlib.Path, joints: int) -> dict[str, Convention]:
    infos = read_plain(read_limited(file, MAX_PICKLE_BYTES))
    conventions = conventions_of_table(infos, joints)
    if '' not in conventions:
        raise ValueError("there is no skeleton '' of all joints")
    return conventions


def _crop_model(file: pathlib.Path, config: MetrabsConfig, joints: int) -> CropModel:
    # On the meta device parameters need no memory; the weights from the file replace them.
    with torch.device('meta'):
        try:
            model = CropModel(config, joints)
        except ValueError as error:
            raise WeightsError(
                f'{shown(file.parent / CONFIG)}: {printable(error, MAX_REASON_CHARS)}'
            ) from error
    required = model.state_dict()
    network = (
        f'{CONFIG} (EfficientNetV2-{config.size.upper()}, depth {config.depth}) and {JOINTS} '
        f'({joints} joints)'
    )

    def read(file: pathlib.Path) -> dict[str, Tensor]:
        with open_weights(file) as weights:
            stored = weights.tensors(state_items(weights.content))
            check_tensors(file, stored, required, network)
            return weights.read(stored)

    state = read_untrusted(file, read, f"{len(required)} tensors of the network's parameters")
    # Assigned, because parameters on the meta device cannot be copied to.
    model.load_state_dict(as_parameters(file, state), strict=True, assign=True)
    return model.eval().requires_grad_(False)
