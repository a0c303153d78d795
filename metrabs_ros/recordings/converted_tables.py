"""Conversion of tables of joints to another skeleton."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MM_PER_M
from metrabs_ros.recordings.input_files import UnusableFile, open_input
from metrabs_ros.recordings.output_files import (
    UnusableOutput,
    absolute,
    is_stream,
    move_file,
    translate_os_errors,
    unfinished_path,
)
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.skeleton_converter import (
    MAX_LABEL_CHARS,
    ConversionSummary,
    SkeletonConverter,
)
from metrabs_ros.recordings.tables import (
    COLUMNS,
    COLUMNS_WITH_CAMERA,
    LENGTHS,
    MAX_BUFFERED_ROWS,
    TableFile,
    import_pyarrow,
    parquet_schema,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.conventions import Convention, Skeleton

TABLES = ('.csv', '.parquet')
MAX_ROW_CHARS = 10_000
MAX_TABLE_JOINTS = 10_000
"""Maximum number of rows of a person in a frame."""


def convert_table(
    source: pathlib.Path, output: pathlib.Path, converter: SkeletonConverter, overwrite: bool
) -> ConversionSummary:
    """
    Write a copy of a table of joints with other joints.

    The output is not written if no person can be converted; see
    `skeleton_conversion.convert_skeletons`.
    """
    if output.suffix != source.suffix:
        raise UnusableOutput(f'{shown(output)} must end in {source.suffix}, as {shown(source)}')
    if is_stream(output):
        raise UnusableOutput(f'{shown(output)} is a device or a pipe; give the name of a file')
    convert = _convert_csv if source.suffix == '.csv' else _convert_parquet
    target = absolute(output)
    table = TableFile.from_option(
        source.suffix[1:], str(output), unfinished_path(target), [source], overwrite
    )
    part = target.with_name(f'.{target.name}.part')
    try:
        with translate_os_errors(output):
            summary = convert(source, part, converter)
            if summary.people or not summary.skipped:
                move_file(part, absolute(table.file))
    finally:
        part.unlink(missing_ok=True)
    return summary


@dataclasses.dataclass
class _PersonRows:
    """
    Rows of a table of one person in one frame.

    Parameters
    ----------
    shared
        Values of the columns that are the same in all rows, by name.
    joints
        Names of the joints.
    lengths_m
        For each joint the values of `LENGTHS`.
    """

    shared: dict[str, Any]
    joints: list[str]
    lengths_m: list[list[float]]


def _check_columns(source: pathlib.Path, names: tuple[str, ...]) -> None:
    if names not in (COLUMNS, COLUMNS_WITH_CAMERA):
        raise UnusableFile(
            f'{shown(source)} is not a table of joints: its columns are '
            f'{printable(", ".join(names), MAX_LABEL_CHARS)}; expected: {", ".join(COLUMNS)}'
        )


def _grouped(
    rows: Iterator[dict[str, Any]], names: Sequence[str], summary: ConversionSummary
) -> Iterator[_PersonRows]:
    """Group successive rows of the same person and frame; count rows that are not valid."""
    kept = [name for name in names if name not in ('joint', *LENGTHS)]
    group: _PersonRows | None = None
    for row in rows:
        try:
            lengths_m = [float(row[name]) for name in LENGTHS]
        except (TypeError, ValueError):
            lengths_m = []
        if not lengths_m or not np.isfinite(lengths_m).all() or not isinstance(row['joint'], str):
            summary.skip('rows: a value is missing or not a number')
            continue
        shared = {name: row[name] for name in kept}
        is_new = group is None or shared != group.shared or row['joint'] == group.joints[0]
        if is_new or (group is not None and len(group.joints) >= MAX_TABLE_JOINTS):
            if group is not None:
                yield group
            group = _PersonRows(shared, [], [])
        assert group is not None
        group.joints.append(row['joint'])
        group.lengths_m.append(lengths_m)
    if group is not None:
        yield group


def _converted_people(
    groups: Iterator[_PersonRows], converter: SkeletonConverter, summary: ConversionSummary
) -> Iterator[tuple[dict[str, Any], tuple[str, ...], FloatArray]]:
    """Yield shared values, new joints and their `LENGTHS` [L, 7]; count who lacks a joint."""
    for group in groups:
        try:
            convention = converter.convention(Skeleton('', tuple(group.joints), ()))
        except ValueError as error:
            summary.skip(f'people: {printable(error, MAX_LABEL_CHARS)}')
            continue
        summary.people += 1
        lengths_m = _converted_lengths(np.array(group.lengths_m), convention)
        yield group.shared, convention.skeleton.joint_names, lengths_m


def _converted_lengths(lengths_m: FloatArray, convention: Convention) -> FloatArray:
    """Return the `LENGTHS` [L, 7] of new joints from those of the recorded joints [J, 7]."""
    # The deviations of the definition are in millimetres.
    deviations_mm = MM_PER_M * lengths_m[:, 3:]
    return np.concatenate(
        [
            convention.positions(lengths_m[:, :3]),
            to_metres(convention.deviations(deviations_mm[:, 0])[:, None]),
            to_metres(convention.axis_deviations(deviations_mm[:, 1:])),
        ],
        axis=1,
    )


def _convert_csv(
    source: pathlib.Path, part: pathlib.Path, converter: SkeletonConverter
) -> ConversionSummary:
    summary = ConversionSummary()
    with open_input(source) as raw:
        size = raw.seek(0, 2)
        raw.seek(0)
        with (
            progress_bar('converting', size, 'B') as advance,
            part.open('w', newline='', encoding='utf-8') as file,
        ):

            def lines() -> Iterator[str]:
                while data := raw.readline(MAX_ROW_CHARS):
                    advance(len(data))
                    yield data.decode('utf-8', 'replace').replace('\0', '')

            reader = _read_rows(lines(), summary)
            names = tuple(next(reader, ()))
            _check_columns(source, names)
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow(names)
            rows = (dict(zip(names, [*row, *[None] * len(names)])) for row in reader)
            groups = _grouped(rows, names, summary)
            for shared, joints, lengths_m in _converted_people(groups, converter, summary):
                for joint, own_m in zip(joints, lengths_m):
                    own = dict(zip(LENGTHS, (f'{length_m:.6f}' for length_m in own_m)))
                    values = {**shared, **own, 'joint': joint}
                    writer.writerow([values[name] for name in names])
    return summary


def _read_rows(lines: Iterator[str], summary: ConversionSummary) -> Iterator[list[str]]:
    """Yield the rows of a CSV table; count those that cannot be parsed."""
    reader = csv.reader(lines)
    while True:
        try:
            row = next(reader, None)
        # For example a quote that is not closed.
        except csv.Error as error:
            summary.skip(f'rows: {printable(error, MAX_LABEL_CHARS)}')
            continue
        if row is None:
            return
        yield row


def _convert_parquet(
    source: pathlib.Path, part: pathlib.Path, converter: SkeletonConverter
) -> ConversionSummary:
    pyarrow, parquet = import_pyarrow()
    summary = ConversionSummary()
    with open_input(source) as raw:
        try:
            reader = parquet.ParquetFile(raw)
            names = tuple(reader.schema_arrow.names)
        except (pyarrow.ArrowException, OSError) as error:
            raise UnusableFile(
                f'{shown(source)} cannot be read: {printable(error, MAX_LABEL_CHARS)}'
            ) from error
        _check_columns(source, names)
        schema = parquet_schema(names[-1] == 'camera')
        with (
            progress_bar('converting', reader.metadata.num_rows, ' rows') as advance,
            parquet.ParquetWriter(part, schema) as writer,
        ):

            def rows() -> Iterator[dict[str, Any]]:
                for batch in reader.iter_batches(MAX_BUFFERED_ROWS):
                    advance(len(batch))
                    yield from batch.to_pylist()

            columns: dict[str, list[Any]] = {name: [] for name in names}

            def flush() -> None:
                writer.write_table(pyarrow.table(columns, schema=schema))
                for column in columns.values():
                    column.clear()

            try:
                groups = _grouped(rows(), names, summary)
                for shared, joints, lengths_m in _converted_people(groups, converter, summary):
                    values = {name: [value] * len(joints) for name, value in shared.items()}
                    values |= {'joint': list(joints), **dict(zip(LENGTHS, lengths_m.T.tolist()))}
                    for name, column in columns.items():
                        column.extend(values[name])
                    if len(columns['joint']) >= MAX_BUFFERED_ROWS:
                        flush()
                flush()
            except (pyarrow.ArrowException, OSError) as error:
                raise UnusableFile(
                    f'{shown(source)} is damaged: {printable(error, MAX_LABEL_CHARS)}'
                ) from error
    return summary
