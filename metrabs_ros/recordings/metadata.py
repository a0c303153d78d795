"""The metadata.yaml of a ROS 2 bag."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.input_files import UnusableFile, read_input
from metrabs_ros.recordings.plain_yaml import MAX_TEXT_CHARS, UnusableYaml, load_yaml

METADATA_FILE = 'metadata.yaml'
ROOT_KEY = 'rosbag2_bagfile_information'
CUSTOM_KEY = 'metrabs_ros'
"""Key of the summary of annotate in the custom data of its results."""
MAX_FILES = 10_000
"""Maximum number of files of a bag."""
COMPRESSION_MODES = ('', 'none', 'file', 'message', 'storage')


class UnusableMetadata(ValueError):  # noqa: N818
    """A metadata.yaml does not describe a bag; the message states the reason."""


class Metadata(NamedTuple):
    """
    The used content of a metadata.yaml.

    Parameters
    ----------
    files
        Names of the bag's files in the order of recording.
    compression
        Compression mode: '', 'file' or 'message'.
    summary
        Summary that annotate wrote, as a JSON object; empty in other bags.
    """

    files: tuple[str, ...]
    compression: str
    summary: dict[str, Any]


def read_metadata(folder: pathlib.Path) -> Metadata:
    """
    Read the metadata of a bag.

    Raises
    ------
    UnusableMetadata
        If the file cannot be read or does not describe a bag.
    """
    try:
        text = read_input(folder / METADATA_FILE, MAX_TEXT_CHARS).decode('utf-8')
        values = load_yaml(text)
    except (UnusableFile, UnusableYaml, UnicodeDecodeError) as error:
        raise UnusableMetadata(
            f'{METADATA_FILE} is not usable: {printable(error, 300)}'
        ) from error
    info = values.get(ROOT_KEY) if isinstance(values, dict) else None
    if not isinstance(info, dict):
        raise UnusableMetadata(f'{METADATA_FILE} is not usable: it has no {ROOT_KEY}')
    files = info.get('relative_file_paths')
    if (
        not isinstance(files, list)
        or not all(isinstance(file, str) and file for file in files)
        or len(files) > MAX_FILES
    ):
        raise UnusableMetadata(
            f'{METADATA_FILE} is not usable: relative_file_paths must be a list of at most '
            f'{MAX_FILES} names'
        )
    return Metadata(
        # Older versions store paths of the recording machine.
        tuple(dict.fromkeys(pathlib.PurePath(file).name for file in files)),
        _parse_compression(info),
        _parse_summary(info.get('custom_data')),
    )


def _parse_compression(info: dict[str, Any]) -> str:
    mode = info.get('compression_mode') or ''
    if not isinstance(mode, str) or mode.lower() not in COMPRESSION_MODES:
        raise UnusableMetadata(
            f'{METADATA_FILE} is not usable: the compression_mode {printable(mode)} is not '
            'supported'
        )
    # Data that the storage compresses is decompressed by its reader.
    mode = mode.lower() if mode.lower() in ('file', 'message') else ''
    if mode and info.get('compression_format') != 'zstd':
        compression_format = printable(info.get('compression_format'))
        raise UnusableMetadata(
            f'{METADATA_FILE} is not usable: the compression_format {compression_format} is not '
            'supported; supported: zstd'
        )
    return mode


def _parse_summary(custom_data: Any) -> dict[str, Any]:
    text = custom_data.get(CUSTOM_KEY) if isinstance(custom_data, dict) else None
    if not isinstance(text, str):
        return {}
    try:
        summary = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}
