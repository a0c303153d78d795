"""
Write the tables of docs/benchmarks.md from the latest results.

    python benchmarks/table.py
"""

from __future__ import annotations

import json
import pathlib
import textwrap

PROJECT = pathlib.Path(__file__).parents[1]
PAGE = PROJECT / 'docs' / 'benchmarks.md'
RESULTS = PROJECT / 'benchmarks' / 'results'
BEGIN, END = '<!-- written by benchmarks/table.py -->\n', '<!-- end of the generated part -->'
LINE_CHARS = 120


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


def with_tables(text: str) -> str:
    """Return the text of the page with the tables of the latest results."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    lines = ['## MeTRAbs by engine and precision', '']
    for file in sorted(RESULTS.glob('estimator*.json')):
        lines += [*speed_table(file), '']
    lines += [*precision_table(), '', '## Output of the scripts', '']
    for file in sorted(RESULTS.glob('*.txt')):
        lines += output_of(file)
    return f'{before}{BEGIN}\n' + '\n'.join(lines) + f'\n{END}{after}'


if __name__ == '__main__':
    PAGE.write_text(with_tables(PAGE.read_text()))
