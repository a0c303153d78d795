"""The command build-engine: build engines of TensorRT in advance."""

from __future__ import annotations

import argparse
from typing import Any

from metrabs_ros import loading
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.store import RELEASES


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'build-engine', help='build the TensorRT engine of a model in advance'
    )
    parser.add_argument('model', help=f'{", ".join(RELEASES)} or a checkpoint')
    parser.add_argument(
        '--engine', default='auto', help='auto, tensorrt or tensorrt_rtx; default: auto'
    )
    parser.add_argument('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    parser.add_argument('--device', default='auto', help='auto, cuda or cuda:N')
    parser.add_argument(
        '--target',
        default='',
        metavar='TARGETS',
        help='compile with TensorRT for RTX for GPUs of other machines, for example '
        'sm86,sm89,sm120; needs no GPU',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build an engine, or compile for GPUs of other machines."""
    model = shown(args.model)
    if not args.target:
        choice = loading.build_engine(args.model, args.engine, args.precision, args.device)
        print(f'the engine for {model} is in the cache: {choice}')
        return 0
    if args.engine not in ('auto', 'tensorrt_rtx') or args.device != 'auto':
        raise ValueError(
            '--target compiles with TensorRT for RTX, without a GPU; remove --engine and --device'
        )
    targets = loading.build_plans(args.model, args.precision, args.target)
    print(f'the engines for {model} are in the cache: tensorrt_rtx for {", ".join(targets)}')
    return 0
