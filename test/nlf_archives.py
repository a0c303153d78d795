"""Multi-person archives with the attribute names of the official NLF code, saved by torch.jit."""

from __future__ import annotations

import pathlib
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from conftest import make_nlf_checkpoint
from torch import Tensor, nn

from metrabs_ros.nlf.canonical import is_trained, side_order

SETTINGS = {
    'uncert_bias': 0.0,
    'uncert_bias2': 0.001,
    'depth': make_nlf_checkpoint.DEPTH,
    'stride_test': 32,
    'centered_stride': True,
    'box_size_m': 2.2,
    'proc_side': 256,
    'backbone_link_dim': make_nlf_checkpoint.LINK_CHANNELS,
    'fix_uncert_factor': False,
    'mix_3d_inside_fov': 0.5,
    'weak_perspective': False,
}
FIELD = 'heatmap_head.weight_field.'
OLD_NAMES = {
    'gps_net.learnable_fourier.linear.': 'lbo_mlp.W_r.',
    'gps_net.mlp.0.': 'lbo_mlp.dense1.',
    'gps_net.mlp.2.': 'lbo_mlp.dense2.',
    'gps_net.': 'lbo_mlp.',
    'pred_mlp.0.': 'hidden_layers.0.',
    'pred_mlp.2.': 'output_layer.',
}
OTHER_BYTES = (4 * 12_347, 4 * 12_349)
"""Sizes of the tensors of the person detector and of the body models."""
VERTICES = 1024
"""Points of the body models before their joints."""


def crop_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of the official crop model of a checkpoint."""
    names = make_nlf_checkpoint.JOINT_NAMES
    nodes = torch.from_numpy(np.load(folder / 'canonical_nodes3.npy')).float()
    low, high = nodes.min(dim=0).values, nodes.max(dim=0).values
    eigenvalues = torch.from_numpy(np.load(folder / 'canonical_eigval3.npy')[1:]).float()
    return {
        **torch.load(folder / 'nlf_s_crop.pt', weights_only=True),
        f'{FIELD}r_sqrt_eigva': torch.from_numpy(1 / np.sqrt(eigenvalues.numpy())),
        f'{FIELD}gps_net.mini': low,
        f'{FIELD}gps_net.maxi': high,
        f'{FIELD}gps_net.center': (low + high) / 2,
        'inv_permutation': torch.from_numpy(np.argsort(side_order(names))),
        'canonical_delta_mask': torch.from_numpy(is_trained(names)).float(),
        'canonical_locs_init': torch.from_numpy(
            np.load(folder / 'canonical_loc_symmetric_init_866.npy')
        ),
    }


def with_old_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the names of version 0.2."""

    def old(name: str) -> str:
        own = name.removeprefix(FIELD)
        prefix = next((p for p in OLD_NAMES if own != name and own.startswith(p)), '')
        return f'{FIELD}{OLD_NAMES[prefix]}{own.removeprefix(prefix)}' if prefix else name

    return {old(name): value for name, value in tensors.items()}


def with_half_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the features in half precision, as in the published archives."""
    return {
        name: value.half()
        if name.startswith(('backbone.', 'heatmap_head.layer.')) and value.is_floating_point()
        else value
        for name, value in tensors.items()
    }


class Module(nn.Module):
    """A module that only has attributes; scripting it compiles nothing."""


def modules_of(tensors: Mapping[str, Tensor], old_field: bool = False) -> Module:
    """Return nested modules with tensors as buffers, or as plain attributes in an old field."""
    root = Module()
    for name, value in tensors.items():
        *path, last = name.split('.')
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Module())
            module = module._modules[part]
        if old_field and last in ('r_sqrt_eigva', 'mini', 'maxi', 'center'):
            setattr(module, last, value)
        elif value.is_floating_point():
            setattr(module, last, nn.Parameter(value, False))
        else:
            module.register_buffer(last, value)
    return root


def multiperson_model(
    folder: pathlib.Path, tensors: Mapping[str, Tensor], old_field: bool = False
) -> Module:
    """Return a model with the attributes of the official one that are read, and some others."""
    model = Module()
    model.crop_model = modules_of(tensors, old_field)
    model.crop_model.input_resolution = SETTINGS['proc_side']
    for name, value in SETTINGS.items():
        setattr(model.crop_model.heatmap_head, name, value)
    model.detector = modules_of({'model.0.weight': torch.zeros(OTHER_BYTES[0] // 4)})
    model.body_models = modules_of({'smpl.v_template': torch.zeros(OTHER_BYTES[1] // 4)})
    joints = {
        name: torch.from_numpy(np.load(folder / 'canonical_joints' / f'{name}.npy')).float()
        for name in ('smpl', 'smplx')
    }
    model.cano_all = {
        name: torch.cat([torch.rand(VERTICES, 3), value]) for name, value in joints.items()
    }
    infos = make_nlf_checkpoint.skeleton_types()
    model.per_skeleton_indices = {
        name: torch.tensor(info['indices'], dtype=torch.int32) for name, info in infos.items()
    }
    model.per_skeleton_joint_names = {name: info['names'] for name, info in infos.items()}
    model.per_skeleton_joint_edges = {
        name: torch.tensor(info['edges'], dtype=torch.int32) for name, info in infos.items()
    }
    # TorchScript does not save lists with numbers of NumPy.
    model.skeleton_joint_indices_table = {
        name: [int(i) for i in info['indices']] for name, info in infos.items()
    }
    model.pad_white_pixels = True
    return model


def save_archive(model: nn.Module, file: pathlib.Path) -> pathlib.Path:
    """Script a model and save it."""
    with warnings.catch_warnings():
        # The published archives have this format.
        warnings.simplefilter('ignore', DeprecationWarning)
        torch.jit.save(torch.jit.script(model.eval()), str(file))
    return file


def rewrite(
    archive: pathlib.Path,
    file: pathlib.Path,
    change: Callable[[str, bytes], bytes | None],
    compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    """
    Copy an archive with other members.

    Parameters
    ----------
    archive
        The archive.
    file
        The new archive.
    change
        Returns the content of a member of the given name, without the first folder; None to leave
        the member out.
    compression
        Compression of the members.
    """
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(file, 'w', compression, True, 1) as z:
        for info in source.infolist():
            name = info.filename.partition('/')[2]
            content: Any = change(name, source.read(info))
            if content is not None:
                z.writestr(info.filename, content)
    return file
