"""Conversion of recorded people to another skeleton: bags with skeletons, tables of joints."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.input_files import UnusableFile, check_input, open_input
from metrabs_ros.recordings.metadata import CUSTOM_KEY, METADATA_FILE
from metrabs_ros.recordings.output_files import (
    Pair,
    UnfinishedFolder,
    UnusableOutput,
    absolute,
    check_output,
    find_conflicts,
    move_file,
    publish,
    translate_os_errors,
    unfinished_folder,
    unfinished_path,
)
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.results import definition_arguments
from metrabs_ros.recordings.skeleton_messages import UnusableSkeletons, recorded_people
from metrabs_ros.recordings.tables import (
    COLUMNS,
    COLUMNS_WITH_CAMERA,
    LENGTHS,
    MAX_BUFFERED_ROWS,
    TableFile,
    import_pyarrow,
    parquet_schema,
)
from metrabs_ros.recordings.typestore import MARKERS, SKELETONS, message_types, typestore
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import Definition, PointSkeleton

TABLES = ('.csv', '.parquet')
MAX_ROW_CHARS = 10_000
MAX_TABLE_JOINTS = 10_000
"""Maximum number of rows of a person in a frame."""
MAX_LABEL_CHARS = 300
BODY_MARKERS = ('joints', 'bones')
"""Namespaces of the markers that depend on the skeleton."""
SKELETONS_NAME, MARKERS_NAME = 'skeletons', 'markers'

Warn = Callable[[str], None]


class SkeletonConverter:
    """
    Converts skeletons by the names of their joints.

    Parameters
    ----------
    name
        Name of the new skeleton.
    definitions
        Definitions of users; the built-in ones are known.

    Raises
    ------
    ValueError
        If no definition with combinations of joints has the name, or two have the same.
    """

    def __init__(self, name: str, definitions: Sequence[Definition]) -> None:
        self._name = name
        self._definitions = dict(DEFINITIONS)
        for definition in definitions:
            if definition.skeleton.name in self._definitions:
                raise ValueError(
                    f'skeleton {definition.shown_name} exists already; give the definition '
                    'another name'
                )
            if not isinstance(definition, PointSkeleton):
                self._definitions[definition.skeleton.name] = definition
            elif definition.skeleton.name == name:
                raise ValueError(
                    f'skeleton {definition.shown_name} consists of points of the body, which '
                    'cannot be computed from joints; run annotate with an NLF network'
                )
        if name not in self._definitions:
            known = ', '.join(self._definitions)
            raise ValueError(
                f"skeleton is '{printable(name)}'; it must be one of {printable(known, 1000)}"
            )
        self._conventions: dict[Skeleton, Convention] = {}

    def convention(self, skeleton: Skeleton) -> Convention:
        """
        Return the new skeleton in terms of another one.

        Raises
        ------
        ValueError
            If that one lacks a joint.
        """
        if skeleton not in self._conventions:
            conventions = {skeleton.name: skeleton.within(skeleton)}
            for name, definition in self._definitions.items():
                if name == skeleton.name:
                    continue
                # Definitions for other networks are not usable, unless it is the requested one.
                with contextlib.suppress(ValueError):
                    conventions[name] = definition.within(conventions)
            if self._name not in conventions:
                self._definitions[self._name].within(conventions)
            self._conventions[skeleton] = conventions[self._name]
        return self._conventions[skeleton]


@dataclasses.dataclass
class ConversionSummary:
    """
    Result of a conversion.

    Parameters
    ----------
    people
        Number of converted people, summed over the frames.
    skipped
        Numbers of messages, people or rows that could not be converted, by reason.
    """

    people: int = 0
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)


def convert_skeletons(
    source: pathlib.Path,
    output: pathlib.Path,
    converter: SkeletonConverter,
    overwrite: bool,
    warn: Warn,
) -> ConversionSummary:
    """
    Write a copy of a bag or of a table of joints with another skeleton.

    Parameters
    ----------
    source
        A bag with skeletons, or a table from ``annotate --csv`` or ``--parquet``.
    output
        A folder, or a table of the same kind.
    converter
        Converter to the new skeleton.
    overwrite
        Whether an existing output is replaced.
    warn
        Called with warnings about a damaged bag.

    Raises
    ------
    UnusableFile, UnusableOutput, UnreadableRecording, FileExistsError, ValueError
        If the source cannot be read or converted, or the output cannot be written.
    """
    check_input(source)
    if source.suffix not in TABLES:
        return _convert_bag(source, output, converter, overwrite, warn)
    if output.suffix != source.suffix:
        raise UnusableOutput(f'{shown(output)} must end in {source.suffix}, as {shown(source)}')
    convert = _convert_csv if source.suffix == '.csv' else _convert_parquet
    target = absolute(output)
    table = TableFile.from_option(
        source.suffix[1:], str(output), unfinished_path(target), [source], overwrite
    )
    part = target.with_name(f'.{target.name}.part')
    try:
        with translate_os_errors(output):
            summary = convert(source, part, converter)
            _require_people(source, summary)
            move_file(part, absolute(table.file))
    finally:
        part.unlink(missing_ok=True)
    return summary


def _require_people(source: pathlib.Path, summary: ConversionSummary) -> None:
    """Raise an UnusableFile if nothing was converted, for a reason."""
    if summary.skipped and not summary.people:
        reason, count = summary.skipped.most_common(1)[0]
        raise UnusableFile(
            f'{shown(source)} has no people that can be converted: {count} {reason}'
        )


def _convert_bag(
    source: pathlib.Path,
    output: pathlib.Path,
    converter: SkeletonConverter,
    overwrite: bool,
    warn: Warn,
) -> ConversionSummary:
    target = absolute(output)
    for conflict in find_conflicts([Pair(source, target)]):
        if conflict:
            raise UnusableOutput(conflict)
    check_output(target, overwrite, [METADATA_FILE, f'{target.name}.mcap'])
    bag = Bag(source, warn, progress_bar)
    try:
        bag.skeleton_topics()
        with translate_os_errors(output), unfinished_folder(target) as folder:
            summary = _write_bag(bag, folder, converter)
            if summary.people or not summary.skipped:
                publish(folder.results, target)
    finally:
        bag.close()
    _require_people(source, summary)
    return summary


def _write_bag(
    bag: Bag, folder: UnfinishedFolder, converter: SkeletonConverter
) -> ConversionSummary:
    summary = ConversionSummary()
    writer = Writer(folder.results, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.open()
    topics = bag.sorted_topics()
    connections = {
        topic: writer.add_connection(
            topic.name,
            topic.msgtype,
            offered_qos_profiles=topic.qos,
            **(
                {'typestore': typestore()}
                if topic.msgtype in (SKELETONS, MARKERS)
                else definition_arguments(topic)
            ),
        )
        for topic in topics
    }
    prefixes = {
        topic.name.removesuffix(SKELETONS_NAME) for topic in topics if topic.msgtype == SKELETONS
    }
    # The markers of a frame are recorded before its skeletons.
    waiting: dict[str, BagMessage] = {}
    write_markers: dict[str, MarkerWriter] = {}

    def write(topic: Topic, time_ns: int, data: bytes | memoryview) -> None:
        writer.write(connections[topic], time_ns, data)

    try:
        total = sum(bag.counts.values())
        with progress_bar('converting', total, ' messages') as advance:
            for message in bag.messages():
                advance(1)
                topic = message.topic
                prefix = topic.name.removesuffix(MARKERS_NAME)
                if topic.msgtype == MARKERS and prefix in prefixes:
                    if own := waiting.pop(prefix, None):
                        write(*own)
                    waiting[prefix] = message
                    continue
                if topic.msgtype != SKELETONS:
                    write(*message)
                    continue
                converted = _converted(message, converter, summary)
                if converted is None:
                    continue
                prefix = topic.name.removesuffix(SKELETONS_NAME)
                own = waiting.pop(prefix, None)
                if own is not None:
                    markers = write_markers.setdefault(prefix, MarkerWriter(message_types()))
                    data = _converted_markers(own, converted, markers, summary)
                    write(own.topic, own.time_ns, data)
                write(topic, message.time_ns, typestore().serialize_cdr(converted, SKELETONS))
            for own in waiting.values():
                write(*own)
        writer.set_custom_data(CUSTOM_KEY, json.dumps({'converted_people': summary.people}))
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):
            writer.abort()
        raise
    return summary


def _converted(
    message: BagMessage, converter: SkeletonConverter, summary: ConversionSummary
) -> Any:
    """Return a SkeletonArray with the new skeleton; None if the message is not valid."""

    def count_invalid(kind: str, count: int, reason: str) -> None:
        summary.skipped[f'{kind}: {reason}'] += count

    try:
        original, people = recorded_people(message, count_invalid)
        convention = converter.convention(people.skeleton)
    except (UnusableSkeletons, ValueError) as error:
        summary.skipped[f'messages: {printable(error, MAX_LABEL_CHARS)}'] += 1
        return None
    people = people.in_convention(convention)
    people = people.select(people.finite())
    summary.people += len(people)
    return to_message(people, original.header, message_types())


def _converted_markers(
    message: BagMessage, converted: Any, write_markers: MarkerWriter, summary: ConversionSummary
) -> bytes | memoryview:
    """Return a MarkerArray with new joints and bones, and the other markers of a message."""
    try:
        original: Any = typestore().deserialize_cdr(message.data, MARKERS)
    except Exception as error:  # Invalid data can raise any exception in the library.
        summary.skipped[f'messages of markers: {printable(error, MAX_LABEL_CHARS)}'] += 1
        return message.data
    labels = [''] * len(converted.skeletons)
    written = write_markers(converted, labels, np.array([0.0, 0.0, 1.0])).markers
    own = [marker for marker in written if marker.ns in BODY_MARKERS]
    own += [marker for marker in original.markers if marker.ns not in BODY_MARKERS]
    array = message_types().MarkerArray(markers=own)
    return typestore().serialize_cdr(array, MARKERS)


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
            summary.skipped['rows: a value is missing or not a number'] += 1
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


def _convert_rows(
    group: _PersonRows, converter: SkeletonConverter, summary: ConversionSummary
) -> tuple[tuple[str, ...], FloatArray] | None:
    """Return the new joints and their `LENGTHS` [L, 7]; None if the rows lack a joint."""
    try:
        convention = converter.convention(Skeleton('', tuple(group.joints), ()))
    except ValueError as error:
        summary.skipped[f'people: {printable(error, MAX_LABEL_CHARS)}'] += 1
        return None
    lengths_m = np.array(group.lengths_m)
    # The deviations of the definition are in millimetres.
    deviations_mm = 1000 * lengths_m[:, 3:]
    summary.people += 1
    return convention.skeleton.joint_names, np.concatenate(
        [
            convention.positions(lengths_m[:, :3]),
            convention.deviations(deviations_mm[:, 0])[:, None] / 1000,
            convention.axis_deviations(deviations_mm[:, 1:]) / 1000,
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
            if names not in (COLUMNS, COLUMNS_WITH_CAMERA):
                raise UnusableFile(
                    f'{shown(source)} is not a table of joints: its columns are '
                    f'{printable(", ".join(names), MAX_LABEL_CHARS)}; expected: '
                    f'{", ".join(COLUMNS)}'
                )
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow(names)
            rows = (dict(zip(names, [*row, *[None] * len(names)])) for row in reader)
            for group in _grouped(rows, names, summary):
                converted = _convert_rows(group, converter, summary)
                if converted is None:
                    continue
                for joint, lengths in zip(*converted):
                    own = dict(zip(LENGTHS, (f'{length:.6f}' for length in lengths)))
                    values = {**group.shared, **own, 'joint': joint}
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
            summary.skipped[f'rows: {printable(error, MAX_LABEL_CHARS)}'] += 1
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
        if names not in (COLUMNS, COLUMNS_WITH_CAMERA):
            raise UnusableFile(
                f'{shown(source)} is not a table of joints: its columns are '
                f'{printable(", ".join(names), MAX_LABEL_CHARS)}; expected: {", ".join(COLUMNS)}'
            )
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
                for group in _grouped(rows(), names, summary):
                    converted = _convert_rows(group, converter, summary)
                    if converted is None:
                        continue
                    joints, lengths = converted
                    values = {name: [value] * len(joints) for name, value in group.shared.items()}
                    values |= {'joint': list(joints), **dict(zip(LENGTHS, lengths.T.tolist()))}
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
