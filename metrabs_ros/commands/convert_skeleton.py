"""The command convert-skeleton: results with the joints of another skeleton."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from metrabs_ros.commands.errors import print_warning
from metrabs_ros.commands.requirements import require_package
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'convert-skeleton', help='convert people in results of annotate to another skeleton'
    )
    parser.add_argument(
        'source',
        type=pathlib.Path,
        help='bag with skeletons, or table of joints in CSV or Parquet',
    )
    parser.add_argument(
        '--skeleton', required=True, help='name of the new skeleton, such as smpl_24'
    )
    parser.add_argument(
        '--skeleton-file',
        type=pathlib.Path,
        metavar='FILE',
        help='skeleton definitions in addition to the built-in ones',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        required=True,
        help='folder of the new bag, or table of the same kind as the source',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the people in results."""
    require_package('rosbags', 'convert-skeleton', 'rosbags')
    from metrabs_ros.recordings.skeleton_conversion import convert_skeletons
    from metrabs_ros.recordings.skeleton_converter import SkeletonConverter
    from metrabs_ros.skeletons.definition_file import read_definitions

    definitions = [] if args.skeleton_file is None else read_definitions(args.skeleton_file)
    converter = SkeletonConverter(args.skeleton, definitions)

    summary = convert_skeletons(args.source, args.output, converter, args.overwrite, print_warning)
    for reason, count in summary.skipped.items():
        print_warning(f'{count} {reason}')
    if summary.approximate:
        print_warning(
            f'{summary.approximate} people have approximate image points: the recorded ones are '
            'not projections of the positions'
        )
    print(f'{summary.people} people as {printable(args.skeleton)} are in {shown(args.output)}')
    return 0
