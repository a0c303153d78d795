"""From the tensors that a checkpoint contains to the network and the field."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.crop_networks.efficientnet import STEM_CHANNELS
from metrabs_ros.foreign_text import printable
from metrabs_ros.nlf.network import OTHER_MAPS, FeatureNetwork, LocalizerField, NlfConfig
from metrabs_ros.people import MM_PER_M
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.checkpoint_checks import as_parameters, check_tensors
from metrabs_ros.weights.settings import Settings
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import StoredTensor, WeightsFile

SETTINGS = (
    *('proc_side', 'stride_test', 'centered_stride', 'box_size_m', 'weak_perspective'),
    *('uncert_bias', 'uncert_bias2', 'fix_uncert_factor'),
)
"""Settings of the network that checkpoints may contain."""
WHITE_BACKGROUND = 'pad_white_pixels'
DEFAULT_SIDES_PX = {'s': 256, 'm': 384, 'l': 384}
DEFAULTS = {
    'stride_test': 32,
    'centered_stride': True,
    'box_size_m': 2.2,
    'weak_perspective': False,
    'uncert_bias': 0.0,
    'uncert_bias2': 0.001,
    'fix_uncert_factor': False,
    WHITE_BACKGROUND: True,
}
"""Settings of the published networks."""
MAX_SIDE_PX = 1024
MAX_DEPTH = 256
MAX_BOX_SIZE_M = 100.0
MAX_BIAS_M = 100.0
"""Maximum of the settings `uncert_bias` and `uncert_bias2`."""
MIN_UNCERTAINTY_M = 1e-6
"""The weights of points are negative powers of uncertainties."""
UNCORRECTED_FACTOR = 3.0
"""`NlfConfig.uncertainty_factor` of networks without the setting `fix_uncert_factor`."""
MAX_LAYERS = 16
MAX_WEIGHTS_BYTES = 2 << 30
"""Maximum size of the network; NLF-L has 0.5 GB."""
MAX_ARRAY_BYTES = 1 << 20

FIELD = 'heatmap_head.weight_field.'
LINK, OWN_LINK = 'heatmap_head.layer.', 'backbone.2.'
"""Names of the last layers of `FeatureNetwork` in checkpoints and here."""
_OLD_NAMES = {
    'lbo_mlp.W_r.': 'gps_net.learnable_fourier.linear.',
    'lbo_mlp.dense1.': 'gps_net.mlp.0.',
    'lbo_mlp.dense2.': 'gps_net.mlp.2.',
    'lbo_mlp.': 'gps_net.',
}
"""Names of the field's parameters in version 0.2, and in later ones."""
_OLD_LAYER, _OLD_OUTPUT = 'hidden_layers.', 'output_layer.'
EIGENVALUES, LOW, HIGH = 'r_sqrt_eigva', 'gps_net.mini', 'gps_net.maxi'
"""Buffers of the field."""
_COUNT_SUFFIX = '.num_batches_tracked'
"""Training steps of normalisation layers, which are not used."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """
    The trained networks of a checkpoint, on the CPU, in evaluation mode.

    Parameters
    ----------
    config
        Configuration of the network.
    crop_model
        The part of the network that computes features.
    field
        Maps canonical points to the weights that localise them.
    """

    config: NlfConfig
    crop_model: FeatureNetwork
    field: LocalizerField


@dataclasses.dataclass(frozen=True)
class Parameters:
    """
    The tensors in a file by their names in the official implementation.

    Parameters
    ----------
    file
        The file.
    weights
        The opened file.
    recorded
        Recorded tensors by name; other values are not used.
    """

    file: pathlib.Path
    weights: WeightsFile
    recorded: Mapping[Any, Any]

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self.recorded

    def stored(self, name: str) -> StoredTensor:
        """
        Return the location of a tensor.

        Raises
        ------
        WeightsError
            If it is missing.
        zipfile.BadZipFile, pickle.UnpicklingError
            If it is damaged.
        """
        if name not in self.recorded:
            raise WeightsError(f'{shown(self.file)} is not a checkpoint of NLF: it lacks {name}')
        return self.weights.tensors({name: self.recorded[name]})[name]

    def array(self, name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Read a small tensor; see `read_array`."""
        self.stored(name)
        return read_array(self.weights, name, self.recorded[name], shape)


def read_array(
    weights: WeightsFile, name: str, recorded: Any, shape: tuple[int | None, ...] | None = None
) -> NDArray[Any]:
    """
    Read a small tensor.

    Parameters
    ----------
    weights
        The opened file.
    name
        Name of the tensor.
    recorded
        The recorded tensor.
    shape
        Its sizes, with None for any; None for any shape.

    Raises
    ------
    zipfile.BadZipFile, pickle.UnpicklingError
        If it has another shape, is large or damaged.
    """
    located = weights.tensors({name: recorded})
    stored = located[name]
    fits = shape is None or (
        len(stored.shape) == len(shape)
        and all(size in (None, actual) for size, actual in zip(shape, stored.shape))
    )
    if not fits or stored.storage_bytes > MAX_ARRAY_BYTES:
        raise pickle.UnpicklingError(
            f'{printable(name)} has shape {printable(stored.shape)} and {stored.storage_bytes} '
            f'bytes; expected: {shape or "any shape"}, at most {MAX_ARRAY_BYTES} bytes'
        )
    value = weights.read(located)[name]
    array: NDArray[Any] = (
        value.float().numpy() if stored.dtype.is_floating_point else value.numpy()
    )
    return array


def with_official_names(recorded: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return tensors of any version with the names of the current one."""
    layers = [name for name in recorded if str(name).startswith(FIELD + _OLD_LAYER)]
    hidden = len({str(name).removeprefix(FIELD + _OLD_LAYER).split('.')[0] for name in layers})
    renamed = {}
    for name, value in recorded.items():
        own = str(name).removeprefix(FIELD)
        if own != name:
            name = FIELD + _official_name(own, hidden)
        renamed[name] = value
    return renamed


def _official_name(name: str, hidden: int) -> str:
    """Return the current name of a parameter of a field with a number of hidden layers."""
    for old, new in _OLD_NAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    if name.startswith(_OLD_OUTPUT):
        return f'pred_mlp.{2 * hidden}.{name.removeprefix(_OLD_OUTPUT)}'
    index, dot, parameter = name.removeprefix(_OLD_LAYER).partition('.')
    if name.startswith(_OLD_LAYER) and len(index) == 1 and index.isdecimal():
        return f'pred_mlp.{2 * int(index)}{dot}{parameter}'
    return name


def read_networks(
    parameters: Parameters, buffers: Mapping[str, NDArray[Any]], settings: Settings
) -> Networks:
    """
    Read the networks.

    Parameters
    ----------
    parameters
        The tensors in the file.
    buffers
        Buffers of the field by name; those that are missing here are read from the file.
    settings
        Settings of the network; the published ones are the defaults.

    Raises
    ------
    WeightsError
        If tensors are missing or do not fit together, or values are not valid.
    zipfile.BadZipFile, pickle.UnpicklingError
        If the file is damaged.
    """
    size = _size_of(parameters)
    channels = parameters.stored(f'{LINK}0.weight').shape[0]
    widths = _field_widths(parameters)
    config = _config(settings, size, channels, widths[3][-1] / (channels + 1) - OTHER_MAPS)
    # On the meta device parameters need no memory; the weights from the file replace them.
    with torch.device('meta'):
        crop_model, field = FeatureNetwork(config), LocalizerField(*widths)
    required = _required(crop_model, field)
    byte_count = sum(math.prod(value.shape) * value.element_size() for value in required.values())
    if byte_count > MAX_WEIGHTS_BYTES:
        raise WeightsError(
            f'{shown(parameters.file)} has a network of {byte_count} bytes; expected: at most '
            f'{MAX_WEIGHTS_BYTES}'
        )
    located = {name: parameters.stored(name) for name in required if name in parameters}
    network = f'NLF with EfficientNetV2-{size.upper()} and a depth of {config.depth}'
    check_tensors(parameters.file, located, required, network)
    state = as_parameters(parameters.file, parameters.weights.read(located))
    _load(crop_model, {_own_name(name): value for name, value in state.items()})
    for name, array in _field_buffers(parameters, buffers, widths[2]).items():
        state[FIELD + name] = torch.from_numpy(array)
    _load(field, {name.removeprefix(FIELD): value for name, value in state.items()})
    return Networks(config, crop_model, field)


def _size_of(parameters: Parameters) -> str:
    """Return the size of the backbone; other parameters show whether it is an EfficientNetV2."""
    stem_channels = parameters.stored('backbone.1.0.0.weight').shape[:1]
    if stem_channels == (STEM_CHANNELS['l'],):
        return 'l'
    return 'm' if 'backbone.1.8.0.weight' in parameters else 's'


def _field_widths(parameters: Parameters) -> tuple[int, int, int, tuple[int, ...]]:
    """Return the arguments of `LocalizerField`."""

    def width(name: str) -> int:
        return int(parameters.stored(f'{FIELD}{name}.weight').shape[0])

    layers: list[int] = []
    while f'{FIELD}pred_mlp.{2 * len(layers)}.weight' in parameters and len(layers) < MAX_LAYERS:
        layers.append(width(f'pred_mlp.{2 * len(layers)}'))
    return (
        2 * width('gps_net.learnable_fourier.linear'),
        width('gps_net.mlp.0'),
        width('gps_net.mlp.2'),
        tuple(layers or [width('pred_mlp.0')]),
    )


def _config(settings: Settings, size: str, channels: int, depth: float) -> NlfConfig:
    if channels < 1 or not 1 <= depth <= MAX_DEPTH or depth != int(depth):
        raise WeightsError(
            f'{shown(settings.file)} has a network with {channels} channels and a depth of '
            f'{depth:g}; expected: whole numbers, the depth from 1 to {MAX_DEPTH}'
        )
    values = {'proc_side': DEFAULT_SIDES_PX[size], **DEFAULTS, **settings.values}
    settings = Settings(settings.file, values)
    side_px = settings.number('proc_side', int, 32, MAX_SIDE_PX)
    minimum_m = settings.number('uncert_bias2', float, 0, MAX_BIAS_M)
    return NlfConfig(
        size=size,
        side_px=side_px,
        stride_px=settings.number('stride_test', int, 1, side_px),
        centered_stride=settings.value('centered_stride', bool),
        depth=int(depth),
        box_size_mm=MM_PER_M * settings.number('box_size_m', float, 0.001, MAX_BOX_SIZE_M),
        channels=channels,
        weak_perspective=settings.value('weak_perspective', bool),
        uncertainty_bias=settings.number('uncert_bias', float, -MAX_BIAS_M, MAX_BIAS_M),
        min_uncertainty_m=max(minimum_m, MIN_UNCERTAINTY_M),
        uncertainty_factor=(
            1.0 if settings.value('fix_uncert_factor', bool) else UNCORRECTED_FACTOR
        ),
        white_background=settings.value(WHITE_BACKGROUND, bool),
    )


def _required(crop_model: FeatureNetwork, field: LocalizerField) -> dict[str, Tensor]:
    """Return the parameters that a file must contain, by their names there."""
    required = {
        name.replace(OWN_LINK, LINK, 1) if name.startswith(OWN_LINK) else name: value
        for name, value in crop_model.state_dict().items()
        if not name.endswith(_COUNT_SUFFIX)
    }
    required |= {
        FIELD + name: value
        for name, value in field.state_dict().items()
        if name not in (EIGENVALUES, LOW, HIGH)
    }
    return required


def _own_name(name: str) -> str:
    return name.replace(LINK, OWN_LINK, 1) if name.startswith(LINK) else name


def _load(network: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set the parameters of a network on the meta device."""
    own = network.state_dict()
    steps = {name: torch.tensor(0) for name in own if name.endswith(_COUNT_SUFFIX)}
    used = {name: value for name, value in state.items() if name in own}
    # Assigned, because parameters on the meta device cannot be copied to.
    network.load_state_dict({**used, **steps}, strict=True, assign=True)
    network.eval().requires_grad_(False)


def _field_buffers(
    parameters: Parameters, given: Mapping[str, NDArray[Any]], embedding: int
) -> dict[str, NDArray[np.float32]]:
    """Return the buffers of a field with a number of eigenfunctions."""

    def buffer(name: str, length: int | None) -> NDArray[np.float32]:
        array = given[name] if name in given else parameters.array(FIELD + name, (length,))
        return array.astype(np.float32)

    roots, low, high = buffer(EIGENVALUES, None), buffer(LOW, 3), buffer(HIGH, 3)
    # The condition also rejects NaN.
    if len(roots) < embedding or not (np.abs(roots) < np.inf).all():
        raise WeightsError(
            f'{shown(parameters.file)} needs {embedding} positive eigenvalues, but there are '
            f'{len(roots)}, or some are not positive'
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise WeightsError(
            f'{shown(parameters.file)} needs the bounds of the canonical body, but they are '
            f'{low.tolist()} and {high.tolist()}'
        )
    return {EIGENVALUES: roots[:embedding], LOW: low, HIGH: high}
