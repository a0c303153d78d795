"""The command export: write a network as an ONNX file."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from metrabs_ros import loading
from metrabs_ros.commands.requirements import require_new_file
from metrabs_ros.regular_file import SHARED, shown, write_atomically
from metrabs_ros.weights.store import RELEASES


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'export', help='export a network to ONNX, for trtexec, Triton or Isaac ROS'
    )
    parser.add_argument('model', help=f'{", ".join(RELEASES)} or a checkpoint')
    parser.add_argument(
        '--onnx', type=pathlib.Path, required=True, metavar='FILE', help='the file to write'
    )
    parser.add_argument(
        '--precision', default='fp32', help='precision of the backbone: fp32 or fp16'
    )
    parser.add_argument(
        '--skeleton',
        default='',
        help='NLF: the skeleton, or .npy file of canonical points, that the network predicts; '
        'default: smpl_24',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export the network of a model."""
    file: pathlib.Path = args.onnx
    # Another export may be in the folder of its checkpoint.
    checkpoint = pathlib.Path(args.model)
    is_folder = checkpoint.is_dir() and file.suffix != '.onnx'
    parts = checkpoint.iterdir() if is_folder else [checkpoint]
    inputs = [*parts, *([pathlib.Path(args.skeleton)] if args.skeleton else [])]
    require_new_file(file, args.overwrite, inputs)
    content = loading.export_onnx(args.model, args.precision, args.skeleton)
    write_atomically(file, content, SHARED)
    size_mb = len(content) / 1e6
    print(f'the network of {shown(args.model)} is in {shown(file)}, {size_mb:.0f} MB')
    return 0
