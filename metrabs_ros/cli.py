"""The command line: metrabs_ros demo | fetch | build-engine."""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys

from metrabs_ros import demo
from metrabs_ros.footage import FootageError, default_footage
from metrabs_ros.models import load, store

COMPLAINTS = (store.WeightsError, FootageError, ValueError, ImportError)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    chosen = _parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except COMPLAINTS as error:
        print(f'metrabs_ros: {error}', file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='metrabs_ros', description='Absolute 3D human poses.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    fetch = commands.add_parser('fetch', help='fetch the weights of a model')
    fetch.add_argument('model', choices=store.MODELS)
    fetch.add_argument('--url', help='take a MeTRAbs release from here, for example from a mirror')
    fetch.set_defaults(run=_fetch)

    build = commands.add_parser(
        'build-engine',
        help="build a model's TensorRT engine for this GPU ahead of time",
    )
    build.add_argument('model', help='metrabs_s, metrabs_l or a folder with a checkpoint')
    build.add_argument('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    build.add_argument('--device', default='auto', help='auto, cuda or cuda:N')
    build.set_defaults(run=_build_engine)

    play = commands.add_parser('demo', help='run a camera, the pose node and a viewer')
    play.add_argument('--input', help='video, folder, picture or /dev/video*; default: footage')
    play.add_argument('--calibration', help='a ROS calibration YAML of the camera')
    play.add_argument('--fov', type=float, default=55.0, help='degrees, without calibration')
    play.add_argument('--rate', type=float, default=0.0, help='images a second; 0: all, no drops')
    play.add_argument('--output', type=pathlib.Path, default=pathlib.Path('demo_output'))
    play.set_defaults(run=_demo)
    return parser


def _fetch(chosen: argparse.Namespace) -> int:
    print(f'the {chosen.model} weights are in {store.fetch(chosen.model, chosen.url)}')
    return 0


def _build_engine(chosen: argparse.Namespace) -> int:
    choice = load.build_engine(chosen.model, chosen.precision, chosen.device)
    print(f'the engine for {chosen.model} is in the cache: {choice}')
    return 0


def _demo(chosen: argparse.Namespace) -> int:
    source = pathlib.Path(chosen.input) if chosen.input else default_footage()
    store.fetch(store.BLAZEPOSE)
    options = ['--fov', str(chosen.fov), '--rate', str(chosen.rate)]
    if chosen.calibration:
        options += ['--calibration', chosen.calibration]
    print(f'playing {source} ...', flush=True)
    return demo.run(source, chosen.output, options, chosen.rate or 10.0)


if __name__ == '__main__':
    sys.exit(main())
