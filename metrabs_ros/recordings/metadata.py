"""The metadata.yaml of a ROS 2 bag."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.input_files import UnusableFile, read_input
from metrabs_ros.recordings.plain_yaml import MAX_TEXT_CHARS, UnusableYaml, load_yaml

NAME = 'metadata.yaml'
ROOT_KEY = 'rosbag2_bagfile_information'
CUSTOM_KEY = 'metrabs_ros'
"""Of what annotate writes about its results."""
MAX_FILES = 10_000
COMPRESSION_MODES = ('', 'none', 'file', 'message', 'storage')


class UnusableMetadata(ValueError):  # noqa: N818
    """A metadata.yaml does not describe a bag; the message says why."""


class Metadata(NamedTuple):
    """
    What is used of a metadata.yaml.

    Parameters
    ----------
    files
        The names of the bag's files, in the order in which they were written.
    compression
        What is compressed: '', 'file' or 'message'.
    about
        What annotate wrote about its results; empty in other bags.
    """

    files: tuple[str, ...]
    compression: str
    about: dict[str, Any]


def read_metadata(folder: pathlib.Path) -> Metadata:
    """
    Read the metadata of a bag.

    Raises
    ------
    UnusableMetadata
        If it cannot be read or describes no bag.
    """
    try:
        text = read_input(folder / NAME, MAX_TEXT_CHARS).decode('utf-8')
        values = load_yaml(text)
    except (UnusableFile, UnusableYaml, UnicodeDecodeError) as error:
        raise UnusableMetadata(f'{NAME} is not usable: {printable(error, 300)}') from error
    about = values.get(ROOT_KEY) if isinstance(values, dict) else None
    if not isinstance(about, dict):
        raise UnusableMetadata(f'{NAME} is not usable: it has no {ROOT_KEY}')
    files = about.get('relative_file_paths')
    if (
        not isinstance(files, list)
        or not all(isinstance(file, str) and file for file in files)
        or len(files) > MAX_FILES
    ):
        raise UnusableMetadata(
            f'{NAME} is not usable: relative_file_paths is no list of up to {MAX_FILES} names'
        )
    return Metadata(
        # Older versions have paths, of the machine where the bag was recorded.
        tuple(dict.fromkeys(pathlib.PurePath(file).name for file in files)),
        _parse_compression(about),
        _parse_summary_text(about.get('custom_data')),
    )


def _parse_compression(about: dict[str, Any]) -> str:
    mode = about.get('compression_mode') or ''
    if not isinstance(mode, str) or mode.lower() not in COMPRESSION_MODES:
        raise UnusableMetadata(
            f'{NAME} is not usable: the compression_mode {printable(mode)} is not known'
        )
    # What a storage compresses, its reader decompresses.
    mode = mode.lower() if mode.lower() in ('file', 'message') else ''
    if mode and about.get('compression_format') != 'zstd':
        found = printable(about.get('compression_format'))
        raise UnusableMetadata(
            f'{NAME} is not usable: the compression_format {found} is not known; zstd is'
        )
    return mode


def _parse_summary_text(custom: Any) -> dict[str, Any]:
    text = custom.get(CUSTOM_KEY) if isinstance(custom, dict) else None
    if not isinstance(text, str):
        return {}
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}
