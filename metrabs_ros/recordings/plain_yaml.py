"""Load untrusted YAML: the expanded size is checked before the value is constructed."""

from __future__ import annotations

from typing import Any

import yaml

from metrabs_ros.foreign_text import printable

MAX_TEXT_CHARS = 4 * 2**20
MAX_VALUES = 300_000
"""Maximum number of scalars, lists and mappings after all aliases are expanded."""
MAX_DEPTH = 40
MAX_PLAIN_CHARS = 1000
"""Maximum length of a scalar without quotes; conversion of longer numbers is slow."""
_Loader: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class UnusableYaml(ValueError):  # noqa: N818
    """A text is not valid YAML, or exceeds a limit; the message states the reason."""


def load_yaml(text: str) -> Any:
    """
    Return the value of the first YAML document in a text; None if the text has no document.

    Raises
    ------
    UnusableYaml
        If the text is invalid, too long, too deeply nested, or expands to too many values.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise UnusableYaml(
            f'the text has {len(text)} characters; at most {MAX_TEXT_CHARS} are read'
        )
    try:
        _check(text)
        return next(iter(yaml.load_all(text, _Loader)), None)
    except UnusableYaml:
        raise
    except yaml.YAMLError as error:
        raise UnusableYaml(f'the text is not valid YAML ({_one_line(error)})') from error
    # Invalid numbers, dates and keys raise these exceptions.
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnusableYaml(f'the text has an invalid value ({_one_line(error)})') from error


def _one_line(error: Exception) -> str:
    return printable(' '.join(str(error)[:1000].split()), 200)


def _check(text: str) -> None:
    """Raise an `UnusableYaml` if the first document exceeds a limit with aliases expanded."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.DocumentEndEvent):
            return
        if isinstance(event, yaml.AliasEvent):
            # Inside its own value, an anchor is not in `sizes`: the value would contain itself.
            if event.anchor not in sizes:
                raise UnusableYaml('the text has an alias without a complete anchor')
            values += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            is_quoted = event.style not in (None, '') and event.tag is None
            if not is_quoted and len(event.value) > MAX_PLAIN_CHARS:
                raise UnusableYaml(
                    f'the text has an unquoted value of {len(event.value)} characters; at most '
                    f'{MAX_PLAIN_CHARS} are read'
                )
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
            if len(opened) > MAX_DEPTH:
                raise UnusableYaml(f'the text is nested more than {MAX_DEPTH} levels deep')
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        if values > MAX_VALUES:
            raise UnusableYaml(f'the text expands to more than {MAX_VALUES} values')
