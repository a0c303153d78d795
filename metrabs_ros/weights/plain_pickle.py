"""
Read untrusted pickles.

A pickle is a program for a stack machine, which `pickle.Unpickler` executes.  Even with a
restricted `find_class`, a few bytes can allocate gigabytes, overflow the C stack or corrupt the
internal state of NumPy.  This module implements the stack machine without these risks.  It creates
only plain containers and records calls as `Call` objects instead of executing them.  Time and
memory are proportional to the size of the pickle.
"""

from __future__ import annotations

import collections
import dataclasses
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from metrabs_ros.foreign_text import printable
from metrabs_ros.weights.array_file import MAX_DIMENSIONS, array_from_bytes

MAX_PICKLE_BYTES = 2 << 20
MAX_INSTRUCTIONS = 2 << 20
"""Limits time and memory for pickles that may be larger than `MAX_PICKLE_BYTES`: an instruction of
one byte can create an object of a hundred bytes."""
MAX_INTEGER_BITS = 64
MAX_ITEMS = 500_000
MAX_NESTING_DEPTH = 32
MAX_OPEN_MARKS = 1000

_MODULE_ALIASES = {
    # NumPy 2 and Python 3 have renamed modules; pickles contain the old or the new names.
    '__builtin__': 'builtins',
    'numpy.core.multiarray': 'numpy._core.multiarray',
    'numpy.core.numeric': 'numpy._core.numeric',
}
_SCALARS = (str, bytes, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True)
class Global:
    """The full name of an object that a pickle would import."""

    name: str


@dataclasses.dataclass(frozen=True)
class PersistentId:
    """A reference to an object outside of the pickle, for example the storage of a tensor."""

    value: Any


@dataclasses.dataclass(eq=False)
class Call:
    """
    A call that a pickle would execute.

    Parameters
    ----------
    function
        Full name of the function.
    arguments
        Positional arguments.
    state
        Argument of ``__setstate__`` of the result; None if it would not be called.
    items
        Items that would be set in the result.
    """

    function: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)


def read_calls(content: bytes, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """
    Read the content of a pickle, with `Call`, `Global` and `PersistentId` instead of objects.

    Parameters
    ----------
    content
        The pickle.
    max_bytes
        Its maximum size.

    Raises
    ------
    pickle.UnpicklingError
        If the pickle is damaged, too large, or uses instructions that plain data does not need.
    """
    if len(content) > max_bytes:
        raise pickle.UnpicklingError(
            f'it has {len(content)} bytes, more than the limit of {max_bytes}'
        )
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= MAX_INSTRUCTIONS:
                raise pickle.UnpicklingError(f'it has more than {MAX_INSTRUCTIONS} instructions')
            if opcode.name == 'STOP':
                return machine.pop()
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise pickle.UnpicklingError(f'it is damaged: {printable(error, 200)}') from error
    raise pickle.UnpicklingError('the data is truncated')


def read_plain(content: bytes) -> Any:
    """
    Read a pickle of plain containers, numbers, text and NumPy arrays.

    Raises
    ------
    pickle.UnpicklingError
        If the pickle contains other objects, or is too large or too deeply nested.
    """
    return _Resolver().resolve(read_calls(content), 0)


class _Machine:
    """The stack machine of the pickle format, without the execution of calls."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Remove and return the top of the stack."""
        return self._stack.pop()

    def run(self, opcode: str, argument: Any) -> None:
        """
        Execute an instruction.

        Raises
        ------
        pickle.UnpicklingError
            If plain data does not need this instruction.
        """
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _LITERALS:
            if type(argument) is int and argument.bit_length() > MAX_INTEGER_BITS:
                raise pickle.UnpicklingError(
                    f'it contains an integer of {argument.bit_length()} bits'
                )
            self._stack.append(argument)
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _NO_EFFECT:
            raise pickle.UnpicklingError(f'it contains the instruction {opcode}')

    def _to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        if len(self._marks) >= MAX_OPEN_MARKS:
            raise pickle.UnpicklingError(f'it has more than {MAX_OPEN_MARKS} open containers')
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _drop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _get(self, index: Any) -> None:
        if index not in self._memo:
            raise pickle.UnpicklingError(f'it refers to the missing value {index}')
        self._stack.append(self._memo[index])

    def _tuple(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError('the stack is too short')
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _list(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError(f'it appends to {type(target).__name__}')
        target.extend(items)

    def _dict(self, _: Any) -> None:
        pairs = self._to_mark()
        self._stack.append({})
        self._set_items(pairs)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_all_items(self, _: Any) -> None:
        self._set_items(self._to_mark())

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict) or len(pairs) % 2:
            raise TypeError(f'it sets {len(pairs)} items of {type(target).__name__}')
        # Hashing a deeply nested tuple overflows the C stack.
        if not all(isinstance(key, _SCALARS) for key in pairs[::2]):
            raise TypeError('it has a dictionary key that is neither text nor a number')
        items.update(zip(pairs[::2], pairs[1::2]))

    def _empty_set(self, _: Any) -> None:
        self._stack.append(Call('builtins.set', ([],)))

    def _add_items(self, _: Any) -> None:
        items, target = self._to_mark(), self._stack[-1]
        if not isinstance(target, Call) or target.function != 'builtins.set':
            raise TypeError(f'it adds items to {type(target).__name__}')
        (content,) = target.arguments
        content.extend(items)

    def _frozen_set(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(Call('builtins.frozenset', (items,)))

    def _global(self, full_name: Any) -> None:
        # `pickletools` returns both names in one text.
        module, name = full_name.split(' ', 1)
        self._stack.append(_global_named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError('it imports an object without a name')
        self._stack.append(_global_named(module, name))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError(f'it calls {type(function).__name__}')
        self._stack.append(Call(function.name, arguments))

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Call):
            raise TypeError(f'it sets the state of {type(target).__name__}')
        target.state = state

    def _persistent_id(self, _: Any) -> None:
        self._stack.append(PersistentId(self._stack.pop()))


_NO_EFFECT = frozenset({'PROTO', 'FRAME'})
_CONSTANTS: dict[str, Callable[[], Any]] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
}
_LITERALS = frozenset(
    {
        *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
        *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
        *('UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'BYTEARRAY8'),
    }
)
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    'MARK': _Machine._mark,
    'POP': _Machine._drop,
    'POP_MARK': _Machine._pop_mark,
    'DUP': _Machine._duplicate,
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _Machine._put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Machine._get),
    'TUPLE': _Machine._tuple,
    'TUPLE1': lambda machine, _: machine._tuple_of(1),
    'TUPLE2': lambda machine, _: machine._tuple_of(2),
    'TUPLE3': lambda machine, _: machine._tuple_of(3),
    'LIST': _Machine._list,
    'APPEND': _Machine._append,
    'APPENDS': _Machine._appends,
    'DICT': _Machine._dict,
    'SETITEM': _Machine._set_item,
    'SETITEMS': _Machine._set_all_items,
    'EMPTY_SET': _Machine._empty_set,
    'ADDITEMS': _Machine._add_items,
    'FROZENSET': _Machine._frozen_set,
    'GLOBAL': _Machine._global,
    'STACK_GLOBAL': _Machine._stack_global,
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), _Machine._call),
    'BUILD': _Machine._build,
    'BINPERSID': _Machine._persistent_id,
}


def _global_named(module: str, name: str) -> Global:
    return Global(f'{_MODULE_ALIASES.get(module, module)}.{name}')


class _Resolver:
    """Evaluates recorded calls of plain containers and NumPy; all others are rejected."""

    def __init__(self) -> None:
        self._remaining_items = MAX_ITEMS

    def resolve(self, value: Any, depth: int) -> Any:
        """
        Evaluate the calls in a value and all values that it contains.

        Each reference to a value counts as a value, so that a small pickle cannot expand to a
        large value.
        """
        self._remaining_items -= 1
        if self._remaining_items < 0:
            raise pickle.UnpicklingError(f'it contains more than {MAX_ITEMS} values')
        if depth > MAX_NESTING_DEPTH:
            raise pickle.UnpicklingError(f'it has more than {MAX_NESTING_DEPTH} levels of nesting')
        if isinstance(value, list | tuple):
            return type(value)(self.resolve(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Call):
            return self._resolve_call(value, depth)
        if isinstance(value, Global):
            raise _unsupported(value.name)
        if isinstance(value, PersistentId):
            raise pickle.UnpicklingError('it refers to an object outside of the pickle')
        return value

    def _resolve_call(self, call: Call, depth: int) -> Any:
        if call.function == 'collections.OrderedDict' and not call.arguments:
            return collections.OrderedDict(self.resolve(call.items, depth))
        if call.function == 'numpy._core.multiarray._reconstruct':
            return self._array_from_state(call.state, depth)
        arguments = call.arguments
        if call.function == 'numpy.dtype':
            return _dtype(call)
        arguments = self.resolve(arguments, depth)
        if call.function in ('builtins.set', 'builtins.frozenset'):
            return _set_of(call.function, *arguments)
        if call.function == 'builtins.bytes' and not arguments:
            return b''
        if call.function == '_codecs.encode':
            return _latin1_bytes(*arguments)
        if call.function == 'numpy._core.multiarray.scalar':
            dtype, data = arguments
            return array_from_bytes(data, _required_dtype(dtype), (), False)[()]
        if call.function == 'numpy._core.numeric._frombuffer':
            data, dtype, shape, order = arguments
            return array_from_bytes(data, _required_dtype(dtype), _shape(shape), order == 'F')
        raise _unsupported(call.function)

    def _array_from_state(self, state: Any, depth: int) -> Any:
        """Create an array from its state (version, shape, dtype, Fortran order, data)."""
        _, shape, dtype, fortran, data = self.resolve(state, depth)
        shape = _shape(shape)
        if dtype == np.dtype(object) and isinstance(data, list):
            if len(shape) > MAX_DIMENSIONS:
                raise ValueError(f'an array has {len(shape)} dimensions')
            if int(np.prod(shape, dtype=object)) != len(data):
                raise ValueError(f'an array of shape {printable(shape)} has {len(data)} objects')
            array = np.empty(len(data), object)
            array[:] = data
            return array.reshape(shape, order='F' if fortran else 'C')
        return array_from_bytes(data, _required_dtype(dtype), shape, bool(fortran))


_DTYPE = re.compile(r'(?:[fiub][1248]|[SU]\d{1,6}|O8|O)')


def _dtype(call: Call) -> np.dtype[Any]:
    name, *_ = call.arguments
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        # The text of nested tuples would be extremely long.
        shown = name if isinstance(name, str) else type(name).__name__
        raise pickle.UnpicklingError(f'it contains an array of the type {printable(shown)}')
    byte_order = '='
    if call.state is not None:
        _, byte_order, base, field_names, fields, *_ = call.state
        if byte_order not in ('<', '>', '|', '=') or any((base, field_names, fields)):
            raise pickle.UnpicklingError('it contains an array of records')
    return np.dtype(byte_order + name)


def _required_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise TypeError(f'it has {type(dtype).__name__} instead of an array of numbers or text')
    return dtype


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError(f'it has an array shape of type {printable(type(shape).__name__)}')
    return shape


def _set_of(kind: str, items: Any = ()) -> set[Any] | frozenset[Any]:
    if not isinstance(items, list | tuple) or not all(isinstance(i, _SCALARS) for i in items):
        raise TypeError('it contains a set with items that are neither text nor numbers')
    return set(items) if kind == 'builtins.set' else frozenset(items)


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise TypeError(f'it uses the encoding {printable(encoding)}; expected: latin1')
    return text.encode('latin1')


def _unsupported(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f'it calls {printable(name)}, which is neither a plain container nor part of NumPy'
    )
