"""Tables with one row per joint, as CSV or Parquet."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from metrabs_ros.conversions.people import known_or_zero, to_metres
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import People
from metrabs_ros.recordings.input_files import open_input, read_start
from metrabs_ros.recordings.output_files import (
    UnfinishedFolder,
    UnusableOutput,
    absolute,
    check_file_output,
    check_stream,
    is_stream,
    move_file,
    translate_os_errors,
)
from metrabs_ros.regular_file import shown

MAX_BUFFERED_ROWS = 10_000
"""Number of rows after which a Parquet table is written to its file."""
MAX_CAMERA_CHARS = 300
"""Maximum length of the name of an image source."""
COLUMNS = (
    *('stamp', 'id', 'joint', 'x', 'y', 'z', 'deviation'),
    *('deviation_x', 'deviation_y', 'deviation_z', 'stature', 'scale_source'),
)
LENGTHS = COLUMNS[3:10]
"""Columns of a joint's position and standard deviations."""
COLUMNS_WITH_CAMERA = (*COLUMNS, 'camera')


class JointTable(Protocol):
    """A table with a row for each joint of each person in each frame."""

    def write(self, stamp_ns: int, camera: str, people: People) -> None:
        """
        Write the rows of a frame, in metres.

        Parameters
        ----------
        stamp_ns
            Stamp of the frame in nanoseconds.
        camera
            Name of the image source.
        people
            The people, in the camera frame.
        """
        ...

    def close(self) -> None:
        """Complete the table."""
        ...


class TableFile(NamedTuple):
    """
    The file of a table.

    Parameters
    ----------
    kind
        ``csv`` or ``parquet``.
    file
        The file.
    is_in_results
        Whether the file is ``joints.csv`` or ``joints.parquet`` in the folder of the results.
    """

    kind: str
    file: pathlib.Path
    is_in_results: bool

    @classmethod
    def from_option(
        cls,
        kind: str,
        target: str,
        output: pathlib.Path,
        inputs: Sequence[pathlib.Path],
        overwrite: bool,
    ) -> TableFile:
        """
        Return the file of a table, after checking that it can be written.

        Parameters
        ----------
        kind
            ``csv`` or ``parquet``.
        target
            Value of the command line option; empty for a file in the folder of the results.
        output
            The folder of the results.
        inputs
            Files and folders that are read.
        overwrite
            Whether an existing table is replaced.

        Raises
        ------
        UnusableOutput
            If the file cannot be written, or is not a table of joints.
        FileExistsError
            If the table exists and `overwrite` is false.
        """
        default = output / f'joints.{kind}'
        if not target or absolute(pathlib.Path(target)) == default:
            return cls(kind, default, True)
        table = cls(kind, pathlib.Path(target), False)
        if is_stream(table.file):
            with translate_os_errors(table.file):
                check_stream(table.file)
            return table
        check_file_output(table.file, output, inputs)
        if os.path.lexists(table.file):
            is_table = _is_csv_table if kind == 'csv' else _is_parquet_table
            if not is_table(table.file):
                raise UnusableOutput(
                    f'{shown(table.file)} is not a table of joints and is not replaced; give '
                    f'--{kind} another name'
                )
            if not overwrite:
                raise FileExistsError(
                    f'{shown(table.file)} already exists; use --overwrite to replace it'
                )
        return table

    def open(self, folder: UnfinishedFolder, with_camera: bool) -> JointTable:
        """Open the table for writing at its temporary path."""
        table = CsvTable if self.kind == 'csv' else ParquetTable
        return table(self._temporary_path(folder), with_camera)

    def publish(self, folder: UnfinishedFolder) -> None:
        """Move the complete table from its temporary path to its file."""
        path = self._temporary_path(folder)
        if path.parent == folder.tables:
            with translate_os_errors(self.file):
                move_file(path, absolute(self.file))

    def _temporary_path(self, folder: UnfinishedFolder) -> pathlib.Path:
        if self.is_in_results:
            return folder.results / self.file.name
        return self.file if is_stream(self.file) else folder.tables / f'joints.{self.kind}'


class CsvTable:
    """
    A table of joints in CSV.

    Parameters
    ----------
    file
        The file; it is created or overwritten.
    with_camera
        Whether the last column names the image source.
    """

    def __init__(self, file: pathlib.Path, with_camera: bool) -> None:
        self._with_camera = with_camera
        self._file = file.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file, lineterminator='\n')
        self._writer.writerow(COLUMNS_WITH_CAMERA if with_camera else COLUMNS)

    def write(self, stamp_ns: int, camera: str, people: People) -> None:
        """Write the rows of a frame; see `JointTable`."""
        sec, nanosec = divmod(stamp_ns, NS_PER_S)
        stamp = f'{sec}.{nanosec:09d}'
        last = (printable(camera, MAX_CAMERA_CHARS),) if self._with_camera else ()
        names = people.skeleton.joint_names
        for person in _person_rows(people):
            of_person = (f'{person.stature:.6f}', person.scale_source, *last)
            self._writer.writerows(
                (stamp, person.id, name, *(f'{length:.6f}' for length in lengths), *of_person)
                for name, lengths in zip(names, person.lengths)
            )

    def close(self) -> None:
        """Complete the table."""
        self._file.close()


class ParquetTable:
    """
    A table of joints in Parquet.

    Parameters
    ----------
    file
        The file; it is created or overwritten.
    with_camera
        Whether the last column names the image source.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """

    def __init__(self, file: pathlib.Path, with_camera: bool) -> None:
        pyarrow, parquet = import_pyarrow()
        self._pyarrow = pyarrow
        self._schema = parquet_schema(with_camera)
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}

    def write(self, stamp_ns: int, camera: str, people: People) -> None:
        """Write the rows of a frame; see `JointTable`."""
        names = people.skeleton.joint_names
        for person in _person_rows(people):
            values: dict[str, list[Any]] = {
                'stamp': [stamp_ns / NS_PER_S] * len(names),
                'id': [person.id] * len(names),
                'joint': list(names),
                **dict(zip(LENGTHS, map(list, zip(*person.lengths)))),
                'stature': [person.stature] * len(names),
                'scale_source': [person.scale_source] * len(names),
                'camera': [printable(camera, MAX_CAMERA_CHARS)] * len(names),
            }
            for name, column in self._columns.items():
                column.extend(values[name])
        if len(self._columns['id']) >= MAX_BUFFERED_ROWS:
            self._flush()

    def close(self) -> None:
        """Complete the table."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._pyarrow.table(self._columns, schema=self._schema))
        for column in self._columns.values():
            column.clear()


def parquet_schema(with_camera: bool) -> Any:
    """Return the pyarrow schema of a table, whose last column may name the image source."""
    pyarrow, _ = import_pyarrow()
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    kinds = [pyarrow.float64(), pyarrow.int64(), text, *[pyarrow.float64()] * 8]
    fields = list(zip(COLUMNS, [*kinds, pyarrow.int64()]))
    return pyarrow.schema([*fields, ('camera', text)] if with_camera else fields)


def _is_csv_table(file: pathlib.Path) -> bool:
    """Return whether a file starts with a header of `CsvTable`."""
    headers = [f'{",".join(columns)}\n'.encode() for columns in (COLUMNS, COLUMNS_WITH_CAMERA)]
    start = read_start(file, max(map(len, headers)))
    return any(start.startswith(header) for header in headers)


def _is_parquet_table(file: pathlib.Path) -> bool:
    """Return whether a file has the columns of `ParquetTable`."""
    pyarrow, parquet = import_pyarrow()
    with open_input(file) as opened:
        try:
            names = parquet.read_schema(opened).names
        except (pyarrow.ArrowException, OSError):
            return False
    return tuple(names) in (COLUMNS, COLUMNS_WITH_CAMERA)


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module; raise an `ImportError` with installation advice."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('tables in Parquet need pyarrow: pip install pyarrow') from error
    return pyarrow, parquet


class _PersonRows(NamedTuple):
    """
    Values of the J rows of a person.

    Parameters
    ----------
    id, stature, scale_source
        Fields of a Skeleton.
    lengths
        J lists of the `LENGTHS` of a joint, in metres.
    """

    id: int
    stature: float
    scale_source: int
    lengths: list[list[float]]


def _person_rows(people: People) -> list[_PersonRows]:
    """Return the values of each person."""
    lengths_mm = [people.poses3d_mm, people.joint_std_mm[..., None], people.axis_std_mm]
    lengths_m = to_metres(np.concatenate(lengths_mm, axis=-1))
    return [
        _PersonRows(*row)
        for row in zip(
            people.ids.tolist(),
            to_metres(known_or_zero(people.estimated_statures_mm)).tolist(),
            people.scale_cues.tolist(),
            lengths_m.tolist(),
        )
    ]
