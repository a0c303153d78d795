"""The command view: show people in a browser."""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
from typing import Any

from metrabs_ros import demo
from metrabs_ros.commands.requirements import require_package


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'view', help='show the topics of the pose node, or results of annotate, in a browser'
    )
    parser.add_argument(
        'results', nargs='?', type=pathlib.Path, help='results of annotate; default: live topics'
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 gives other machines access to the camera',
    )
    parser.add_argument('--web-port', type=int, default=9090, help='port of the web page')
    parser.add_argument('--data-port', type=int, default=9876, help='port of the data stream')
    parser.add_argument(
        '--memory',
        help='data buffered for new browsers; default: 256MiB, with results 2GiB',
    )
    parser.add_argument(
        '--cameras', nargs='*', default=[], help='live: namespaces of several cameras'
    )
    parser.add_argument(
        '--compressed', action='store_true', help='live: subscribe to image/compressed'
    )
    parser.add_argument(
        '--fused', action='store_true', help='live: show the people of the fusion node'
    )
    parser.add_argument(
        '--camera', default='', help='live: namespace of a camera, which contains image_raw'
    )
    parser.add_argument(
        '--ros-args', nargs=argparse.REMAINDER, default=[], help='live: ROS arguments, remappings'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show live topics, or results, until the command is interrupted."""
    require_package('rerun', 'view', 'rerun-sdk')
    if args.results is None:
        options = ['--host', args.host]
        options += ['--web-port', str(args.web_port), '--data-port', str(args.data_port)]
        options += ['--compressed'] if args.compressed else []
        options += ['--fused'] if args.fused else []
        options += ['--memory', args.memory] if args.memory else []
        options += ['--cameras', *args.cameras] if args.cameras else []
        return demo.view(options, args.camera, args.ros_args)
    require_package('rosbags', 'view of results', 'rosbags')
    from metrabs_ros.view.results import Results
    from metrabs_ros.view.scene import Scene
    from metrabs_ros.view.server import exposure_warning

    results = Results(args.results, print)
    try:
        scene = Scene(results.cameras, without_images=results.fused)
        address = scene.serve(args.web_port, args.data_port, args.memory or '2GiB', args.host)
        if warning := exposure_warning(args.host):
            print(f'view: {warning}', file=sys.stderr, flush=True)
        print(f'view: open {address} in a browser; Ctrl-C ends it', flush=True)
        results.show_in(scene)
        signal.pause()
    finally:
        results.close()
    return 0
