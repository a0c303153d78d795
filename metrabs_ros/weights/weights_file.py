"""
Read tensors from untrusted files of `torch.save` and `torch.jit.save`.

Names, types, shapes and sizes are available and can be checked before any tensor is read.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import CHUNK_BYTES, open_regular
from metrabs_ros.weights.plain_pickle import (
    MAX_PICKLE_BYTES,
    Call,
    Global,
    PersistentId,
    read_calls,
)
from metrabs_ros.weights.zip_archive import open_zip, read_member

MAX_FILE_BYTES = 8 << 30
MAX_BYTE_ORDER_BYTES = 16
MAX_DIMENSIONS = 16
DTYPES = {
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """
    Location and layout of a tensor in a file.

    Parameters
    ----------
    storage
        Name of the archive member.
    storage_bytes
        Size of the archive member.
    dtype
        Type of the elements.
    shape
        Shape of the tensor.
    offset
        Offset of the first element in the storage, in elements.
    stride
        Stride along each axis, in elements.
    """

    storage: str
    storage_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        """
        Check that the tensor is within its storage and not larger than it.

        Raises
        ------
        pickle.UnpicklingError
            If the check fails.
        """
        # The product of very many sizes takes long.
        if max(len(self.shape), len(self.stride)) > MAX_DIMENSIONS:
            raise pickle.UnpicklingError(f'a tensor has {len(self.shape)} dimensions')
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise pickle.UnpicklingError(
                'a tensor has a size, offset or stride that is not a whole number of at least 0'
            )
        count = math.prod(self.shape)
        extent = sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        available = self.storage_bytes // self.dtype.itemsize
        is_valid = len(self.stride) == len(self.shape) and count <= available
        if not is_valid or (count and self.offset + extent >= available):
            raise pickle.UnpicklingError(
                f'a tensor of shape {printable(self.shape)} does not fit its storage of '
                f'{self.storage_bytes} bytes'
            )


class WeightsFile:
    """
    A file of `torch.save` or `torch.jit.save`: a pickle that refers to the data of tensors.

    Parameters
    ----------
    archive
        Zip archive of the file.
    max_pickle_bytes
        Maximum size of the pickle.

    Attributes
    ----------
    content
        Content of the pickle; see `plain_pickle.read_calls`.

    Raises
    ------
    zipfile.BadZipFile, pickle.UnpicklingError
        If the archive or the pickle is damaged.
    """

    def __init__(self, archive: zipfile.ZipFile, max_pickle_bytes: int = MAX_PICKLE_BYTES) -> None:
        self._archive = archive
        roots = [name[: -len('data.pkl')] for name in archive.namelist() if _is_data(name)]
        if len(roots) != 1:
            raise zipfile.BadZipFile(f'it has {len(roots)} members data.pkl instead of 1')
        (self._root,) = roots
        if f'{self._root}byteorder' in archive.namelist():
            order = read_member(archive, f'{self._root}byteorder', MAX_BYTE_ORDER_BYTES)
            if order != b'little':
                raise zipfile.BadZipFile(f'its byte order is {printable(order)}, not little')
        pickled = read_member(archive, f'{self._root}data.pkl', max_pickle_bytes)
        self.content = read_calls(pickled, max_pickle_bytes)

    def tensors(self, state: Mapping[Any, Any]) -> dict[str, StoredTensor]:
        """
        Return the locations of the tensors in a part of the content, by name.

        Raises
        ------
        zipfile.BadZipFile, pickle.UnpicklingError
            If it contains something else, or data is missing.
        """
        return {str(name): self._stored(value) for name, value in state.items()}

    def read(self, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """
        Read tensors, on the CPU.

        Raises
        ------
        zipfile.BadZipFile
            If a storage is damaged.
        """
        storages: dict[str, Tensor] = {}
        state = {}
        for name, stored in tensors.items():
            if stored.storage not in storages:
                storages[stored.storage] = self._storage(stored)
            elements = storages[stored.storage].view(stored.dtype)
            state[name] = elements.as_strided(stored.shape, stored.stride, stored.offset)
        return state

    def _storage(self, stored: StoredTensor) -> Tensor:
        storage = torch.empty(stored.storage_bytes, dtype=torch.uint8)
        content, filled = storage.numpy().data, 0
        with self._archive.open(stored.storage) as member:
            # zipfile verifies the checksum when the end is reached.
            while chunk := member.read(CHUNK_BYTES):
                content[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
        if filled != len(content):
            raise zipfile.BadZipFile(f'{printable(stored.storage)} ends early')
        return storage

    def _stored(self, value: Any) -> StoredTensor:
        if isinstance(value, Call) and value.function == 'torch._utils._rebuild_parameter':
            value = value.arguments[0] if value.arguments else None
        if not isinstance(value, Call) or value.function != 'torch._utils._rebuild_tensor_v2':
            kind = value.function if isinstance(value, Call) else type(value).__name__
            raise pickle.UnpicklingError(
                f'it contains data other than named tensors: {printable(kind)}'
            )
        reference, offset, shape, stride, *_ = value.arguments
        if not isinstance(reference, PersistentId) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError('a tensor has no storage')
        _, kind, key, _, count = reference.value
        # Small pickles can contain tuples whose text would be extremely long.
        if not (isinstance(kind, Global) and isinstance(key, str) and type(count) is int):
            raise pickle.UnpicklingError('a tensor has an invalid reference to its storage')
        if kind.name not in DTYPES:
            raise pickle.UnpicklingError(f'a tensor is of the type {printable(kind.name)}')
        dtype = DTYPES[kind.name]
        member = f'{self._root}data/{key}'
        try:
            info = self._archive.getinfo(member)
        except KeyError:
            raise zipfile.BadZipFile(f'it has no member {printable(member)}') from None
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise zipfile.BadZipFile(f'{printable(member)} is compressed')
        if info.header_offset + info.file_size > self._archive.start_dir:
            raise zipfile.BadZipFile(f'{printable(member)} ends behind the end of the file')
        if count * dtype.itemsize != info.file_size:
            raise zipfile.BadZipFile(
                f'{printable(member)} has {info.file_size} bytes instead of {count} '
                f'elements of {dtype.itemsize}'
            )
        return StoredTensor(member, info.file_size, dtype, shape, offset, tuple(stride))


@contextmanager
def open_weights(
    file: pathlib.Path, max_pickle_bytes: int = MAX_PICKLE_BYTES
) -> Iterator[WeightsFile]:
    """
    Open a file of `torch.save` or `torch.jit.save`.

    Parameters
    ----------
    file
        The file.
    max_pickle_bytes
        See `WeightsFile`.

    Raises
    ------
    zipfile.BadZipFile, pickle.UnpicklingError
        See `WeightsFile`; also raised for files in the format before torch 1.6.
    OSError
        If it is not a readable regular file.
    """
    with open_regular(file) as opened:
        size_bytes = os.fstat(opened.fileno()).st_size
        if size_bytes > MAX_FILE_BYTES:
            raise zipfile.BadZipFile(
                f'it has {size_bytes} bytes, more than the limit of {MAX_FILE_BYTES}'
            )
        with open_zip(opened) as archive:
            yield WeightsFile(archive, max_pickle_bytes)


def _is_data(name: str) -> bool:
    return name.endswith('/data.pkl') and name.count('/') == 1


def state_items(state: Any) -> dict[Any, Any]:
    """
    Return the items of a recorded dict or OrderedDict.

    Raises
    ------
    pickle.UnpicklingError
        If it is something else.
    """
    if isinstance(state, Call) and state.function == 'collections.OrderedDict':
        return state.items
    if not isinstance(state, dict):
        raise pickle.UnpicklingError(f'it contains {type(state).__name__}, not named tensors')
    return state


def storage_bytes(tensors: Iterable[StoredTensor]) -> int:
    """Return the total size of the storages of tensors."""
    return sum({tensor.storage: tensor.storage_bytes for tensor in tensors}.values())
