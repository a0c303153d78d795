"""
Reader for checkpoints as published for the official implementation.

Reading never executes code from a file, and sizes are checked before memory is allocated.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import reprlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.tensorrt_plan import TensorShape
from metrabs_ros.foreign_text import printable
from metrabs_ros.metrabs.described_network import DescribedNetwork, describe_convention
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig
from metrabs_ros.regular_file import read_limited, shown
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.weights.array_file import read_npy, read_npz
from metrabs_ros.weights.plain_pickle import MAX_PICKLE_BYTES, read_plain
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import StoredTensor, WeightsFile, open_weights

CONFIG, WEIGHTS = 'config.yaml', 'ckpt.pt'
JOINTS, SKELETONS, TRANSFORM = 'joint_info.npz', 'skeleton_infos.pkl', 'joint_transform_matrix.npy'
FILES = (CONFIG, WEIGHTS, JOINTS, SKELETONS, TRANSFORM)
MAX_LISTED_NAMES = 3
MAX_REASON_CHARS = 200

MAX_CONFIG_BYTES = 64 << 10
MAX_SIDE_PX = 1024
MAX_DEPTH = 256
MAX_BOX_SIZE_MM = 1e5
MAX_JOINTS = 4096
MAX_EDGES = 4 * MAX_JOINTS
MAX_NAME_CHARS = 100
MAX_JOINT_WEIGHT = 1e6
"""Maximum coefficient of a joint in a linear combination of joints."""
MAX_STORAGE_RATIO = 4
"""Maximum ratio of stored to required size of the weights; double precision needs 2."""

T = TypeVar('T')


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
    settings = _read(folder / CONFIG, _read_settings, 'settings in YAML')
    joints = _read(folder / JOINTS, _read_joints, 'arrays joint_names [J] and joint_edges [E, 2]')
    decoder = _decoder(folder, settings, len(joints))
    config = _config(folder / CONFIG, settings, 0 if decoder is None else len(decoder))
    transform = _joint_transform_matrix(folder / TRANSFORM, len(joints))
    conventions = _read(
        folder / SKELETONS,
        lambda file: _read_conventions(file, transform.shape[1]),
        'indices, names and edges of each skeleton, in plain containers or numpy arrays',
    )
    crop_model = _crop_model(folder / WEIGHTS, config, len(joints))
    outputs = Convention(conventions[''].skeleton, np.arange(len(joints)), transform.T)
    return Checkpoint(config, crop_model, joints, decoder, outputs, conventions)


def _read(file: pathlib.Path, reader: Callable[[pathlib.Path], T], expected: str) -> T:
    """
    Read a file of untrusted content.

    Raises
    ------
    WeightsError
        If the reader raises any exception.
    """
    try:
        return reader(file)
    except WeightsError:
        raise
    # The readers of YAML, ZIP and arrays raise exceptions of many types for damaged files.
    except Exception as error:
        reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
        raise WeightsError(
            f'{shown(file)} is damaged or has unexpected content ({type(error).__name__}: '
            f'{reason}); expected: {expected}'
        ) from error


class _SettingsLoader(yaml.SafeLoader):
    """YAML loader without merge keys, by which a short file can expand to any size."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == 'tag:yaml.org,2002:merge' for key, _ in node.value):
            raise yaml.YAMLError('it has a merge key <<')

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return super().construct_mapping(node, deep)


def _read_settings(file: pathlib.Path) -> dict[str, Any]:
    text = read_limited(file, MAX_CONFIG_BYTES).decode('utf-8')
    settings = yaml.load(text, _SettingsLoader)
    if not isinstance(settings, dict):
        raise ValueError(f'contains {type(settings).__name__}')
    return settings


def _config(file: pathlib.Path, settings: dict[str, Any], latents: int) -> MetrabsConfig:
    def setting(name: str, kind: type[T]) -> T:
        if name not in settings:
            raise WeightsError(f'{shown(file)} lacks {name} of type {kind.__name__}')
        value = settings[name]
        # YAML reads whole millimetres as integers.
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise _wrong_setting(file, name, value, kind.__name__)
        return value

    def number(name: str, kind: type[T], minimum: float, maximum: float) -> T:
        value: Any = setting(name, kind)
        if not minimum <= value <= maximum:
            expected = f'at least {minimum:g} and at most {maximum:g}'
            raise _wrong_setting(file, name, value, expected)
        return kind(value)  # type: ignore[call-arg]

    settings = {'legacy_centered_stride_bug': False, 'weak_perspective': False, **settings}
    if settings.get('mix_3d_inside_fov') is None:
        settings['mix_3d_inside_fov'] = 0.0
    if 'efficientnet_size' not in settings:
        settings['efficientnet_size'] = setting('backbone', str).removeprefix('efficientnetv2-')
    side_px = number('proc_side', int, 32, MAX_SIDE_PX)
    return MetrabsConfig(
        size=setting('efficientnet_size', str),
        side_px=side_px,
        stride_px=number('stride_test', int, 1, side_px),
        centered_stride=setting('centered_stride', bool),
        legacy_centered_stride_bug=setting('legacy_centered_stride_bug', bool),
        depth=number('depth', int, 1, MAX_DEPTH),
        box_size_mm=number('box_size_mm', float, 1, MAX_BOX_SIZE_MM),
        weak_perspective=setting('weak_perspective', bool),
        mix_3d_inside_fov=number('mix_3d_inside_fov', float, 0, 1),
        latents=latents,
        predicts_joints_too=bool(settings.get('predict_all_and_latents')),
    )


def _wrong_setting(file: pathlib.Path, name: str, value: Any, expected: str) -> WeightsError:
    # With YAML aliases a short text can stand for a value that is extremely long when printed.
    try:
        text = printable(reprlib.repr(value))
    except ValueError:
        # An integer with more digits than Python converts.
        text = f'a value of type {type(value).__name__}'
    return WeightsError(f'{shown(file)} has {name}: {text}; expected: {expected}')


def _decoder(folder: pathlib.Path, settings: dict[str, Any], joints: int) -> FloatArray | None:
    """Return the weights [L, J] of latent points in joints; None if there are no latents."""
    if not (settings.get('transform_coords') or settings.get('predict_all_and_latents')):
        return None
    name = settings.get('affine_weights')
    if not isinstance(name, str) or not name:
        raise _wrong_setting(
            folder / CONFIG,
            'affine_weights',
            name,
            'the name of a file, because the network predicts latent points',
        )
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\0' in name:
        raise _wrong_setting(folder / CONFIG, 'affine_weights', name, 'a file in this folder')
    file = folder / path
    if not file.exists():
        raise WeightsError(f'{shown(file)} is missing; it is named by affine_weights in {CONFIG}')
    expected = f'an array w2 [latent points, {joints}] of finite numbers'
    decoder = _read(file, lambda file: read_npz(file, ['w2'])[0], expected)
    return _checked_matrix(file, decoder, joints, 1, expected)


def _read_joints(file: pathlib.Path) -> Skeleton:
    joint_names, joint_edges = read_npz(file, ['joint_names', 'joint_edges'])
    names = _as_names(joint_names)
    if not names:
        raise ValueError('it has no joints')
    return Skeleton('', names, _as_edges(joint_edges, len(names)))


def _joint_transform_matrix(file: pathlib.Path, joints: int) -> FloatArray:
    expected = f'a matrix [{joints}, joints of the skeletons] of finite numbers'
    return _checked_matrix(file, _read(file, read_npy, expected), joints, 0, expected)


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
    conventions = {}
    for name, info in infos.items():
        (checked_name,) = _as_names([name])
        indices = np.asarray(info['indices'])
        names = _as_names(info['names'])
        if indices.shape != (len(names),) or indices.dtype.kind not in 'iu':
            raise ValueError(f'{name!r} has {len(names)} names, but indices {indices.shape}')
        if len(indices) and not (indices.min() >= 0 and indices.max() < joints):
            raise ValueError(
                f'{name!r} has an index {indices.max()}, but {TRANSFORM} has {joints} joints'
            )
        skeleton = Skeleton(checked_name, names, _as_edges(info['edges'], len(names)))
        conventions[checked_name] = Convention(skeleton, indices.astype(np.intp))
    if '' not in conventions:
        raise ValueError("there is no skeleton '' of all joints")
    return conventions


def _as_names(names: Any) -> tuple[str, ...]:
    """Return names as text; they must be printable because messages and frame ids use them."""
    listed = np.asarray(names).reshape(-1).tolist()
    if len(listed) > MAX_JOINTS:
        raise ValueError(f'it has {len(listed)} joints, more than {MAX_JOINTS}')
    texts = tuple(n.decode() if isinstance(n, bytes) else n for n in listed)
    for text in texts:
        is_name = isinstance(text, str) and text.isprintable()
        if not is_name or len(text) > MAX_NAME_CHARS:
            raise ValueError(f'it has the name {printable(reprlib.repr(text))}')
    return texts


def _as_edges(edges: Any, joints: int) -> tuple[tuple[int, int], ...]:
    array = np.asarray(edges)
    is_empty = array.size == 0
    if not is_empty and (array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in 'iu'):
        raise ValueError(f'its edges are {array.dtype} of shape {array.shape}, not pairs')
    if len(array) > MAX_EDGES:
        raise ValueError(f'it has {len(array)} edges, more than {MAX_EDGES}')
    if not is_empty and not (array.min() >= 0 and array.max() < joints):
        raise ValueError(f'an edge refers to joint {array.max()} of {joints}')
    return tuple((int(a), int(b)) for a, b in array.reshape(-1, 2))


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

    def read(file: pathlib.Path) -> dict[str, Tensor]:
        with open_weights(file) as weights:
            _check_tensors(file, weights, required, config, joints)
            return weights.read()

    state = _read(file, read, f"{len(required)} tensors of the network's parameters")
    state = {
        n: value.float() if value.is_floating_point() else value for n, value in state.items()
    }
    not_finite = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if not_finite:
        raise WeightsError(
            f'{shown(file)} has values that are not finite in {_listed(not_finite)}'
        )
    # Assigned, because parameters on the meta device cannot be copied to.
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _check_tensors(
    file: pathlib.Path,
    weights: WeightsFile,
    required: Mapping[str, Tensor],
    config: MetrabsConfig,
    joints: int,
) -> None:
    """
    Compare names, shapes and types with the network's parameters, before values are read.

    Raises
    ------
    WeightsError
        If they differ, or the file is much larger than these parameters.
    """
    stored = weights.tensors
    expected = {name: tuple(value.shape) for name, value in required.items()}
    shared = [name for name in expected if name in stored]
    wrong = {
        'lacks': sorted(expected.keys() - stored.keys()),
        'has unknown': sorted(stored.keys() - expected.keys()),
        'has of another shape': [
            f'{name} {printable(stored[name].shape)} instead of {expected[name]}'
            for name in shared
            if stored[name].shape != expected[name]
        ],
        'has of another type': [
            f'{name} {stored[name].dtype} instead of {required[name].dtype}'
            for name in shared
            if _is_integer(stored[name]) == required[name].is_floating_point()
        ],
    }
    problems = [f'{what} {_listed(names)}' for what, names in wrong.items() if names]
    if problems:
        raise WeightsError(
            f'{shown(file)} does not fit {CONFIG} (EfficientNetV2-{config.size.upper()}, depth '
            f'{config.depth}) and {JOINTS} ({joints} joints): it {"; it ".join(problems)}'
        )
    required_bytes = sum(
        math.prod(value.shape) * value.element_size() for value in required.values()
    )
    if weights.storage_bytes > MAX_STORAGE_RATIO * required_bytes:
        raise WeightsError(
            f'{shown(file)} stores {weights.storage_bytes} bytes; expected: {required_bytes}'
        )


def _is_integer(tensor: StoredTensor) -> bool:
    return not tensor.dtype.is_floating_point


def _listed(names: list[str]) -> str:
    """Return the first names, and the number of further names."""
    more = len(names) - MAX_LISTED_NAMES
    listed = ', '.join(printable(name) for name in names[:MAX_LISTED_NAMES])
    return f'{listed} and {more} more' if more > 0 else listed
