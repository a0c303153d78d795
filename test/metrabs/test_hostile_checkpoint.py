"""Malicious checkpoint files are rejected with a one-line error that names the file."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pathlib
import pickle
import re
import struct
import zipfile

import hostile
import numpy as np
import pytest
import torch

import metrabs_ros
from metrabs_ros.metrabs.checkpoint import FILES, read_checkpoint
from metrabs_ros.weights.plain_pickle import read_plain

ALL_FILES = (*FILES, 'affine_weights.npz')


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """Return a copy of a checkpoint in which tests can replace files."""
    for file in checkpoint_folder('s_latents').iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path


def replace(file: pathlib.Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def error_of(folder: pathlib.Path, name: str) -> str:
    """Return the error message for a checkpoint that must be rejected."""
    return hostile.checkpoint_error(lambda: read_checkpoint(folder), name)


@pytest.mark.parametrize(
    ('name', 'put'),
    [
        *((FILES[0], put) for put in hostile.NOT_FILES),
        *((name, hostile.put_fifo) for name in ALL_FILES[1:]),
    ],
)
def test_special_files_are_rejected_without_blocking(folder, name, put):
    (folder / name).unlink()
    put(folder / name)
    error_of(folder, name)


@pytest.mark.parametrize('name', ALL_FILES)
def test_ten_gigabytes_of_zeros_are_rejected(folder, name):
    (folder / name).unlink()
    hostile.put_sparse_file(folder / name)
    error_of(folder, name)


def test_symbolic_links_are_followed(folder):
    for name in ALL_FILES:
        (folder / name).rename(folder / f'elsewhere_{name}')
        (folder / name).symlink_to(f'elsewhere_{name}')
    read_checkpoint(folder)


def npy(descr: str, shape: str, data: bytes = b'') -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data


def zipped(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', compression) as archive:
        for name, content in members.items():
            archive.writestr(f'{name}.npy', content)
    return packed.getvalue()


def array_bomb() -> bytes:
    """Return a 1.4 MB archive with 1.4 GB of joint edges."""
    packed = io.BytesIO()
    zeros = bytes(1 << 20)
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        names = np.array(['a', 'b'])
        with archive.open('joint_names.npy', 'w') as member:
            np.save(member, names)
        with archive.open('joint_edges.npy', 'w', force_zip64=True) as member:
            member.write(npy("'<i8'", f'({1400 << 16}, 2)'))
            for _ in range(1400):
                member.write(zeros)
    return packed.getvalue()


NAMES = npy("'<U1'", '(2,)', 'ab'.encode('utf-32-le'))
JOINT_BOMBS = {
    'deflated zeros': array_bomb,
    'declared shape': lambda: zipped(
        joint_names=npy("'<U1'", '(9999999999999,)'), joint_edges=NAMES
    ),
    'overflowing shape': lambda: zipped(
        joint_names=npy("'<U1'", '(4294967296, 4294967296)'), joint_edges=NAMES
    ),
    'negative shape': lambda: zipped(joint_names=npy("'<U1'", '(-1,)'), joint_edges=NAMES),
    'huge items': lambda: zipped(joint_names=npy("'<U999999'", '(1,)'), joint_edges=NAMES),
    'objects': lambda: zipped(joint_names=npy("'|O'", '(2,)', b'N.'), joint_edges=NAMES),
    'nested header': lambda: zipped(
        joint_names=npy('(' * 4000 + ')' * 4000, '(1,)'), joint_edges=NAMES
    ),
    'long header': lambda: zipped(
        joint_names=b'\x93NUMPY\x02\x00\xff\xff\xff\xff{', joint_edges=NAMES
    ),
    'names are numbers': lambda: zipped(
        joint_names=npy("'<f8'", '(2,)', bytes(16)), joint_edges=NAMES
    ),
    'names do not print': lambda: zipped(
        joint_names=npy("'<U1'", '(2,)', 'a\n'.encode('utf-32-le')), joint_edges=NAMES
    ),
    'no names': lambda: zipped(joint_names=npy("'<U1'", '(0,)'), joint_edges=NAMES),
    'edges are no pairs': lambda: zipped(
        joint_names=NAMES, joint_edges=npy("'<i8'", '(3,)', bytes(24))
    ),
    'edges are not whole': lambda: zipped(
        joint_names=NAMES, joint_edges=npy("'<f8'", '(1, 2)', bytes(16))
    ),
    'many members': lambda: zipped(
        zipfile.ZIP_STORED, **{f'joint_names{i}': b'' for i in range(21_000)}
    ),
    'other compression': lambda: zipped(zipfile.ZIP_LZMA, joint_names=NAMES)[:-200],
    'no zip': lambda: NAMES,
}


@pytest.mark.slow
@pytest.mark.parametrize('bomb', JOINT_BOMBS)
def test_joints_are_checked_before_memory_is_allocated(folder, bomb):
    replace(folder / 'joint_info.npz', JOINT_BOMBS[bomb]())
    error_of(folder, 'joint_info.npz')


@pytest.mark.parametrize(
    'content',
    [
        npy("'<f8'", '(36, 99999999999)'),
        npy("'<f8'", '(36, 0)'),
        npy("'<f8'", '(36, 1)', np.full(36, np.nan).tobytes()),
        npy("'<f8'", '(36, 1)', np.full(36, 1e300).tobytes()),
        npy("'<c16'", '(36, 1)', bytes(36 * 16)),
        npy("[('a', 'O')]", '(36, 1)', bytes(36 * 8)),
        npy("'|O'", '(36, 40)', pickle.dumps(np.zeros((36, 40), object))),
        pickle.dumps(np.eye(36)),
    ],
)
def test_an_invalid_matrix_is_rejected(folder, content):
    replace(folder / 'joint_transform_matrix.npy', content)
    error_of(folder, 'joint_transform_matrix.npy')


PICKLE_BOMBS = {
    'nested lists': b'\x80\x04' + b']' * 500_000 + b'a' * 499_999 + b'.',
    # Computing its hash overflows the C stack.
    'nested tuple as a key': b'\x80\x04}' + b')' + b'\x85' * 500_000 + b'K\x01s.',
    # The C unpickler allocates 32 GB for this index.
    'index of the memo': b'\x80\x02]r\xff\xff\xff\x7f.',
    'references': b'\x80\x04]\x94K\x01a'
    + b''.join(b']\x94(' + bytes((ord('h'), i)) * 10 + b'e' for i in range(30))
    + b'.',
    'array': b'\x80\x04cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.',
    'bytes': b'\x80\x04cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.',
    'length of bytes': b'\x80\x04\x8e' + (1 << 60).to_bytes(8, 'little') + b'.',
    'length of a bytearray': b'\x80\x05\x96' + (1 << 34).to_bytes(8, 'little') + b'.',
    'integer': b'\x80\x04\x8b' + (1 << 20).to_bytes(4, 'little') + b'\x7f' * (1 << 20) + b'.',
    'digits': b'I' + b'9' * 100_000 + b'\n.',
    'contains itself': b'\x80\x04]\x94h\x00a.',
    'unknown extension': b'\x80\x02\x82\x01.',
    'persistent id': b'Pabc\n.',
    'instance': b'(ios\nsystem\n.',
    'invalid text': b'\x80\x04\x8c\x02\xff\xfe.',
    'empty': b'',
    'no end': b'\x80\x04N',
    'marks': b'(' * 2_000_000 + b'.',
    'large': b'N0' * (3 << 20) + b'.',
}


@pytest.mark.slow
@pytest.mark.parametrize('bomb', PICKLE_BOMBS)
@pytest.mark.parametrize('name', ['skeleton_infos.pkl', 'ckpt.pt'])
def test_memory_for_pickles_is_limited(folder, bomb, name):
    content = PICKLE_BOMBS[bomb]
    if name == 'ckpt.pt':
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, 'w') as archive:
            archive.writestr('a/data.pkl', content)
        content = packed.getvalue()
    replace(folder / name, content)
    error_of(folder, name)


def test_a_dtype_with_forged_flags_cannot_create_pointers():
    # The state claims that the records contain no objects although they do.
    forged = np.dtype([('f', 'O')])
    _, _, state = forged.__reduce__()
    forged_state = (*state[:-1], 0)

    class Forged:
        def __reduce__(self):
            return np.dtype, ('V8', False, True), forged_state

    array = np.zeros(1, 'V8')
    function, arguments, (version, shape, _, order, _) = array.__reduce__()

    class Array:
        def __reduce__(self):
            return function, arguments, (version, shape, Forged(), order, b'\x41' * 8)

    with pytest.raises(pickle.UnpicklingError, match='array of'):
        read_plain(pickle.dumps(Array()))


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_random_damage_of_a_pickle_is_rejected_or_harmless(checkpoint_folder, protocol):
    infos = read_plain((checkpoint_folder('s_latents') / 'skeleton_infos.pkl').read_bytes())
    infos['']['indices'] = np.array(infos['']['indices'])
    content = pickle.dumps(infos, protocol)
    random = np.random.default_rng(protocol)
    for _ in range(300):
        damaged = bytearray(content)
        for index in random.integers(0, len(content), 3):
            damaged[index] = random.integers(256)
        with contextlib.suppress(pickle.UnpicklingError, ValueError, TypeError):
            read_plain(bytes(damaged))


def weights_of(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'ckpt.pt', weights_only=True)


def save_weights(folder: pathlib.Path, state: object, **options: object) -> None:
    (folder / 'ckpt.pt').unlink()
    torch.save(state, folder / 'ckpt.pt', **options)


KEY = 'heatmap_heads.conv_final.bias'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        # One stored element is expanded to a tensor of any size.
        (lambda value: torch.zeros(1).expand(10**12), 'does not fit its storage'),
        (lambda value: torch.zeros(1).expand(len(value)), 'does not fit its storage'),
        (lambda value: torch.zeros(100 << 20)[: len(value)], 'stores .* bytes; expected:'),
        (lambda value: value.to(torch.int64), 'of another type'),
        (lambda value: value.to(torch.complex64), 'ComplexFloatStorage'),
        (lambda value: value.double() * 1e300, 'finite'),
        (lambda value: value[None], 'of another shape'),
        (lambda value: value.to_sparse(), 'data other than named tensors'),
        (lambda value: value.numpy(), 'data other than named tensors'),
        (lambda value: {'nested': value}, 'data other than named tensors'),
    ],
)
def test_invalid_tensors_are_rejected(folder, change, message):
    state = weights_of(folder)
    state[KEY] = change(state[KEY])
    save_weights(folder, state)
    assert re.search(message, error_of(folder, 'ckpt.pt'))


def test_storages_with_a_wrong_size_are_rejected(folder):
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(folder / 'ckpt.pt') as whole,
        zipfile.ZipFile(packed, 'w') as archive,
    ):
        for info in whole.infolist():
            content = whole.read(info)
            last = info.filename.endswith('/data/5')
            archive.writestr(info.filename, content[:-4] if last else content)
    replace(folder / 'ckpt.pt', packed.getvalue())
    assert 'instead of' in error_of(folder, 'ckpt.pt')


def test_compressed_storages_are_rejected(folder):
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(folder / 'ckpt.pt') as whole,
        zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for info in whole.infolist()[:20]:
            archive.writestr(info.filename, whole.read(info))
    replace(folder / 'ckpt.pt', packed.getvalue())
    assert 'compressed' in error_of(folder, 'ckpt.pt') or 'no member' in error_of(
        folder, 'ckpt.pt'
    )


def test_damaged_storages_are_rejected(folder):
    content = bytearray((folder / 'ckpt.pt').read_bytes())
    content[len(content) // 2] ^= 1
    replace(folder / 'ckpt.pt', bytes(content))
    assert 'CRC' in error_of(folder, 'ckpt.pt')


def test_parameters_in_half_precision_are_read(folder):
    state = {
        name: torch.nn.Parameter(value.half(), False) if value.is_floating_point() else value
        for name, value in weights_of(folder).items()
    }
    save_weights(folder, collections.OrderedDict(state))
    weights = read_checkpoint(folder).crop_model.state_dict()
    assert torch.equal(weights[KEY], state[KEY].float())


def test_the_legacy_format_without_zip_is_rejected(folder):
    save_weights(folder, weights_of(folder), _use_new_zipfile_serialization=False)
    assert 'not a zip file' in error_of(folder, 'ckpt.pt')


CONFIG_BOMBS = {
    'merged': 'a0: &a0 {x: 1}\n'
    + ''.join(f'a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}, *a{i}, *a{i}]}}\n' for i in range(40)),
    'nested lists': 'a: ' + '[' * 60_000,
    'nested sequences': '- ' * 30_000,
    'sexagesimal': 'a: 1' + ':20' * 20_000,
    'large': 'a: b\n' * 50_000,
    'object': 'a: !!python/object/apply:os.system [ls]',
    'no mapping': '[1]',
    'nothing': '',
    'contains itself': '&a [*a]',
    'no text': '\x00',
}


@pytest.mark.parametrize('bomb', CONFIG_BOMBS)
def test_memory_for_settings_is_limited(folder, bomb):
    whole = (folder / 'config.yaml').read_text()
    is_whole = bomb in ('no mapping', 'nothing', 'contains itself', 'nested sequences', 'object')
    content = CONFIG_BOMBS[bomb] if is_whole else f'{whole}\n{CONFIG_BOMBS[bomb]}\n'
    replace(folder / 'config.yaml', content.encode())
    if bomb == 'sexagesimal':
        assert hostile.run_in_child(lambda: read_checkpoint(folder)) == 'returned'
    else:
        error_of(folder, 'config.yaml')


@pytest.mark.parametrize(
    'line',
    [
        'depth: 1000000000000000000000',
        'depth: .nan',
        'depth: 0x' + 'f' * 10_000,
        'proc_side: 100000',
        'stride_test: 100000',
        'box_size_mm: .inf',
        'box_size_mm: .nan',
        'mix_3d_inside_fov: .nan',
        'mix_3d_inside_fov: 1.0e+300',
        'efficientnet_size: "' + 'x' * 10_000 + '"',
        'efficientnet_size: "\\e[31m"',
        'centered_stride: [1, 2]',
        # Its full text has 10^30 characters.
        'l0: &l0 [x]\n'
        + '\n'.join(f'l{i + 1}: &l{i + 1} [{", ".join([f"*l{i}"] * 10)}]' for i in range(30))
        + '\ndepth: *l30',
        'affine_weights: /etc/passwd',
        'affine_weights: ../affine_weights.npz',
        'affine_weights: "a\\0b"',
        'affine_weights: .',
        'affine_weights: 5',
    ],
)
def test_settings_out_of_range_are_rejected(folder, line):
    content = (folder / 'config.yaml').read_text() + f'\n{line}\n'
    replace(folder / 'config.yaml', content.encode())
    error_of(folder, str(folder))


@pytest.mark.skipif(os.getuid() != 0, reason='needs root to become another user')
@pytest.mark.parametrize('name', [*FILES, ''])
def test_unreadable_files_are_rejected(folder, name):
    folder.chmod(0o755)
    for file in folder.iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    (folder / name).chmod(0)
    assert hostile.run_in_child(lambda: _read_as_other_user(folder)).startswith('WeightsError: ')


def _read_as_other_user(folder: pathlib.Path) -> None:
    for parent in folder.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and parent != pathlib.Path('/'):
            parent.chmod(0o755)
    os.setuid(65534)
    read_checkpoint(folder)


@pytest.mark.parametrize(
    'name',
    [
        *('', 'no-such-model', 'a\0b', '~no-such-user/model', 'x' * 100_000, '\x1b[31m\n'),
        *('a/\udcff', '/dev/null', '/proc/self/mem', '.'),
    ],
)
def test_the_error_for_an_unknown_model_is_one_short_line(name):
    message = hostile.run_in_child(lambda: metrabs_ros.load_model(name))
    assert message.startswith(('ValueError: ', 'WeightsError: ')), message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize('threads', [-1, 1.5, True, 'two', 10**9, None])
def test_an_invalid_number_of_threads_is_rejected(threads):
    with pytest.raises(ValueError, match='threads is '):
        metrabs_ros.load_model('blazepose', threads=threads)


@pytest.mark.slow
@pytest.mark.parametrize('argument', ['engine', 'precision', 'device', 'detector'])
@pytest.mark.parametrize('value', ['x' * 100_000, 'a\nb', None, 3])
def test_the_error_for_an_invalid_argument_is_one_short_line(checkpoint_folder, argument, value):
    folder = checkpoint_folder('s_centered')
    for model in ('blazepose', folder):
        with pytest.raises(ValueError, match=argument) as caught:
            metrabs_ros.load_model(model, **{argument: value})
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
