"""Checkpoints as published for the official implementation, read so that no file can run code."""

from __future__ import annotations

import collections
import dataclasses
import io
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.arrays import FloatArray
from metrabs_ros.models.metrabs import CropModel, MetrabsConfig
from metrabs_ros.models.store import WeightsError
from metrabs_ros.skeleton import Convention, Skeleton

CONFIG, WEIGHTS = 'config.yaml', 'ckpt.pt'
JOINTS, SKELETONS, TRANSFORM = 'joint_info.npz', 'skeleton_infos.pkl', 'joint_transform_matrix.npy'
FILES = (CONFIG, WEIGHTS, JOINTS, SKELETONS, TRANSFORM)
SHOWN_KEYS = 3

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """
    A trained network and what its outputs mean.

    Parameters
    ----------
    config
        The kind of network.
    crop_model
        The network with its weights, on the CPU, in evaluation mode.
    joints
        The J joints that it is for.
    decoder
        [L, J], makes the joints out of latent points; None if there are none.
    joint_transform_matrix
        [J, J'], makes the joints that the conventions are made of.
    conventions
        By name; the empty name stands for all J' joints.
    """

    config: MetrabsConfig
    crop_model: CropModel
    joints: Skeleton
    decoder: FloatArray | None
    joint_transform_matrix: FloatArray
    conventions: Mapping[str, Convention]


def read_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """
    Read a folder with config.yaml, ckpt.pt, joint_info.npz and the rest.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, or does not fit the others; it is named, with what was
        expected.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f'{folder} is no MeTRAbs checkpoint: it lacks {", ".join(missing)}; expected are '
            f'{", ".join(FILES)}'
        )
    settings = _read(folder / CONFIG, _read_settings, 'settings in YAML')
    joints = _read(folder / JOINTS, _read_joints, 'arrays joint_names [J] and joint_edges [E, 2]')
    decoder = _decoder(folder, settings, len(joints))
    config = _config(folder / CONFIG, settings, 0 if decoder is None else len(decoder))
    transform = _joint_transform_matrix(folder / TRANSFORM, len(joints))
    conventions = _read(
        folder / SKELETONS,
        lambda file: _read_conventions(file, transform.shape[1]),
        'for each skeleton its indices, names and edges, in plain containers or numpy arrays',
    )
    crop_model = _crop_model(folder / WEIGHTS, config, len(joints))
    return Checkpoint(config, crop_model, joints, decoder, transform, conventions)


def _read(file: pathlib.Path, reader: Callable[[pathlib.Path], T], expected: str) -> T:
    """Read a file of which nothing is known; whatever is wrong with it is said in one way."""
    try:
        return reader(file)
    # A damaged file can make its reader stumble in any way at all.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise WeightsError(
            f'{file} is damaged or not what it should be ({type(error).__name__}: {reason}); '
            f'expected: {expected}'
        ) from error


def _read_settings(file: pathlib.Path) -> dict[str, Any]:
    settings = yaml.safe_load(file.read_text(encoding='utf-8'))
    if not isinstance(settings, dict):
        raise ValueError(f'holds {type(settings).__name__}')
    return settings


def _config(file: pathlib.Path, settings: dict[str, Any], latents: int) -> MetrabsConfig:
    def setting(name: str, kind: type[T], least: float = -np.inf) -> T:
        if name not in settings:
            raise WeightsError(f'{file} lacks {name}, which should be of type {kind.__name__}')
        value = settings[name]
        # YAML writes whole millimetres as integers.
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise WeightsError(f'{file} has {name}: {value!r}; expected is {kind.__name__}')
        if kind in (int, float) and not value >= least:
            raise WeightsError(f'{file} has {name}: {value!r}; expected is at least {least:g}')
        return kind(value)  # type: ignore[call-arg]

    settings = {'legacy_centered_stride_bug': False, 'weak_perspective': False, **settings}
    if 'efficientnet_size' not in settings:
        settings['efficientnet_size'] = setting('backbone', str).removeprefix('efficientnetv2-')
    mix = settings.get('mix_3d_inside_fov')
    if mix is not None and (isinstance(mix, bool) or not isinstance(mix, int | float)):
        raise WeightsError(f'{file} has mix_3d_inside_fov: {mix!r}; expected is a number or null')
    return MetrabsConfig(
        size=setting('efficientnet_size', str),
        side_px=setting('proc_side', int, 32),
        stride_px=setting('stride_test', int, 1),
        centered_stride=setting('centered_stride', bool),
        legacy_centered_stride_bug=setting('legacy_centered_stride_bug', bool),
        depth=setting('depth', int, 1),
        box_size_mm=setting('box_size_mm', float, 1),
        weak_perspective=setting('weak_perspective', bool),
        mix_3d_inside_fov=0.0 if mix is None else float(mix),
        latents=latents,
        predicts_joints_too=bool(settings.get('predict_all_and_latents')),
    )


def _decoder(folder: pathlib.Path, settings: dict[str, Any], joints: int) -> FloatArray | None:
    """Return what makes joints out of latent points [L, J], if the network predicts these."""
    if not (settings.get('transform_coords') or settings.get('predict_all_and_latents')):
        return None
    name = settings.get('affine_weights')
    if not isinstance(name, str) or not name:
        raise WeightsError(
            f'{folder / CONFIG} has affine_weights: {name!r}; for a network that predicts latent '
            'points it must name a file'
        )
    file = folder / name
    if not file.is_file():
        raise WeightsError(f'{file} is missing, which affine_weights of {CONFIG} names')
    expected = f'an array w2 [latent points, {joints}]'
    decoder = _read(file, lambda file: _arrays(file)['w2'].astype(np.float64), expected)
    if decoder.ndim != 2 or decoder.shape[1] != joints or not np.isfinite(decoder).all():
        raise WeightsError(f'{file} has w2 of shape {decoder.shape}; expected: {expected}')
    return decoder


def _read_joints(file: pathlib.Path) -> Skeleton:
    arrays = _arrays(file)
    names = _as_names(arrays['joint_names'])
    return Skeleton('', names, _as_edges(arrays['joint_edges'], len(names)))


def _arrays(file: pathlib.Path) -> dict[str, NDArray[Any]]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _joint_transform_matrix(file: pathlib.Path, joints: int) -> FloatArray:
    expected = f'a matrix [{joints}, joints of the skeletons] of finite numbers'
    matrix = _read(file, lambda file: np.load(file, allow_pickle=False), expected)
    is_matrix = isinstance(matrix, np.ndarray) and matrix.ndim == 2 and matrix.dtype.kind in 'fiu'
    if not is_matrix or len(matrix) != joints or not np.isfinite(matrix).all():
        raise WeightsError(
            f'{file} holds {getattr(matrix, "dtype", type(matrix))} of shape '
            f'{np.shape(matrix)}; expected: {expected}'
        )
    return matrix.astype(np.float64)


def _read_conventions(file: pathlib.Path, joints: int) -> dict[str, Convention]:
    infos = PlainUnpickler(io.BytesIO(file.read_bytes())).load()
    conventions = {}
    for name, info in infos.items():
        indices = np.array(info['indices'])
        names = _as_names(info['names'])
        if indices.shape != (len(names),) or indices.dtype.kind not in 'iu':
            raise ValueError(f'{name!r} has {len(names)} names, but indices {indices.shape}')
        if len(indices) and not (indices.min() >= 0 and indices.max() < joints):
            raise ValueError(
                f'{name!r} has an index {indices.max()}, but {TRANSFORM} makes {joints} joints'
            )
        skeleton = Skeleton(str(name), names, _as_edges(info['edges'], len(names)))
        conventions[str(name)] = Convention(skeleton, indices.astype(np.intp))
    if '' not in conventions:
        raise ValueError("there is no skeleton '' of all joints")
    return conventions


def _as_names(names: Any) -> tuple[str, ...]:
    return tuple(
        n.decode() if isinstance(n, bytes) else str(n) for n in np.asarray(names).tolist()
    )


def _as_edges(edges: Any, joints: int) -> tuple[tuple[int, int], ...]:
    pairs = np.asarray(edges, np.int64).reshape(-1, 2)
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < joints):
        raise ValueError(f'an edge goes to joint {pairs.max()} of {joints}')
    return tuple((int(a), int(b)) for a, b in pairs)


def _crop_model(file: pathlib.Path, config: MetrabsConfig, joints: int) -> CropModel:
    # On no device: the weights take the place of the parameters, which need no values before.
    with torch.device('meta'):
        try:
            model = CropModel(config, joints)
        except ValueError as error:
            raise WeightsError(f'{file.parent / CONFIG}: {error}') from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = _read(file, _read_state, f"{len(expected)} tensors of the network's parameters")
    found = {name: tuple(value.shape) for name, value in state.items()}
    wrong = {
        'lacks': sorted(expected.keys() - found.keys()),
        'has unknown': sorted(found.keys() - expected.keys()),
        'has of another shape': [
            f'{name} {found[name]} instead of {expected[name]}'
            for name in expected
            if name in found and found[name] != expected[name]
        ],
        'has not only finite numbers in': [
            name for name, value in state.items() if not torch.isfinite(value).all()
        ],
    }
    complaints = [
        f'{what} {", ".join(names[:SHOWN_KEYS])}'
        + (f' and {len(names) - SHOWN_KEYS} more' if len(names) > SHOWN_KEYS else '')
        for what, names in wrong.items()
        if names
    ]
    if complaints:
        raise WeightsError(
            f'{file} does not fit {CONFIG} (EfficientNetV2-{config.size.upper()}, depth '
            f'{config.depth}) and {JOINTS} ({joints} joints): it {"; it ".join(complaints)}'
        )
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _read_state(file: pathlib.Path) -> dict[str, Tensor]:
    state = torch.load(file, map_location='cpu', weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError('holds something else than named tensors')
    return {
        str(name): value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }


class PlainUnpickler(pickle.Unpickler):
    """
    Reads pickles of plain containers and numpy arrays, and refuses all others.

    A pickle is a program; what it can call is what this class hands out, and none of that has
    effects beyond the value that it returns.

    Raises
    ------
    pickle.UnpicklingError
        If the pickle asks for anything else.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may call."""
        # numpy 2 has moved its core, as Python 3 has its builtins; pickles name either place.
        place = (_MOVED.get(module, module), name)
        if place not in _PLAIN:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is neither a plain container nor numpy's"
            )
        return _PLAIN[place]


class _FromBuffer:
    """What numpy's pickles of protocol 5 call; an instance without state to tamper with."""

    __slots__ = ()

    def __call__(
        self, buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str, *_: object
    ) -> NDArray[Any]:
        flat = np.frombuffer(buffer, dtype)
        return flat.reshape(shape, order='F' if order == 'F' else 'C')


class _Latin1:
    """What pickles up to protocol 2 call to write bytes as text."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ('latin1', 'latin-1'):
            raise pickle.UnpicklingError(f'it asks for the encoding {encoding!r}')
        return text.encode('latin1')


def _numpy_reconstruct() -> Any:
    # The function differs in its place between versions of numpy, not in what it does.
    return np.empty(0).__reduce__()[0]


def _numpy_scalar() -> Any:
    return np.float64(0).__reduce__()[0]


_MOVED = {
    '__builtin__': 'builtins',
    'numpy.core.multiarray': 'numpy._core.multiarray',
    'numpy.core.numeric': 'numpy._core.numeric',
}
_PLAIN: dict[tuple[str, str], Any] = {
    ('_codecs', 'encode'): _Latin1(),
    ('builtins', 'set'): set,
    ('builtins', 'frozenset'): frozenset,
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('numpy._core.multiarray', '_reconstruct'): _numpy_reconstruct(),
    ('numpy._core.multiarray', 'scalar'): _numpy_scalar(),
    ('numpy._core.numeric', '_frombuffer'): _FromBuffer(),
}
