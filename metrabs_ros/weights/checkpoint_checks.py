"""Checks of the content of untrusted checkpoints, and the errors for what does not fit."""

from __future__ import annotations

import math
import pathlib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.store import WeightsError
from metrabs_ros.weights.weights_file import StoredTensor, storage_bytes

MAX_LISTED_NAMES = 3
MAX_REASON_CHARS = 200
MAX_JOINTS = 4096
MAX_EDGES = 4 * MAX_JOINTS
MAX_COLUMNS = 2
MAX_NAME_CHARS = 100
MAX_STORAGE_RATIO = 4
"""Maximum ratio of stored to required size of the weights; double precision needs 2."""

T = TypeVar('T')


def read_untrusted(file: pathlib.Path, reader: Callable[[pathlib.Path], T], expected: str) -> T:
    """
    Read a file of untrusted content.

    Parameters
    ----------
    file
        The file.
    reader
        Reads the file.
    expected
        Description of the expected content, for the message.

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


def as_names(names: Any) -> tuple[str, ...]:
    """
    Return names as text; they must be printable because messages and frame ids use them.

    Parameters
    ----------
    names
        A list, tuple or array.

    Raises
    ------
    ValueError
        If there are more than `MAX_JOINTS`, or a name is too long, not printable or not text.
    """
    # An array of text would need memory for the longest name in each element.
    listed = names.reshape(-1).tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(listed, list | tuple):
        raise ValueError(f'it has {type(listed).__name__} instead of names')
    if len(listed) > MAX_JOINTS:
        raise ValueError(f'it has {len(listed)} joints, more than {MAX_JOINTS}')
    texts = tuple(n.decode() if isinstance(n, bytes) else n for n in listed)
    for text in texts:
        is_name = isinstance(text, str) and text.isprintable()
        if not is_name or len(text) > MAX_NAME_CHARS:
            raise ValueError(f'it has the name {described(text)}')
    return texts


def as_indices(values: Any) -> NDArray[np.int64]:
    """
    Return whole numbers, or rows of at most `MAX_COLUMNS` of them, as an array.

    Parameters
    ----------
    values
        An array, list or tuple.

    Raises
    ------
    ValueError, OverflowError
        If it contains something else.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in 'iu' and values.size:
            raise ValueError(f'it has {values.dtype} of shape {values.shape} instead of indices')
        return values.astype(np.int64)
    # Lists may contain themselves, and arrays of text need memory for the longest one in each
    # element: therefore, they are checked before they become an array.
    if not isinstance(values, list | tuple) or len(values) > MAX_EDGES:
        raise ValueError(f'it has {described(values)} instead of indices')
    for row in values:
        numbers = row if isinstance(row, list | tuple | np.ndarray) else (row,)
        if len(numbers) > MAX_COLUMNS or not all(_is_whole(number) for number in numbers):
            raise ValueError(f'it has {described(row)} instead of indices')
    return np.array(values, np.int64)


def _is_whole(number: Any) -> bool:
    # Official files have numbers of Python and of NumPy in the same list.
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def as_edges(edges: Any, joints: int) -> tuple[tuple[int, int], ...]:
    """
    Return pairs of joints.

    Raises
    ------
    ValueError, OverflowError
        If they are not pairs of indices of joints.
    """
    array = as_indices(edges)
    if not array.size:
        return ()
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f'its edges have shape {array.shape}; they are not pairs')
    if len(array) > MAX_EDGES:
        raise ValueError(f'it has {len(array)} edges, more than {MAX_EDGES}')
    if not (array.min() >= 0 and array.max() < joints):
        raise ValueError(f'an edge refers to joint {array.max()} of {joints}')
    return tuple((int(a), int(b)) for a, b in array)


def described(value: Any) -> str:
    """Return the text of a value from a file, for messages; of containers only the type."""
    # A small file can contain a container whose text is extremely long.
    if isinstance(value, str | int | float | None):
        return printable(reprlib.repr(value))
    return f'a value of type {type(value).__name__}'


def check_tensors(
    file: pathlib.Path,
    stored: Mapping[str, StoredTensor],
    required: Mapping[str, Tensor],
    network: str,
) -> None:
    """
    Compare names, shapes and types with a network's parameters, before values are read.

    Parameters
    ----------
    file
        The file, for messages.
    stored
        The tensors in the file.
    required
        The parameters, for example on the meta device.
    network
        Description of the network, and what it is based on, for messages.

    Raises
    ------
    WeightsError
        If they differ, or the file is much larger than these parameters.
    """
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
            if stored[name].dtype.is_floating_point != required[name].is_floating_point()
        ],
    }
    problems = [f'{what} {listed(names)}' for what, names in wrong.items() if names]
    if problems:
        raise WeightsError(f'{shown(file)} does not fit {network}: it {"; it ".join(problems)}')
    required_bytes = sum(
        math.prod(value.shape) * value.element_size() for value in required.values()
    )
    stored_bytes = storage_bytes(stored.values())
    if stored_bytes > MAX_STORAGE_RATIO * required_bytes:
        raise WeightsError(
            f'{shown(file)} stores {stored_bytes} bytes; expected: {required_bytes}'
        )


def as_parameters(file: pathlib.Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Return the values of parameters in single precision.

    Raises
    ------
    WeightsError
        If some are not finite; the message contains the names and the file.
    """
    single = {
        name: value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }
    not_finite = [name for name, value in single.items() if not torch.isfinite(value).all()]
    if not_finite:
        raise WeightsError(f'{shown(file)} has values that are not finite in {listed(not_finite)}')
    return single


def listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of further names."""
    more = len(names) - MAX_LISTED_NAMES
    text = ', '.join(printable(name) for name in names[:MAX_LISTED_NAMES])
    return f'{text} and {more} more' if more > 0 else text
