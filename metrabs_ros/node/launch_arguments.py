"""Arguments of the launch files: their declaration, and their values as parameters of a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

Arguments = Mapping[str, tuple[Any, str]]
"""Default value and description of each argument; None: there is no default value."""
Parameters = Mapping[str, tuple[type, str]]
"""Type and description of each argument that overrides a parameter of params_file."""


TRUE, FALSE = ('true', '1'), ('false', '0')
TYPE_NAMES = {bool: 'true or false', int: 'an integer', float: 'a number'}


def declared(arguments: Arguments, parameters: Parameters | None = None) -> list[Any]:
    """Return the actions that declare arguments."""
    return [
        *(
            DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in arguments.items()
        ),
        *(
            DeclareLaunchArgument(
                name,
                default_value='',
                description=f'{description} Default: value in params_file.',
            )
            for name, (_, description) in (parameters or {}).items()
        ),
    ]


def given_values(context: Any, names: Iterable[str]) -> dict[str, str]:
    """Return the values of arguments in a launch context."""
    return {name: LaunchConfiguration(name).perform(context) for name in names}


def given_parameters(given: Mapping[str, str], parameters: Parameters) -> dict[str, Any]:
    """
    Return the parameters that are given, with their types.

    Raises
    ------
    ValueError
        If a value is not of the type of its parameter.
    """
    return {
        name: is_true(given, name) if as_type is bool else _converted(given, name, as_type)
        for name, (as_type, _) in parameters.items()
        if given[name]
    }


def _converted(given: Mapping[str, str], name: str, as_type: type) -> Any:
    try:
        return as_type(given[name])
    except ValueError as error:
        raise ValueError(f"{name} is '{given[name]}'; it must be {TYPE_NAMES[as_type]}") from error


def is_true(given: Mapping[str, str], name: str) -> bool:
    """
    Return whether an argument is true, in any case; as in conditions of launch, 1 is true.

    Raises
    ------
    ValueError
        If it is neither true nor false.
    """
    value = given[name].strip().lower()
    if value not in TRUE + FALSE:
        raise ValueError(f"{name} is '{given[name]}'; it must be {TYPE_NAMES[bool]}")
    return value in TRUE


def camera_names(value: str) -> list[str]:
    """Return comma-separated namespaces without slashes and spaces around them."""
    return [name.strip('/ ') for name in value.split(',') if name.strip('/ ')]
