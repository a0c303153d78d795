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
    """Return the parameters that are given, with their types."""
    return {
        name: is_true(given[name]) if as_type is bool else as_type(given[name])
        for name, (as_type, _) in parameters.items()
        if given[name]
    }


def is_true(value: str) -> bool:
    """Return whether the value of an argument is true, in any case."""
    return value.lower() == 'true'


def camera_names(value: str) -> list[str]:
    """Return comma-separated namespaces without slashes and spaces around them."""
    return [name.strip('/ ') for name in value.split(',') if name.strip('/ ')]
