"""Read untrusted .npy and .npz files; sizes are checked before memory is allocated."""

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
        If the file contains other data, or is larger than `MAX_ARRAY_BYTES`.
    OSError
        If it is not a readable regular file.
    """
    return array_from_npy(read_limited(file, MAX_ARRAY_BYTES))


def read_npz(file: pathlib.Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """
    Read arrays from a .npz file, in the order of `names`; other members are not unpacked.

    Raises
    ------
    zipfile.BadZipFile, ValueError
        If an array is missing, too large, or not of numbers or strings.
    OSError
        If it is not a readable regular file.
    """
    with open_regular(file) as opened, open_zip(opened) as archive:
        return [
            array_from_npy(read_member(archive, f'{name}.npy', MAX_ARRAY_BYTES)) for name in names
        ]


def array_from_npy(content: bytes) -> NDArray[Any]:
    """
    Parse the content of a .npy file with numbers or strings.

    The header is matched with a regular expression and not evaluated as Python, because NumPy
    writes it in one form only.

    Raises
    ------
    ValueError
        If the content has another type, or its size differs from that in the header.
    """
    if content[:6] != _MAGIC or len(content) < 12:
        raise ValueError('it does not start with the header of a .npy file')
    length_bytes = 2 if content[6] == 1 else 4
    header_start = 8 + length_bytes
    header_bytes = int.from_bytes(content[8:header_start], 'little')
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(
            f'its header has {header_bytes} bytes, more than the limit of {MAX_HEADER_BYTES}'
        )
    data_start = header_start + header_bytes
    header = content[header_start:data_start].decode('latin1')
    match = _HEADER.fullmatch(header)
    if match is None:
        raise ValueError(
            'its header does not describe an array of numbers or strings: '
            + printable(header.strip())
        )
    shape = tuple(int(size) for size in match['shape'].split(',') if size.strip())
    dtype = np.dtype(match['dtype'])
    return array_from_bytes(content[data_start:], dtype, shape, match['fortran'] == 'True')


def array_from_bytes(
    data: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
) -> NDArray[Any]:
    """
    Create an array of a declared type and shape from its bytes.

    Parameters
    ----------
    data
        The elements.
    dtype, shape
        Type and shape of the array.
    fortran
        Whether the elements are in Fortran order.

    Raises
    ------
    ValueError
        If the number of bytes does not match the type and shape.
    """
    # The product of very many sizes takes long.
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f'it declares {len(shape)} dimensions, more than {MAX_DIMENSIONS}')
    required_bytes = math.prod(shape) * dtype.itemsize
    if required_bytes != len(data):
        raise ValueError(
            f'it declares {dtype} of shape {printable(shape)}, {printable(required_bytes)} bytes, '
            f'but contains {len(data)} bytes'
        )
    return np.ndarray(shape, dtype, bytes(data), order='F' if fortran else 'C').copy()
