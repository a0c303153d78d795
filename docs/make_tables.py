"""
Write docs/parameters.md from the declarations in node/settings.py.

    python docs/make_tables.py
"""

from __future__ import annotations

import dataclasses
import pathlib

from metrabs_ros.node.settings import Settings

PAGE = pathlib.Path(__file__).parent / 'parameters.md'
HEAD = """# Parameters of the node `pose`

[config/pose.yaml](../config/pose.yaml) contains all parameters with their defaults. Parameters
marked *start* are read-only while the node runs; `ros2 param set` changes all others at any time.
Back to the [README](../README.md).

| parameter | default | range | description |
|---|---|---|---|
"""


def page() -> str:
    """Return the text of docs/parameters.md."""
    return HEAD + ''.join(f'{_row(field)}\n' for field in dataclasses.fields(Settings))


def _row(field: dataclasses.Field) -> str:
    metadata = field.metadata
    values = ', '.join(f'`{choice}`' for choice in metadata['choices'])
    if metadata['low'] is not None:
        values = f'{metadata["low"]:g} to {metadata["high"]:g}'
    start = '*start*: ' if metadata['fixed'] else ''
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    text = metadata['description'].replace('|', '\\|')
    return f'| `{field.name}` | `{default!r}` | {values} | {start}{text} |'


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
