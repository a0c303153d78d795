"""
Update the tables in the README with the latest results.

    python benchmarks/table.py
"""

from __future__ import annotations

import json
import pathlib

PROJECT = pathlib.Path(__file__).parents[1]
README = PROJECT / 'README.md'
RESULTS = PROJECT / 'benchmarks' / 'results'
BEGIN, END = '<!-- written by benchmarks/table.py -->\n', '<!-- until here -->'


def speed_table() -> list[str]:
    """Return the lines of the speed table."""
    measured = json.loads((RESULTS / 'estimator.json').read_text())
    lines = [
        f'EfficientNetV2-S at 256 pixels, {measured["machine"]}:',
        '',
        '| engine | precision | picture, people x augmentations | median, 95th percentile | '
        'outside the network | of the official time |',
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
    return lines


def precision_table() -> list[str]:
    """Return the lines of the table of errors by precision."""
    measured = json.loads((RESULTS / 'precision.json').read_text())
    lines = [
        'What precision costs, against the official implementation in float32 on its reproducible '
        'checkpoints:',
        '',
        '| engine | precision | cases | median error | in percent of the distance; worst case | '
        'farthest joint |',
        '|---|---|---|---|---|---|',
    ]
    lines += [
        f'| {row["engine"]} | {row["precision"]} | {row["cases"]} | {row["median_mm"]:.2f} mm | '
        f'{row["median_percent"]:.3f}; {row["worst_median_percent"]:.3f} | '
        f'{row["worst_mm"]:.1f} mm |'
        for row in measured['rows']
    ]
    return lines


def with_tables(text: str) -> str:
    """Replace the tables in the text of the README."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    tables = '\n'.join([*speed_table(), '', *precision_table()])
    return f'{before}{BEGIN}\n{tables}\n\n{END}{after}'


if __name__ == '__main__':
    README.write_text(with_tables(README.read_text()))
