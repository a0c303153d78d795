"""Reading .npy and .npz files of unknown origin: sizes are checked before memory is allocated."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import open_regular, read_limited
from metrabs_ros.weights.zip_archive import open_zip, read_member

MAX_ARRAY_BYTES = 64 << 20
MAX_HEADER_BYTES = 10_000
MAX_DIMENSIONS = 8

_MAGIC = b'\x93NUMPY'
_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[<>|=]?(?:[fiub][1248]|[US]\d{1,6}))', "
    r"'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\),? ?\} *\n?"
)


def read_npy(file: pathlib.Path) -> NDArray[Any]:
    """
    Read an array of numbers or strings from a .npy file.

    Raises
    ------
    ValueError
        If it is anything else, or larger than `MAX_ARRAY_BYTES`.
    OSError
        If it cannot be read or is no regular file.
    """
    return array_from_npy(read_limited(file, MAX_ARRAY_BYTES))


def read_npz(file: pathlib.Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """
    Read arrays from a .npz file, in the order of their names; other members are not unpacked.

    Raises
    ------
    zipfile.BadZipFile, ValueError
        If one is missing, is no array of numbers or strings, or is too large.
    OSError
        If the file cannot be read or is no regular file.
    """
    with open_regular(file) as opened, open_zip(opened) as archive:
        return [
            array_from_npy(read_member(archive, f'{name}.npy', MAX_ARRAY_BYTES)) for name in names
        ]


def array_from_npy(content: bytes) -> NDArray[Any]:
    """
    Return the array of numbers or strings that a .npy file's content describes.

    The header is matched, not evaluated: numpy writes it in one form only.

    Raises
    ------
    ValueError
        If it is anything else, or the header and the number of bytes disagree.
    """
    if content[:6] != _MAGIC or len(content) < 12:
        raise ValueError('it does not start as a .npy file')
    length_bytes = 2 if content[6] == 1 else 4
    header_start = 8 + length_bytes
    header_bytes = int.from_bytes(content[8:header_start], 'little')
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(f'its header has {header_bytes} bytes')
    data_start = header_start + header_bytes
    header = content[header_start:data_start].decode('latin1')
    found = _HEADER.fullmatch(header)
    if found is None:
        raise ValueError(
            'its header describes no array of numbers or strings: ' + printable(header.strip())
        )
    shape = tuple(int(size) for size in found['shape'].split(',') if size.strip())
    dtype = np.dtype(found['dtype'])
    return array_from_bytes(content[data_start:], dtype, shape, found['fortran'] == 'True')


def array_from_bytes(
    data: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
) -> NDArray[Any]:
    """
    Return an array of a declared type and shape.

    Raises
    ------
    ValueError
        If the number of bytes is not what type and shape require.
    """
    required_bytes = math.prod(shape) * dtype.itemsize
    if len(shape) > MAX_DIMENSIONS or required_bytes != len(data):
        raise ValueError(
            f'it declares {dtype} of shape {printable(shape)}, {printable(required_bytes)} bytes, '
            f'but holds {len(data)} bytes'
        )
    return np.ndarray(shape, dtype, bytes(data), order='F' if fortran else 'C').copy()
