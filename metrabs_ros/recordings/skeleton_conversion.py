"""Conversion of recorded people to another skeleton: bags with skeletons, tables of joints."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from metrabs_ros.recordings.converted_bags import convert_bag
from metrabs_ros.recordings.converted_tables import TABLES, convert_table
from metrabs_ros.recordings.input_files import UnusableFile, check_input
from metrabs_ros.recordings.skeleton_converter import ConversionSummary, SkeletonConverter
from metrabs_ros.regular_file import shown


def convert_skeletons(
    source: pathlib.Path,
    output: pathlib.Path,
    converter: SkeletonConverter,
    overwrite: bool,
    warn: Callable[[str], None],
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
    if source.suffix in TABLES:
        summary = convert_table(source, output, converter, overwrite)
    else:
        summary = convert_bag(source, output, converter, overwrite, warn)
    if summary.skipped and not summary.people:
        reason, count = summary.skipped.most_common(1)[0]
        raise UnusableFile(
            f'{shown(source)} has no people that can be converted: {count} {reason}'
        )
    return summary
