"""Type aliases of NumPy arrays, and functions of their elements."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
ImageArray: TypeAlias = NDArray[np.uint8]


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return the logistic function of logits of any magnitude."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
