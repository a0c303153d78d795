"""
Generate docs/parameters.md from metrabs_ros/node/settings.py.

    python docs/make_tables.py
"""

from __future__ import annotations

import dataclasses
import pathlib

from metrabs_ros.node.settings import Settings

PAGE = pathlib.Path(__file__).parent / 'parameters.md'
HEAD = """# Parameters of the node `pose`

[config/pose.yaml](../config/pose.yaml) contains all parameters with their default values.
Parameters marked *start* are read-only while the node runs; all others can be changed with
`ros2 param set`. Back to the [README](../README.md).
"""
TABLE_HEAD = """
| parameter | default | range | description |
|---|---|---|---|
"""
TOPICS = {
    'autostart': 'Start',
    'model': 'Model and detection',
    'detect_interval': 'Tracking',
    'cameras': 'Cameras and images',
    'world_frame': 'Frames',
    'ground_frame': 'Person scale',
    'tf': 'Published TF frames',
}
"""Titles of the groups of parameters, by the first parameter of each group."""
EMPTY = "''"


def page() -> str:
    """Return the text of the page."""
    text = HEAD
    for field in dataclasses.fields(Settings):
        if field.name in TOPICS:
            text += f'\n## {TOPICS[field.name]}\n{TABLE_HEAD}'
        text += f'{_row(field)}\n'
    return text


def _row(field: dataclasses.Field) -> str:
    about = field.metadata
    span = ', '.join(f'`{choice or EMPTY}`' for choice in about['choices'])
    if about['low'] is not None:
        span = f'{about["low"]:g} to {about["high"]:g}'
    start = '*start*: ' if about['fixed'] else ''
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    text = about['description'].replace('|', '\\|')
    return f'| `{field.name}` | `{default!r}` | {span} | {start}{text} |'


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
