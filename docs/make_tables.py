"""
Generate docs/parameters.md, and the table of docs/skeletons.md.

    python docs/make_tables.py
"""

from __future__ import annotations

import dataclasses
import pathlib

from metrabs_ros.node.fusion_settings import FusionSettings
from metrabs_ros.node.settings import Settings
from metrabs_ros.skeletons.builtin import DEFINITIONS

PAGE = pathlib.Path(__file__).parent / 'parameters.md'
SKELETONS_PAGE = PAGE.with_name('skeletons.md')
BEGIN, END = '<!-- written by docs/make_tables.py -->\n', '<!-- end of the generated part -->'
HEAD = """# Parameters

Of the node `pose`, grouped by topic, and of the [node `fusion`](#node-fusion).
[config/pose.yaml](../config/pose.yaml) and [config/fusion.yaml](../config/fusion.yaml) contain all
parameters with their default values. Parameters marked *start* are read-only while the node runs;
all others can be changed with `ros2 param set`. Back to the [README](../README.md).
"""
FUSION_HEAD = '\n## Node fusion\n'
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
    'hri': 'ROS4HRI',
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
    text += FUSION_HEAD + TABLE_HEAD
    return text + ''.join(f'{_row(field)}\n' for field in dataclasses.fields(FusionSettings))


def _row(field: dataclasses.Field) -> str:
    about = field.metadata
    span = ', '.join(f'`{choice or EMPTY}`' for choice in about['choices'])
    if about['low'] is not None:
        span = f'{about["low"]:g} to {about["high"]:g}'
    start = '*start*: ' if about['fixed'] else ''
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    text = about['description'].replace('|', '\\|')
    return f'| `{field.name}` | `{default!r}` | {span} | {start}{text} |'


def with_estimates(text: str) -> str:
    """Return the text of docs/skeletons.md with the table of estimated joints."""
    lines = [
        '',
        '| skeleton | joint | combination of joints of blazepose_33 | deviation, mm |',
        '|---|---|---|---|',
    ]
    for name, definition in DEFINITIONS.items():
        rows: dict[tuple[str, float], list[str]] = {}
        for joint, note, deviation_mm in zip(
            definition.skeleton.joint_names, definition.notes, definition.deviations_mm
        ):
            if note:
                rows.setdefault((note, deviation_mm), []).append(joint)
        for (note, deviation_mm), joints in rows.items():
            shown = f'{deviation_mm:.0f}' if deviation_mm else 'exact'
            lines.append(f'| {name} | {", ".join(joints)} | {note} | {shown} |')
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + '\n'.join([*lines, '', '']) + text[end:]


if __name__ == '__main__':
    SKELETONS_PAGE.write_text(with_estimates(SKELETONS_PAGE.read_text()), encoding='utf-8')
    PAGE.write_text(page(), encoding='utf-8')
