"""YAML from files that anybody may have written: its expansion is limited before it is built."""

from __future__ import annotations

from typing import Any

import yaml

from metrabs_ros.foreign_text import printable

MAX_TEXT_CHARS = 4 * 2**20
MAX_VALUES = 300_000
"""Scalars, lists and mappings of a document with all its aliases expanded."""
MAX_DEPTH = 40
MAX_PLAIN_CHARS = 1000
"""Of a scalar without quotes: longer numbers take long to convert."""
_Loader: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class UnusableYaml(ValueError):  # noqa: N818
    """A text is no YAML, or exceeds a limit; the message says why."""


def load_yaml(text: str) -> Any:
    """
    Return the value of a text's first YAML document, None if there is none.

    Raises
    ------
    UnusableYaml
        If the text is invalid, too long, too deeply nested, or expands to too many values.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise UnusableYaml(f'it has {len(text)} characters; at most {MAX_TEXT_CHARS} are read')
    try:
        _check(text)
        return next(iter(yaml.load_all(text, _Loader)), None)
    except UnusableYaml:
        raise
    except yaml.YAMLError as error:
        raise UnusableYaml(f'it is no YAML ({_one_line(error)})') from error
    # What the construction of numbers, dates and keys raises.
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnusableYaml(f'it holds an invalid value ({_one_line(error)})') from error


def _one_line(error: Exception) -> str:
    return printable(' '.join(str(error)[:1000].split()), 200)


def _check(text: str) -> None:
    """Count the values of the first document as if all aliases were expanded."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.DocumentEndEvent):
            return
        if isinstance(event, yaml.AliasEvent):
            # An anchor that is not complete yet is not in there: a value that contains itself.
            if event.anchor not in sizes:
                raise UnusableYaml('it has an alias without a complete anchor')
            values += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            is_quoted = event.style not in (None, '') and event.tag is None
            if not is_quoted and len(event.value) > MAX_PLAIN_CHARS:
                raise UnusableYaml(
                    f'it has an unquoted value of {len(event.value)} characters; at most '
                    f'{MAX_PLAIN_CHARS} are read'
                )
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
            if len(opened) > MAX_DEPTH:
                raise UnusableYaml(f'it is nested more than {MAX_DEPTH} levels deep')
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        if values > MAX_VALUES:
            raise UnusableYaml(f'it expands to more than {MAX_VALUES} values')
