"""The command report: write an HTML report."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

from metrabs_ros.commands.requirements import require_package
from metrabs_ros.regular_file import shown


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'report', help='write an HTML report on the people in results of annotate or in a bag'
    )
    parser.add_argument(
        'results', type=pathlib.Path, help='bag with the skeletons of the pose node'
    )
    parser.add_argument('-o', '--output', type=pathlib.Path, help='HTML file of the report')
    parser.set_defaults(run=run, module='metrabs_ros.report.page')


def run(args: argparse.Namespace) -> int:
    """Write the report on results."""
    require_package('rosbags', 'report', 'rosbags')
    require_package('matplotlib', 'report', 'matplotlib')
    from metrabs_ros.report.page import write_report

    results: pathlib.Path = args.results
    is_folder = os.path.isdir(results)
    default = results / 'report.html' if is_folder else results.with_suffix('.html')
    output: pathlib.Path = args.output or default
    write_report(results, output, print)
    print(f'the report is in {shown(output)}')
    return 0
