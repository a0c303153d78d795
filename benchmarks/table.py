"""
Write the tables of docs/benchmarks.md and docs/accuracy.md from the latest results.

    python benchmarks/table.py
"""

from __future__ import annotations

import json
import pathlib
import textwrap

PROJECT = pathlib.Path(__file__).parents[1]
PAGE = PROJECT / 'docs' / 'benchmarks.md'
ACCURACY_PAGE = PROJECT / 'docs' / 'accuracy.md'
RESULTS = PROJECT / 'benchmarks' / 'results'
BEGIN, END = '<!-- written by benchmarks/table.py -->\n', '<!-- end of the generated part -->'
LINE_CHARS = 120
MODES = {'detect': '`detect_poses`', 'track': 'tracking'}
ACCURACY_COLUMNS = {
    'depth, %': ('depth_percent', '+.1f'),
    'absolute, %': ('depth_absolute_percent', '.1f'),
    'hips, mm': ('hips_mm', '.0f'),
    'lateral, mm': ('lateral_mm', '.0f'),
    'relative, mm': ('root_relative_mpjpe_mm', '.0f'),
    'aligned, mm': ('aligned_mpjpe_mm', '.0f'),
    'image, px': ('image_px', '.1f'),
    'swapped, %': ('legs_swapped_percent', '.0f'),
    'm/s²': ('acceleration_m_s2', '.0f'),
}
"""Columns of docs/accuracy.md: title, name in accuracy.json, format."""


def speed_table(file: pathlib.Path) -> list[str]:
    """Return the lines of the table of speeds on one machine."""
    measured = json.loads(file.read_text())
    lines = [
        f'MeTRAbs, EfficientNetV2-S at 256 pixels, {measured["machine"]} (`{file.name}`):',
        '',
        '| engine | precision | image, people x augmentations | median, 95th percentile | '
        'outside the network | relative to the official implementation |',
        '|---|---|---|---|---|---|',
    ]
    for row in measured['rows']:
        lens = '' if row['lens'] == '0 coefficients' else ', with a lens model'
        ratio = f'{row["over_official"]:.2f}' if 'over_official' in row else ''
        outside_ms = row['sampling_ms'] + row['rest_ms']
        lines.append(
            f'| {row["engine"]} | {row["precision"]} | {row["size"]}, {row["people"]} x '
            f'{row["num_aug"]}{lens} | {row["median_ms"]:.0f} ms, {row["p95_ms"]:.0f} ms | '
            f'{outside_ms:.0f} ms | {ratio} |'
        )
    memory = ', '.join(f'{name} {gib:.1f} GiB' for name, gib in measured['memory_gib'].items())
    return [*lines, '', f'Peak memory of the process: {memory}.']


def precision_table() -> list[str]:
    """Return the lines of the table of errors by precision."""
    measured = json.loads((RESULTS / 'precision.json').read_text())
    lines = [
        'Errors by precision, relative to the official implementation in float32 on its '
        'reproducible checkpoints,',
        f'{measured["machine"]} (`precision.json`):',
        '',
        '| engine | precision | cases | median error | in percent of the distance; worst case | '
        'largest joint error |',
        '|---|---|---|---|---|---|',
    ]
    lines += [
        f'| {row["engine"]} | {row["precision"]} | {row["cases"]} | {row["median_mm"]:.2f} mm | '
        f'{row["median_percent"]:.3f}; {row["worst_median_percent"]:.3f} | '
        f'{row["worst_mm"]:.1f} mm |'
        for row in measured['rows']
    ]
    return lines


def output_of(file: pathlib.Path) -> list[str]:
    """Return the output of a script as a block of code, with long lines wrapped."""
    indent = '        '
    lines = [
        part
        for line in file.read_text().splitlines()
        for part in textwrap.wrap(line, LINE_CHARS, subsequent_indent=indent) or ['']
    ]
    return [f'### {file.name}', '', '```text', *lines, '```', '']


def accuracy_tables() -> list[str]:
    """Return the lines of the tables of errors and of coverage on the real recording."""
    measured = json.loads((RESULTS / 'accuracy.json').read_text())
    of_all = [row for row in measured['rows'] if row['camera'] == 'all']
    errors = [[*setup_of(row), *error_cells(row)] for row in of_all]
    by_camera = [
        [row['camera'], MODES[row['mode']], *error_cells(row)]
        for row in measured['rows']
        if row['model'] == 'blazepose' and row['configuration'] == 'default'
        if row['camera'] != 'all'
    ]
    counts = ['found', 'false']
    shares = [
        [*setup_of(row), *(f'{share:.0f}' for k in (1, 2) for share in shares_of(row, k))]
        for row in of_all
    ]
    axes = [f'{axis}, {k} std' for k in (1, 2) for axis in 'xyz']
    setup = ['model', 'images']
    return [
        *markdown([*setup, *counts, *ACCURACY_COLUMNS], errors),
        '',
        'By camera, `blazepose`:',
        '',
        *markdown(['camera', 'images', *counts, *ACCURACY_COLUMNS], by_camera),
        '',
        'Share of the joints within one and two published standard deviations, in percent, along '
        'the axes of the camera (a normal',
        'distribution has 68 and 95 %):',
        '',
        *markdown([*setup, *axes], shares),
    ]


def setup_of(row: dict) -> list[str]:
    """Return the model, with its configuration, and the mode of a row of accuracy.json."""
    name = f'`{row["model"]}`'
    if row['configuration'] != 'default':
        name += f', {row["configuration"].replace("_", " ")}'
    return [name, MODES[row['mode']]]


def error_cells(row: dict) -> list[str]:
    """Return counts and errors of a row of accuracy.json."""
    return [f'{row["found"]} of {row["visible"]}', str(row['false'])] + [
        format(row[key], pattern) if key in row else ''
        for key, pattern in ACCURACY_COLUMNS.values()
    ]


def shares_of(row: dict, deviations: int) -> list[float]:
    """Return the coverage along the three axes."""
    return row[f'within_{deviations}_std_percent']


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    head, *body = [f'| {" | ".join(cells)} |' for cells in (header, *rows)]
    return [head, '|---' * len(header) + '|', *body]


def with_accuracy_tables(text: str) -> str:
    """Return the text of docs/accuracy.md with the tables of the latest results."""
    return with_lines(text, accuracy_tables())


def with_lines(text: str, lines: list[str]) -> str:
    """Return a page with other lines between the marks of its generated part."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f'{before}{BEGIN}\n' + '\n'.join(lines) + f'\n{END}{after}'


def with_tables(text: str) -> str:
    """Return the text of docs/benchmarks.md with the tables of the latest results."""
    lines = ['## MeTRAbs by engine and precision', '']
    for file in sorted(RESULTS.glob('estimator*.json')):
        lines += [*speed_table(file), '']
    lines += [*precision_table(), '', '## Output of the scripts', '']
    for file in sorted(RESULTS.glob('*.txt')):
        lines += output_of(file)
    return with_lines(text, lines)


if __name__ == '__main__':
    PAGE.write_text(with_tables(PAGE.read_text()))
    ACCURACY_PAGE.write_text(with_accuracy_tables(ACCURACY_PAGE.read_text()))
