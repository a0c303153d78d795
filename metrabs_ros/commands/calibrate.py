"""The command calibrate: estimate the poses of cameras from people."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from metrabs_ros.commands.requirements import require_package
from metrabs_ros.people import MM_PER_M


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'calibrate', help='estimate the poses of cameras from the people that they see'
    )
    parser.add_argument(
        'results',
        nargs='+',
        type=pathlib.Path,
        help='results of annotate, or bags with the skeletons of the pose node',
    )
    parser.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        default=pathlib.Path('extrinsics'),
        help='folder for extrinsics.yaml, extrinsics.launch.py and extrinsics.png',
    )
    parser.add_argument('--frame', default='map', help='name of the world frame; default: map')
    parser.add_argument(
        '--refine',
        metavar='FILE',
        help='improve the poses of an extrinsics.yaml; "tf": those of /tf_static in the bags',
    )
    parser.add_argument(
        '--rotation-deviation',
        type=float,
        default=1.0,
        metavar='DEGREES',
        help='with --refine: standard deviation of the given rotations; default: 1',
    )
    parser.add_argument(
        '--position-deviation',
        type=float,
        default=0.05,
        metavar='METRES',
        help='with --refine: standard deviation of the given positions; default: 0.05',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')
    parser.set_defaults(run=run, module='metrabs_ros.report.calibration_files')


def run(args: argparse.Namespace) -> int:
    """Estimate the poses of cameras, and write them."""
    require_package('rosbags', 'calibrate', 'rosbags')
    require_package('matplotlib', 'calibrate', 'matplotlib')
    from metrabs_ros.report.calibration_files import CalibrationOptions, calibrate

    options = CalibrationOptions(
        args.frame,
        args.refine or '',
        args.rotation_deviation,
        MM_PER_M * args.position_deviation,
        args.overwrite,
    )
    calibrate(args.results, args.output, options, print)
    return 0
