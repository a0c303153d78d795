"""Malicious NLF checkpoints are rejected with a one-line error that names the file."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import pickle
import shutil
import zipfile
from collections.abc import Callable

import hostile
import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from nlf_archives import FIELD, crop_tensors, multiperson_model, rewrite, save_archive
from torch import Tensor, nn

from metrabs_ros.nlf.checkpoint import read_checkpoint
from metrabs_ros.nlf.parameters import MAX_ARRAY_BYTES
from metrabs_ros.weights.plain_pickle import read_calls
from metrabs_ros.weights.script_archive import (
    MAX_DEPTH,
    MAX_PICKLE_BYTES,
    attributes,
    module_tensors,
    unwrapped,
)

WEIGHTS = 'nlf_s_crop.pt'
DATA_FILES = (
    *('canonical_eigval3.npy', 'canonical_nodes3.npy', 'canonical_loc_symmetric_init_866.npy'),
    *('joint_info_866.pkl', 'skeleton_types_huge8.pkl', 'config.yaml'),
    *('canonical_joints/smpl.npy', 'canonical_joints/smplx.npy'),
)
ARCHIVE = 'nlf_s_multi.torchscript'
REPLACED_SETTING = 123_456
REPLACED_NAME = 'replaced'


@pytest.fixture
def folder(nlf_folder, tmp_path):
    """Return a copy of a checkpoint in which tests can replace files."""
    shutil.copytree(nlf_folder(), tmp_path / 'nlf', copy_function=os.link)
    return tmp_path / 'nlf'


@pytest.fixture(scope='module')
def archive(nlf_folder, tmp_path_factory):
    """Return the file of an archive."""
    file = tmp_path_factory.mktemp('archive') / ARCHIVE
    model = multiperson_model(nlf_folder(), crop_tensors(nlf_folder()))
    return save_archive(model, file)


@pytest.fixture(scope='module')
def marked_archive(nlf_folder, tmp_path_factory):
    """Return the file of an archive with a setting and names that are found in its pickle."""
    file = tmp_path_factory.mktemp('marked') / ARCHIVE
    model = multiperson_model(nlf_folder(), crop_tensors(nlf_folder()))
    model.crop_model.heatmap_head.proc_side = REPLACED_SETTING
    model.per_skeleton_joint_names['coco_19'] = [REPLACED_NAME] * 19
    return save_archive(model, file)


def replace(file: pathlib.Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def run_here(function: Callable[[], object]) -> str:
    """Call a function that cannot hang; a child of a process with models takes 0.1 s longer."""
    try:
        function()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return 'returned'


def error_of(path: pathlib.Path, name: str, run: Callable[..., str] = hostile.run_in_child) -> str:
    """Return the error message for a checkpoint that must be rejected."""
    return hostile.checkpoint_error(lambda: read_checkpoint(path), name, run)


@pytest.mark.parametrize(
    ('name', 'put'),
    [
        *((WEIGHTS, put) for put in hostile.NOT_FILES),
        *((name, hostile.put_fifo) for name in DATA_FILES),
    ],
)
def test_special_files_are_rejected_without_blocking(folder, name, put):
    (folder / name).unlink()
    put(folder / name)
    error_of(folder, name)


@pytest.mark.parametrize('name', [WEIGHTS, *DATA_FILES])
def test_ten_gigabytes_of_zeros_are_rejected(folder, name):
    (folder / name).unlink()
    hostile.put_sparse_file(folder / name)
    error_of(folder, name)


def test_archives_that_are_not_files_are_rejected_without_blocking(tmp_path):
    for i, put in enumerate((*hostile.NOT_FILES, hostile.put_sparse_file)):
        file = tmp_path / f'{i}.torchscript'
        put(file)
        error_of(file, file.name)


class Hostile:
    """An object that is pickled as a function call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickles(victim: pathlib.Path) -> dict[str, bytes]:
    """Return pickles that would create a file if they were executed."""
    command = f'touch {victim}'
    nested = pickle.dumps({'crop_model': Hostile(os.system, command)}, 2)
    return {
        'reduce': pickle.dumps(Hostile(os.system, command), 2),
        'in the state of a module': (
            b'\x80\x02c__torch__ M\n)\x81}X\x0a\x00\x00\x00crop_model'.replace(b' ', b'\n')
            + nested[2:-1]
            + b'sb.'
        ),
        'object': f'(S"{command}"\nios\nsystem\n.'.encode(),
        'setstate': pickle.dumps(Hostile(exec, f'open({str(victim)!r}, "w")'), 2)[:-1] + b'}b.',
        'wrapper': b'\x80\x02ctorch.jit._pickle\nrestore_type_tag\n'
        + pickle.dumps((Hostile(os.system, command), 'Any'), 2)[2:-1]
        + b'R.',
    }


@pytest.mark.parametrize(
    'kind', ['reduce', 'in the state of a module', 'object', 'setstate', 'wrapper']
)
@pytest.mark.parametrize(
    'name', [ARCHIVE, WEIGHTS, 'joint_info_866.pkl', 'skeleton_types_huge8.pkl']
)
def test_pickles_cannot_run_code(folder, tmp_path, kind, name):
    victim = tmp_path / 'victim'
    content = pickles(victim)[kind]
    # The pickles are effective.
    if kind != 'in the state of a module':
        with contextlib.suppress(Exception):
            pickle.loads(content)
        assert victim.exists() or kind == 'wrapper'
        victim.unlink(missing_ok=True)
    if name in (ARCHIVE, WEIGHTS):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, 'w') as z:
            z.writestr('a/data.pkl', content)
            z.writestr('a/code/__torch__.py', 'import os')
        content = packed.getvalue()
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    path = folder / name if name == ARCHIVE else folder
    error_of(path, name)
    assert not victim.exists()


PICKLE_BOMBS = {
    'nested lists': b'\x80\x04' + b']' * 500_000 + b'a' * 499_999 + b'.',
    'nested modules': b'\x80\x02'
    + b'c__torch__\nM\n)\x81}X\x01\x00\x00\x00a' * 100_000
    + b'N'
    + b'sb' * 100_000
    + b'.',
    'nested wrappers': b'\x80\x02'
    + b'ctorch.jit._pickle\nrestore_type_tag\n' * 100_000
    + b'N'
    + b'\x85R' * 100_000
    + b'.',
    # Each module contains the previous one ten times.
    'references': b'\x80\x02c__torch__\nM\n)\x81}q\x00bq\x00'
    + b''.join(
        b'c__torch__\nM\n)\x81}('
        + b''.join(b'X\x01\x00\x00\x00%dh%c' % (k, i) for k in range(10))
        + b'ubq%c' % (i + 1)
        for i in range(30)
    )
    + b'.',
    'many instructions': b'\x80\x02' + b'N0' * (2 << 20) + b'N.',
    'many lists': b'\x80\x02' + b']0' * (1 << 20) + b']' * (1 << 20) + b'.',
    'large': b'N0' * (MAX_PICKLE_BYTES // 2 + 10) + b'N.',
    'contains itself': b'\x80\x02c__torch__\nM\n)\x81q\x00}X\x0a\x00\x00\x00crop_modelh\x00sb.',
    'length of bytes': b'\x80\x04\x8e' + (1 << 60).to_bytes(8, 'little') + b'.',
    'index of the memo': b'\x80\x02]r\xff\xff\xff\x7f.',
    'empty': b'',
}
# The nested objects are also read by test_modules_that_contain_themselves_or_each_other.
SLOW_BOMBS = ('nested modules', 'nested wrappers', 'many instructions')

FIRST_FREE = 100_000
"""The pickles of archives store fewer values for later use."""


def put(index: int) -> bytes:
    return b'r' + (FIRST_FREE + index).to_bytes(4, 'little')


def get(index: int) -> bytes:
    return b'j' + (FIRST_FREE + index).to_bytes(4, 'little')


# A tuple whose text has 2^40 characters.
LONG_TEXT = b'N\x85' + put(0)
LONG_TEXT += b''.join(b'0' + get(i) + get(i) + b'\x86' + put(i + 1) for i in range(40))
LIST_OF_ITSELF = b']' + put(0) + get(0) + b'a' + get(0) + b'a'
STORAGE = (
    b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ'
)
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n('
END = b'\x89ccollections\nOrderedDict\n)RtR'
TENSOR_BOMBS = {
    'type': REBUILD
    + STORAGE.replace(b'ctorch\nFloatStorage\n', LONG_TEXT)
    + b'K\x00(K\x01t(K\x01t'
    + END,
    'key': REBUILD
    + STORAGE.replace(b'X\x01\x00\x00\x000', LONG_TEXT)
    + b'K\x00(K\x01t(K\x01t'
    + END,
    'count': REBUILD + STORAGE.replace(b'K\x01', LONG_TEXT) + b'K\x00(K\x01t(K\x01t' + END,
    'shape': REBUILD + STORAGE + b'K\x00(' + LONG_TEXT + b't(K\x01t' + END,
    'offset': REBUILD + STORAGE + LONG_TEXT + b'(K\x01t(K\x01t' + END,
    'dimensions': REBUILD
    + STORAGE
    + b'K\x00(\x8a\x08'
    + b'\xff' * 7
    + b'\x0fq\x00'
    + b'h\x00' * 900_000
    + b't)'
    + END,
}

SLOW_TENSORS = ('key', 'count', 'offset')


def text_of(name: str) -> bytes:
    return b'U' + bytes([len(name)]) + name.encode()


def module_of(**attributes: bytes) -> bytes:
    """Return the pickle of a module, without its end."""
    items = b''.join(text_of(name) + value for name, value in attributes.items())
    return b'c__torch__\nM\n)\x81}(' + items + b'ub'


def nested(path: str, content: bytes) -> bytes:
    """Return the pickle of nested modules whose innermost one has an attribute."""
    for name in reversed(path.split('.')):
        content = module_of(**{name: content})
    return content


@pytest.mark.parametrize(
    ('bomb', 'kind'),
    [
        pytest.param(bomb, kind, marks=pytest.mark.slow if bomb in SLOW_TENSORS else ())
        for bomb in TENSOR_BOMBS
        for kind in ('state dict', 'archive', 'setting')
    ],
)
def test_descriptions_of_tensors_are_checked_in_limited_time(folder, bomb, kind):
    first, tensor = 'backbone.1.0.0.weight', TENSOR_BOMBS[bomb]
    if kind == 'state dict':
        file, content = folder / WEIGHTS, b'}' + text_of(first) + tensor + b's'
    else:
        file = folder / ARCHIVE
        head = module_of(proc_side=tensor if kind == 'setting' else b'K\x01')
        valid = REBUILD + STORAGE + b'K\x00(K\x01t(K\x01t' + END
        stem = nested('1.0.0.weight', valid if kind == 'setting' else tensor)
        content = module_of(crop_model=module_of(heatmap_head=head, backbone=stem))
    file.unlink(missing_ok=True)
    with zipfile.ZipFile(file, 'w') as z:
        z.writestr('a/data.pkl', b'\x80\x02' + content + b'.')
        z.writestr('a/data/0', bytes(4))
    error_of(file, file.name)


@pytest.mark.parametrize('value', [LONG_TEXT, TENSOR_BOMBS['key'], LIST_OF_ITSELF])
@pytest.mark.parametrize(
    'original',
    [
        b'J' + REPLACED_SETTING.to_bytes(4, 'little'),
        b'X\x08\x00\x00\x00' + REPLACED_NAME.encode(),
    ],
)
def test_descriptions_of_settings_and_names_are_limited(marked_archive, tmp_path, value, original):
    def change(name: str, content: bytes) -> bytes:
        assert name != 'data.pkl' or original in content
        return content.replace(original, value, 1) if name == 'data.pkl' else content

    # The values are replaced after the archive has been saved.
    error_of(rewrite(marked_archive, tmp_path / ARCHIVE, change), ARCHIVE)


@pytest.mark.parametrize(
    'bomb',
    [
        pytest.param(bomb, marks=pytest.mark.slow if bomb in SLOW_BOMBS else ())
        for bomb in PICKLE_BOMBS
    ],
)
def test_memory_and_time_for_pickles_are_limited(tmp_path, bomb):
    file = tmp_path / ARCHIVE
    with zipfile.ZipFile(file, 'w') as z:
        z.writestr('a/data.pkl', PICKLE_BOMBS[bomb])
    error_of(file, ARCHIVE)


def test_modules_that_contain_themselves_or_each_other_are_rejected():
    for name in ('contains itself', 'references', 'nested modules'):
        content = read_calls(PICKLE_BOMBS[name], MAX_PICKLE_BYTES)
        with pytest.raises(pickle.UnpicklingError, match=f'attributes or {MAX_DEPTH} levels'):
            module_tensors(content)
    unwrapped(read_calls(PICKLE_BOMBS['nested wrappers'], MAX_PICKLE_BYTES))


@given(
    strategies.lists(strategies.tuples(strategies.floats(0, 0.999), strategies.integers(0, 255)))
)
def test_random_damage_of_the_pickle_is_rejected_or_harmless(archive, changes):
    with zipfile.ZipFile(archive) as z:
        (name,) = (name for name in z.namelist() if name.endswith('/data.pkl'))
        content = bytearray(z.read(name))
    for position, value in changes:
        content[int(position * len(content))] = value
    with contextlib.suppress(pickle.UnpicklingError):
        model = attributes(read_calls(bytes(content), MAX_PICKLE_BYTES))
        module_tensors(model.get('crop_model'))


def member_changes() -> dict[str, Callable[[str, bytes], bytes | None]]:
    """Return changes of the members of archives."""

    def is_storage(name: str) -> bool:
        return name.startswith('data/')

    return {
        'missing storages': lambda name, content: None if is_storage(name) else content,
        'short storages': lambda name, content: content[:-4] if is_storage(name) else content,
        'long storages': lambda name, content: content + bytes(4 * is_storage(name)),
        'big endian': lambda name, content: b'big' if name == 'byteorder' else content,
        'two pickles': lambda name, content: content,
        'no pickle': lambda name, content: None if name == 'data.pkl' else content,
    }


@pytest.mark.parametrize('change', member_changes())
def test_archives_with_other_members_are_rejected(archive, tmp_path, change):
    file = rewrite(archive, tmp_path / ARCHIVE, member_changes()[change])
    if change == 'two pickles':
        with zipfile.ZipFile(file, 'a') as z:
            z.writestr('other/data.pkl', b'N.')
    error_of(file, ARCHIVE)


def test_compressed_storages_are_rejected(archive, tmp_path):
    def large_left_out(name: str, content: bytes) -> bytes | None:
        return content if len(content) < 100_000 else None

    file = rewrite(archive, tmp_path / ARCHIVE, large_left_out, zipfile.ZIP_DEFLATED)
    assert 'compressed' in error_of(file, ARCHIVE)


@pytest.mark.parametrize('kept', [0, 0.3, 0.99])
def test_a_truncated_archive_is_rejected(archive, tmp_path, kept):
    content = archive.read_bytes()
    (tmp_path / ARCHIVE).write_bytes(content[: int(kept * len(content))])
    error_of(tmp_path / ARCHIVE, ARCHIVE)


def test_damaged_storages_are_rejected(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / ARCHIVE).write_bytes(content)
    assert 'CRC' in error_of(tmp_path / ARCHIVE, ARCHIVE)


def test_a_member_that_claims_to_be_larger_than_the_file_is_rejected(archive, tmp_path):
    count = 1 << 28
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as z:
        info = max(z.infolist(), key=lambda info: info.file_size)
        start = z.start_dir
    entry = content.index(info.filename.encode(), start) - 46
    # Sizes in the directory: compressed and not compressed.
    content[entry + 20 : entry + 28] = 2 * (4 * count).to_bytes(4, 'little')
    (tmp_path / ARCHIVE).write_bytes(content)
    assert 'behind the end of the file' in error_of(tmp_path / ARCHIVE, ARCHIVE)


MLP = f'{FIELD}pred_mlp.2.'


def with_values(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('backbone.1.0.0.weight', lambda t: t[:23], 'has of another shape backbone.1.0.0.weight'),
        ('backbone.1.7.1.bias', lambda t: with_values(t, torch.nan), 'not finite in backbone'),
        (f'{MLP}bias', lambda t: t.to(torch.int64), 'of another type'),
        (f'{MLP}weight', lambda t: t[:-1], 'depth of 7.9'),
        (f'{MLP}bias', lambda t: t[:, None], 'of another shape'),
        (f'{MLP}bias', lambda t: torch.zeros(1).expand(len(t)), 'does not fit its storage'),
        (f'{MLP}bias', lambda t: torch.zeros(120 << 20)[: len(t)], 'stores'),
        ('heatmap_head.layer.0.weight', lambda t: t[:0], '0 channels'),
        (f'{FIELD}gps_net.mini', lambda t: t + 100, 'bounds of the canonical body'),
        (f'{FIELD}gps_net.maxi', lambda t: with_values(t, torch.inf), 'bounds of the canonical'),
        (f'{FIELD}r_sqrt_eigva', lambda t: t[:1000], '1024 positive eigenvalues'),
        (f'{FIELD}r_sqrt_eigva', lambda t: with_values(t, torch.nan), 'positive eigenvalues'),
        ('inv_permutation', lambda t: t * 0, 'not a permutation'),
        ('inv_permutation', lambda t: t.float(), 'not a permutation'),
        ('canonical_lefts', lambda t: t[:-1], 'canonical_centers has shape'),
        ('canonical_delta_mask', lambda t: t * torch.inf, 'not finite or exceed 10 m'),
        ('canonical_locs_init', lambda t: t + 11, 'not finite or exceed 10 m'),
        ('canonical_locs_init', lambda t: torch.zeros(1 << 20, 3)[: len(t)], f'{MAX_ARRAY_BYTES}'),
        ('canonical_locs_init', lambda t: torch.zeros(5000, 3), 'of at most 4096 joints'),
    ],
)
def test_invalid_tensors_are_rejected(nlf_folder, tmp_path, name, change, message):
    tensors = crop_tensors(nlf_folder())
    tensors[name] = change(tensors[name])
    file = save_archive(multiperson_model(nlf_folder(), tensors), tmp_path / ARCHIVE)
    assert message in error_of(file, ARCHIVE)


def set_table(name: str, value: object) -> Callable[[nn.Module], None]:
    return lambda model: getattr(model, name).update({'coco_19': value})


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (set_table('per_skeleton_joint_names', ['a\x1b[31m'] * 19), r"name 'a\x1b[31m'"),
        (set_table('per_skeleton_joint_names', ['x' * 200] * 19), 'has the name'),
        (set_table('per_skeleton_joint_names', ['x'] * 5000), '5000 joints, more than 4096'),
        (set_table('per_skeleton_joint_names', ['x']), "'coco_19' has 1 names"),
        (set_table('skeleton_joint_indices_table', [74] * 19), 'an index 74'),
        (set_table('skeleton_joint_indices_table', [-1] * 19), 'an index'),
        (
            set_table('per_skeleton_joint_edges', torch.tensor([[0, 19]], dtype=torch.int32)),
            'an edge refers to joint 19 of 19',
        ),
        (set_table('per_skeleton_joint_edges', torch.zeros(2, 2)), 'instead of indices'),
        (set_table('per_skeleton_joint_edges', torch.zeros(3, dtype=torch.int32)), 'not pairs'),
        (lambda model: setattr(model, 'pad_white_pixels', 2), 'has pad_white_pixels: 2'),
        (lambda model: setattr(model.crop_model.heatmap_head, 'proc_side', 10**6), 'proc_side'),
        (
            lambda model: setattr(model.crop_model.heatmap_head, 'box_size_m', float('nan')),
            'has box_size_m: nan',
        ),
        (lambda model: model.cano_all.update(smpl=torch.zeros(23, 3)), 'canonical points (24, 3)'),
        (lambda model: model.cano_all.update(smpl=torch.full((24, 3), torch.nan)), 'not finite'),
        (lambda model: setattr(model, 'cano_all', 5), 'cano_all is 5 instead of a dictionary'),
        (lambda model: delattr(model, 'crop_model'), 'instead of a module'),
        (lambda model: delattr(model.crop_model, 'heatmap_head'), 'instead of a module'),
        (lambda model: delattr(model.crop_model, 'backbone'), 'it lacks backbone'),
    ],
)
def test_invalid_attributes_are_rejected(nlf_folder, tmp_path, change, message):
    model = multiperson_model(nlf_folder(), crop_tensors(nlf_folder()))
    change(model)
    assert message in error_of(save_archive(model, tmp_path / ARCHIVE), ARCHIVE)


@pytest.mark.parametrize(
    ('name', 'array', 'message'),
    [
        ('canonical_eigval3.npy', np.zeros(1100), 'an eigenvalue is not positive'),
        ('canonical_eigval3.npy', np.full(1100, np.nan), 'an eigenvalue is not positive'),
        ('canonical_eigval3.npy', np.ones((1100, 1)), 'of shape (1100, 1)'),
        ('canonical_eigval3.npy', np.ones(100), '1024 positive eigenvalues'),
        ('canonical_nodes3.npy', np.zeros((5, 3)), 'bounds of the canonical body'),
        ('canonical_nodes3.npy', np.full((5, 3), np.nan), 'bounds of the canonical body'),
        ('canonical_nodes3.npy', np.zeros((0, 3)), 'of shape (0, 3)'),
        ('canonical_nodes3.npy', np.array(['a']), 'contains <U1'),
        ('canonical_loc_symmetric_init_866.npy', np.zeros((73, 3)), 'instead of canonical points'),
        ('canonical_loc_symmetric_init_866.npy', np.full((74, 3), 1e30), 'exceed 10 m'),
        ('canonical_joints/smpl.npy', np.zeros((24, 2)), 'of shape (24, 2)'),
        ('canonical_joints/smplx.npy', np.full((55, 3), np.inf), 'not finite'),
    ],
)
def test_invalid_data_files_are_rejected(folder, name, array, message):
    (folder / name).unlink()
    np.save(folder / name, array)
    # What the networks need is checked when they are read.
    is_for_network = message.startswith(('1024', 'bounds'))
    assert message in error_of(folder, WEIGHTS if is_for_network else name, run_here)


class JointInfo:
    """An object with names; only its state is read."""

    def __init__(self, names: object) -> None:
        self.names = names


@pytest.mark.parametrize(
    ('info', 'message'),
    [
        ({}, 'no object with a list of names'),
        (JointInfo(5), 'no object with a list of names'),
        (JointInfo([]), 'no object with a list of names'),
        (JointInfo(['a', 'a']), 'it has the name a 2 times'),
        (JointInfo(['lhip', 'rkne']), 'it has lhip, but no rhip'),
        (JointInfo(['a\n']), 'it has the name'),
        (JointInfo([['a']]), 'it has the name'),
        (JointInfo([f'j{i}' for i in range(5000)]), '5000 joints, more than 4096'),
        (JointInfo(['a' * (1 << 20)] + ['b'] * 4000), 'it has the name'),
    ],
)
def test_invalid_joints_are_rejected(folder, info, message):
    replace(folder / 'joint_info_866.pkl', pickle.dumps(info))
    assert message in error_of(folder, 'joint_info_866.pkl', run_here)


def test_the_names_of_joints_are_read_without_importing_their_class(folder):
    content = (folder / 'joint_info_866.pkl').read_bytes()
    assert b'posepile.joint_info' in content
    with pytest.raises(ImportError):
        pickle.loads(content)
    assert len(read_checkpoint(folder).points_m) == 153
