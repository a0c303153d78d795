"""The command demo: a camera node, the pose node and a viewer."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from metrabs_ros import demo
from metrabs_ros.commands.requirements import require_package
from metrabs_ros.demo_video import default_footage
from metrabs_ros.regular_file import shown


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser('demo', help='start a camera node, the pose node and a viewer')
    parser.add_argument(
        '--input', help='video, image folder, image or /dev/video*; default: sample video'
    )
    parser.add_argument('--calibration', help='ROS calibration YAML of the camera')
    parser.add_argument(
        '--fov', type=float, default=55.0, help='field of view in degrees, without calibration'
    )
    parser.add_argument(
        '--rate', type=float, default=0.0, help='images per second; 0: all images without drops'
    )
    parser.add_argument(
        '--output', type=pathlib.Path, default=pathlib.Path('demo_output'), help='output folder'
    )
    parser.add_argument(
        '--view', action='store_true', help='also show the result in a browser on this machine'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo until its source ends or a process ends."""
    source = pathlib.Path(args.input) if args.input else default_footage()
    _check_source(source)
    options = ['--fov', str(args.fov), '--rate', str(args.rate)]
    if args.calibration:
        options += ['--calibration', args.calibration]
    print(f'playing {shown(source)} ...', flush=True)
    if args.view:
        require_package('rerun', 'view', 'rerun-sdk')
    return demo.run(source, args.output, options, args.rate or 10.0, args.view)


def _check_source(source: pathlib.Path) -> None:
    """Raise an UnusableSource if the input of the demo cannot be read."""
    from metrabs_ros.recordings.image_files import Source

    # A camera can be opened only once, by the camera process.
    if not source.is_char_device():
        Source(str(source))
