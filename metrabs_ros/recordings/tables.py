"""Tables of joints, a row each."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from metrabs_ros.conversions.people import to_metres
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
from metrabs_ros.recordings.stamps import NANOSECONDS
from metrabs_ros.regular_file import shown

MAX_BUFFERED_ROWS = 10_000
MAX_CAMERA_CHARS = 300
COLUMNS = ('stamp', 'id', 'joint', 'x', 'y', 'z', 'deviation')
COLUMNS_WITH_CAMERA = (*COLUMNS, 'camera')


class JointTable(Protocol):
    """A table with a row for each joint of each person in each frame."""

    def put(self, stamp_ns: int, camera: str, people: People) -> None:
        """Write the rows of a frame, in metres."""
        ...

    def close(self) -> None:
        """Finish the table."""
        ...


class TableFile(NamedTuple):
    """
    Where a table is written.

    Parameters
    ----------
    kind
        csv or parquet.
    file
        The file.
    is_in_results
        Whether it is one of the files of the results.
    """

    kind: str
    file: pathlib.Path
    is_in_results: bool

    @classmethod
    def of(
        cls,
        kind: str,
        target: str,
        output: pathlib.Path,
        inputs: Sequence[pathlib.Path],
        overwrite: bool,
    ) -> TableFile:
        """
        Return where a table is to be written.

        Parameters
        ----------
        kind
            csv or parquet.
        target
            What the user named; empty for a file of the results.
        output
            The folder of the results.
        inputs
            Files and folders that are read.
        overwrite
            Whether an earlier table is replaced.

        Raises
        ------
        UnusableOutput
            If the file cannot be written, or is something else than a table.
        FileExistsError
            If there is a table already, and it is not to be replaced.
        """
        usual = output / f'joints.{kind}'
        if not target or absolute(pathlib.Path(target)) == usual:
            return cls(kind, usual, True)
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
                    f'{shown(table.file)} is no table of joints and is not replaced; give '
                    f'--{kind} another name'
                )
            if not overwrite:
                raise FileExistsError(
                    f'{shown(table.file)} is there already; --overwrite replaces it'
                )
        return table

    def open(self, folder: UnfinishedFolder, with_camera: bool) -> JointTable:
        """Begin the table, where it is not yet in the way of anything."""
        kind = CsvTable if self.kind == 'csv' else ParquetTable
        return kind(self._place(folder), with_camera)

    def publish(self, folder: UnfinishedFolder) -> None:
        """Put the complete table where it belongs."""
        place = self._place(folder)
        if place.parent == folder.tables:
            with translate_os_errors(self.file):
                move_file(place, absolute(self.file))

    def _place(self, folder: UnfinishedFolder) -> pathlib.Path:
        if self.is_in_results:
            return folder.results / self.file.name
        return self.file if is_stream(self.file) else folder.tables / f'joints.{self.kind}'


class CsvTable:
    """
    A table of joints as text.

    Parameters
    ----------
    file
        Is written.
    with_camera
        Whether a last column says which camera it was.
    """

    def __init__(self, file: pathlib.Path, with_camera: bool) -> None:
        self._with_camera = with_camera
        self._file = file.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file, lineterminator='\n')
        self._writer.writerow(COLUMNS_WITH_CAMERA if with_camera else COLUMNS)

    def put(self, stamp_ns: int, camera: str, people: People) -> None:
        """Write the rows of a frame; see `JointTable`."""
        sec, nanosec = divmod(stamp_ns, NANOSECONDS)
        stamp = f'{sec}.{nanosec:09d}'
        last = (printable(camera, MAX_CAMERA_CHARS),) if self._with_camera else ()
        names = people.skeleton.joint_names
        for person_id, places, deviations in _person_rows(people):
            self._writer.writerows(
                (stamp, person_id, name, f'{x:.6f}', f'{y:.6f}', f'{z:.6f}', f'{std:.6f}', *last)
                for name, (x, y, z), std in zip(names, places, deviations)
            )

    def close(self) -> None:
        """Finish the table."""
        self._file.close()


class ParquetTable:
    """
    A table of joints in Parquet.

    Parameters
    ----------
    file
        Is written.
    with_camera
        Whether a last column says which camera it was.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """

    def __init__(self, file: pathlib.Path, with_camera: bool) -> None:
        pyarrow, parquet = _pyarrow()
        self._pyarrow = pyarrow
        text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        kinds = [pyarrow.float64(), pyarrow.int64(), text, *[pyarrow.float64()] * 4]
        fields = list(zip(COLUMNS, kinds))
        self._schema = pyarrow.schema([*fields, ('camera', text)] if with_camera else fields)
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}

    def put(self, stamp_ns: int, camera: str, people: People) -> None:
        """Write the rows of a frame; see `JointTable`."""
        names = people.skeleton.joint_names
        for person_id, places, deviations in _person_rows(people):
            values: dict[str, list[Any]] = {
                'stamp': [stamp_ns / NANOSECONDS] * len(names),
                'id': [person_id] * len(names),
                'joint': list(names),
                'x': [place[0] for place in places],
                'y': [place[1] for place in places],
                'z': [place[2] for place in places],
                'deviation': deviations,
                'camera': [printable(camera, MAX_CAMERA_CHARS)] * len(names),
            }
            for name, column in self._columns.items():
                column.extend(values[name])
        if len(self._columns['id']) >= MAX_BUFFERED_ROWS:
            self._flush()

    def close(self) -> None:
        """Finish the table."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._pyarrow.table(self._columns, schema=self._schema))
        for column in self._columns.values():
            column.clear()


def _is_csv_table(file: pathlib.Path) -> bool:
    """Tell whether a file begins as `CsvTable` writes it."""
    headers = [f'{",".join(columns)}\n'.encode() for columns in (COLUMNS, COLUMNS_WITH_CAMERA)]
    start = read_start(file, max(map(len, headers)))
    return any(start.startswith(header) for header in headers)


def _is_parquet_table(file: pathlib.Path) -> bool:
    """Tell whether a file has the columns that `ParquetTable` writes."""
    pyarrow, parquet = _pyarrow()
    with open_input(file) as opened:
        try:
            names = parquet.read_schema(opened).names
        except (pyarrow.ArrowException, OSError):
            return False
    return tuple(names) in (COLUMNS, COLUMNS_WITH_CAMERA)


def _pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet; raises an ImportError that says what to do."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError('--parquet needs pyarrow: pip install pyarrow') from error
    return pyarrow, parquet


def _person_rows(people: People) -> list[tuple[int, list[Any], list[float]]]:
    """Return each person's id, joints and their deviations, in metres."""
    places_m, deviations_m = to_metres(people.poses3d_mm), to_metres(people.joint_std_mm)
    return list(zip(people.ids.tolist(), places_m.tolist(), deviations_m.tolist()))
