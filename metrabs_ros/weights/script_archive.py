"""
The modules in untrusted files of `torch.jit.save`, as recorded by `weights_file`.

Neither the code nor the constants in such files are read.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.weights.plain_pickle import Call

MAX_PICKLE_BYTES = 8 << 20
"""Larger than for state dicts: the pickle also contains the attributes of each layer, of a person
detector and of body models, with lists of their triangles."""
MAX_VISITED = 200_000
MAX_DEPTH = 16
_REBUILD = 'torch._utils._rebuild_tensor_v2'
_WRAPPERS = 'torch.jit._pickle.'
"""Functions that mark lists and dictionaries with their types."""


def attributes(module: Any) -> Mapping[Any, Any]:
    """
    Return the attributes of a module, which may be wrapped in type annotations; see `unwrapped`.

    Raises
    ------
    pickle.UnpicklingError
        If it is not a module.
    """
    if not isinstance(module, Call) or not isinstance(module.state, dict):
        kind = module.function if isinstance(module, Call) else type(module).__name__
        raise pickle.UnpicklingError(f'it has {printable(kind)} instead of a module')
    return module.state


def unwrapped(value: Any) -> Any:
    """Return a value without the call that marks its type."""
    while isinstance(value, Call) and value.function.startswith(_WRAPPERS) and value.arguments:
        value = value.arguments[0]
    return value


def module_tensors(module: Any) -> dict[str, Any]:
    """
    Return the recorded tensors of a module and its submodules, by names as in a state dict.

    Raises
    ------
    pickle.UnpicklingError
        If it is not a module, or has too many or too deeply nested attributes.
    """
    tensors: dict[str, Any] = {}
    pending = [('', attributes(module), 1)]
    visited = 0
    while pending:
        prefix, values, depth = pending.pop()
        # The same module may occur in several places.
        visited += len(values)
        if visited > MAX_VISITED or depth > MAX_DEPTH:
            raise pickle.UnpicklingError(
                f'its modules have more than {MAX_VISITED} attributes or {MAX_DEPTH} levels'
            )
        for name, value in values.items():
            if not isinstance(value, Call):
                continue
            if value.function == _REBUILD:
                tensors[f'{prefix}{name}'] = value
            elif isinstance(value.state, dict):
                pending.append((f'{prefix}{name}.', value.state, depth + 1))
    return tensors
