"""Types of NumPy arrays, the base class of dataclasses of arrays, and functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
ImageArray: TypeAlias = NDArray[np.uint8]

Struct = TypeVar('Struct', bound='StructOfArrays')


class StructOfArrays:
    """
    Base class of dataclasses whose arrays have one row per item, such as a person or a box.

    Fields that are not arrays have one value for all items.
    """

    def select(self: Struct, which: NDArray[Any] | slice) -> Struct:
        """Return the items selected by an index array, mask or slice."""
        return type(self)(
            **{
                name: value[which] if isinstance(value, np.ndarray) else value
                for name, value in vars(self).items()
            }
        )

    @classmethod
    def concatenate(cls: type[Struct], parts: Sequence[Struct]) -> Struct:
        """Concatenate one or more structs; fields that are not arrays are those of the first."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                if isinstance(value, np.ndarray)
                else value
                for name, value in vars(parts[0]).items()
            }
        )


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return the logistic function of logits of any magnitude."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def masked_median(values: FloatArray, known: BoolArray) -> FloatArray:
    """
    Return the medians of the known values along the last axis; 0 where there are none.

    Of an even number of values it is the lower one in the middle.  `numpy.nanmedian` takes many
    times longer for small arrays.

    Parameters
    ----------
    values
        [..., N], N at least 1.
    known
        [..., N]; the values may have more dimensions in front.
    """
    ordered = np.sort(np.where(known, values, np.inf), axis=-1)
    counts = known.sum(axis=-1)
    index = np.broadcast_to(np.maximum(counts - 1, 0) // 2, ordered.shape[:-1])
    middle = np.take_along_axis(ordered, index[..., None], axis=-1)
    return np.where(counts > 0, middle[..., 0], 0)


def norms(vectors: FloatArray) -> FloatArray:
    """
    Return the lengths [...] of vectors [..., D].

    `numpy.linalg.norm` takes several times longer for small arrays.
    """
    lengths: FloatArray = np.sqrt((vectors * vectors).sum(axis=-1))
    return lengths
