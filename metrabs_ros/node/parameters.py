"""Parameters as fields of a dataclass: declaration, validation and changes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name

from metrabs_ros.foreign_text import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_REASON_CHARS = 300
"""Maximum length of a value or of a reason in an error message, in characters."""
Values = TypeVar('Values', bound='DataclassInstance')
TYPE_NAMES = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a number',
    str: 'a string',
    list: 'a list of strings',
}
NAMESPACE = r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*'


def setting(
    default: Any,
    description: str,
    *,
    fixed: bool = False,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    low_unless_zero: float | None = None,
) -> Any:
    """
    Define a parameter.

    Parameters
    ----------
    default
        Default value; its type is the type of the parameter.
    description
        Description of the parameter.
    fixed
        Whether the parameter is read-only after the start.
    low, high
        Minimum and maximum of a number.
    choices
        Allowed values of a string.
    low_unless_zero
        Minimum of a number for which 0 means that it is unknown.
    """
    about = {
        'description': description,
        'fixed': fixed,
        'low': low,
        'high': high,
        'choices': choices,
        'low_unless_zero': low_unless_zero,
    }
    return dataclasses.field(default=default, metadata=about)


def declare(node: Node, kind: type[Values]) -> Values:
    """
    Declare all parameters and return their values.

    Parameters
    ----------
    node
        Node that gets the parameters.
    kind
        Dataclass whose fields are defined by `setting`.

    Raises
    ------
    ValueError
        If a given value is invalid.
    """
    values = {}
    for field in dataclasses.fields(kind):
        try:
            values[field.name] = _validate(field, _declare(node, field))
        except Exception as error:
            raise ValueError(f'invalid parameter: {printable(error, MAX_REASON_CHARS)}') from error
    return kind(**values)


def _declare(node: Node, field: dataclasses.Field[Any]) -> Any:
    """Declare a parameter and return its value."""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    try:
        return node.declare_parameter(field.name, default, _descriptor(field)).value
    except InvalidParameterTypeException as error:
        given = _given_value(node, field.name)
        value = _to_declared_type(field, given)
        if value is given:
            raise ValueError(
                f'{field.name} is {_quoted(given)}; it must be {TYPE_NAMES[type(default)]}, for '
                f'example {default!r}'
            ) from error
        parameter = node.declare_parameter(
            field.name, value, _descriptor(field), ignore_override=True
        )
        return parameter.value


def _given_value(node: Node, name: str) -> Any:
    """Return the value of any type that was given for a parameter at startup."""
    any_type = ParameterDescriptor(dynamic_typing=True)
    value = node.declare_parameter(name, None, any_type).value
    node.undeclare_parameter(name)
    return value


def convert_to_declared_types(
    kind: type[Values], parameters: Sequence[Parameter]
) -> list[Parameter]:
    """
    Convert parameter values to the declared types where this is possible without loss.

    Integers are converted to floating-point numbers (``ros2 param set`` parses 2 as an integer),
    and booleans to the strings true and false.  Other values are returned unchanged.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return [
        Parameter(p.name, value=_to_declared_type(fields[p.name], p.value))
        if p.name in fields and p.type_ in (Parameter.Type.INTEGER, Parameter.Type.BOOL)
        else p
        for p in parameters
    ]


def _to_declared_type(field: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a value to the declared type if this is possible without loss."""
    if isinstance(field.default, float) and type(value) is int:
        return float(value)
    # YAML parses the words true and false as booleans.
    if isinstance(value, bool) and str(value).lower() in field.metadata['choices']:
        return str(value).lower()
    return value


def with_changes(values: Values, parameters: list[Parameter]) -> Values:
    """
    Return the values with some parameters changed; unknown parameters are ignored.

    Raises
    ------
    ValueError
        If a value is invalid.
    """
    fields = {field.name: field for field in dataclasses.fields(values)}
    # rclpy treats the empty name as a declared parameter.
    if not all(p.name for p in parameters):
        raise ValueError('a parameter has an empty name; give each parameter a name')
    ours = {p.name: p.value for p in parameters if p.name in fields}
    ours = {name: _validate(fields[name], value) for name, value in ours.items()}
    return dataclasses.replace(values, **ours)


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    about = field.metadata
    descriptor = ParameterDescriptor(description=about['description'], read_only=about['fixed'])
    if about['choices']:
        choices = ', '.join(choice or "''" for choice in about['choices'])
        descriptor.additional_constraints = f'one of {choices}'
    if about['low'] is not None:
        bounds = {'from_value': about['low'], 'to_value': about['high']}
        if isinstance(field.default, int):
            descriptor.integer_range = [IntegerRange(step=1, **bounds)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(step=0.0, **bounds)]
    return descriptor


def _validate(field: dataclasses.Field[Any], value: Any) -> Any:
    value = _to_declared_type(field, value)
    choices = field.metadata['choices']
    if choices and value not in choices:
        raise ValueError(f'{field.name} is {_quoted(value)}; it must be one of {choices}')
    if isinstance(field.default, tuple):
        value = validate_camera_names(field.name, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{field.name} is {value}; it must be a finite number')
    low = field.metadata['low_unless_zero']
    if low is not None and value != 0 and value < low:
        raise ValueError(f'{field.name} is {value:g}; it must be 0 or at least {low:g}')
    return value


def validate_camera_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    """
    Return the namespaces of cameras; `['']` is one camera without a namespace.

    Parameters
    ----------
    parameter
        What the names are given by, for error messages.
    names
        The namespaces.

    Raises
    ------
    ValueError
        If a name is not a namespace, or is given twice.
    """
    if len(set(names)) != len(names) or not names:
        raise ValueError(
            f'{parameter} is {_quoted(list(names))}; it must name each camera exactly once'
        )
    for name in names:
        if list(names) != [''] and not re.fullmatch(NAMESPACE, name):
            raise ValueError(
                f'{parameter} has {_quoted(name)}; a namespace consists of letters, digits, _ and '
                'single /, does not end with /, and no part starts with a digit'
            )
    return tuple(names)


def check_topics(node: Node, cameras: Sequence[str], longest_topic: str) -> None:
    """
    Check that the topic names of all cameras are valid and different.

    Parameters
    ----------
    node
        Node that subscribes to them.
    cameras
        Namespaces of the cameras.
    longest_topic
        Longest topic name within the namespace of a camera.

    Raises
    ------
    ValueError
        If topics of two cameras have the same name, or if a name is too long.
    """
    topics = [f'{name}/{longest_topic}'.removeprefix('' if name else '/') for name in cameras]
    names = [node.resolve_topic_name(topic, only_expand=True) for topic in topics]
    if len(set(names)) != len(names):
        raise ValueError(
            f'invalid parameter: cameras is {_quoted(list(cameras))}, which names a camera twice '
            f'in the namespace {node.get_namespace()}'
        )
    for name in names:
        try:
            validate_full_topic_name(name)
        except InvalidTopicNameException as error:
            reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
            raise ValueError(f'invalid parameter: cameras: {reason}') from error


def _quoted(value: Any) -> str:
    return printable(repr(value), MAX_REASON_CHARS)
