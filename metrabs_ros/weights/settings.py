"""Settings of checkpoints: untrusted values, checked when they are used."""

from __future__ import annotations

import dataclasses
import pathlib
import reprlib
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import yaml

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import read_limited, shown
from metrabs_ros.weights.store import WeightsError

MAX_CONFIG_BYTES = 64 << 10

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Settings:
    """
    Settings of a checkpoint.

    Parameters
    ----------
    file
        The file that contains them, for messages.
    values
        Settings by name, of any type.
    """

    file: pathlib.Path
    values: Mapping[str, Any]

    def value(self, name: str, kind: type[T]) -> T:
        """
        Return a setting of a type; whole numbers may replace floating-point numbers.

        Raises
        ------
        WeightsError
            If it is missing or of another type.
        """
        if name not in self.values:
            raise WeightsError(f'{shown(self.file)} lacks {name} of type {kind.__name__}')
        value = self.values[name]
        # YAML reads whole millimetres as integers.
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise self.error(name, kind.__name__)
        return value

    def number(self, name: str, kind: type[T], minimum: float, maximum: float) -> T:
        """
        Return a number in a range.

        Raises
        ------
        WeightsError
            If it is missing, of another type, or outside of the range.
        """
        value: Any = self.value(name, kind)
        if not minimum <= value <= maximum:
            raise self.error(name, f'at least {minimum:g} and at most {maximum:g}')
        return kind(value)  # type: ignore[call-arg]

    def error(self, name: str, expected: str) -> WeightsError:
        """Return the error for a setting that is not as expected."""
        # With YAML aliases a short text can stand for a value that is extremely long when printed.
        value = self.values.get(name)
        try:
            text = printable(reprlib.repr(value))
        except ValueError:
            # An integer with more digits than Python converts.
            text = f'a value of type {type(value).__name__}'
        return WeightsError(f'{shown(self.file)} has {name}: {text}; expected: {expected}')


class _SettingsLoader(yaml.SafeLoader):
    """YAML loader without merge keys, by which a short file can expand to any size."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == 'tag:yaml.org,2002:merge' for key, _ in node.value):
            raise yaml.YAMLError('it has a merge key <<')

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return super().construct_mapping(node, deep)


def read_settings(file: pathlib.Path) -> dict[str, Any]:
    """
    Read settings from a YAML file.

    Raises
    ------
    yaml.YAMLError, ValueError, RecursionError
        If it contains something else, or is larger than `MAX_CONFIG_BYTES`.
    OSError
        If it is not a readable regular file.
    """
    text = read_limited(file, MAX_CONFIG_BYTES).decode('utf-8')
    settings = yaml.load(text, _SettingsLoader)
    if not isinstance(settings, dict):
        raise ValueError(f'contains {type(settings).__name__}')
    return settings
